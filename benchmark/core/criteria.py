"""Criteria for model selection: what makes one step of a run better than another, on validation data only.

To add a criterion, write it once in ``CRITERIA``. Sweep files, planning, training, ``list criteria`` and reports take
everything they need from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import accuracy, worst_class_accuracy, worst_group_accuracy
from benchmark.core.needs import Needs

NOTHING = Needs()


@dataclass(frozen=True)
class Validation:
    """An evaluation on the validation split, as a criterion sees it.

    Args:
        step: training steps made so far.
        counts: confusion counts, as in ``benchmark.core.counts``.
        objective: mean over images of ``Algorithm.objective``; None unless a criterion asks for it.
    """

    step: int
    counts: np.ndarray
    objective: float | None = None


@dataclass(frozen=True)
class Criterion:
    """A rule that chooses one step of a run.

    Args:
        title: the name in tables and messages; it completes "the step with the best …".
        value: the quality of an evaluation; higher is better.
        needs: the annotations of validation images that ``value`` uses.
        uses_objective: whether ``value`` uses ``Validation.objective``.
        is_quality: whether values of different runs can be compared, and whether early stopping can follow them. Draws
            are compared by validation accuracy where they cannot.
    """

    title: str
    value: Callable[[Validation], float]
    needs: Needs = NOTHING
    uses_objective: bool = False
    is_quality: bool = True

    def __str__(self) -> str:
        return self.title


def _mean(validation: Validation) -> float:
    return (accuracy(validation.counts) + worst_group_accuracy(validation.counts)) / 2


def _objective(validation: Validation) -> float:
    if validation.objective is None:
        raise ValueError("this evaluation has no objective")
    return -validation.objective


#: Every criterion by the name that sweep files use.
CRITERIA: Mapping[str, Criterion] = {
    "last": Criterion("last step", lambda v: float(v.step), is_quality=False),
    "val_accuracy": Criterion("validation accuracy", lambda v: accuracy(v.counts)),
    "val_worst_class": Criterion(
        "validation worst-class accuracy", lambda v: worst_class_accuracy(v.counts)
    ),
    "val_worst_group": Criterion(
        "validation worst-group accuracy",
        lambda v: worst_group_accuracy(v.counts),
        needs=Needs(val_groups=True),
    ),
    "val_mean": Criterion(
        "mean of validation accuracy and worst-group accuracy", _mean, needs=Needs(val_groups=True)
    ),
    "val_objective": Criterion(
        "the method's own objective on validation", _objective, uses_objective=True
    ),
}


def title_of(name: str) -> str:
    """The title of a criterion; a name that this version does not know is returned unchanged."""
    return str(CRITERIA.get(name, name))
