"""Criteria for model selection: rules that select one step of a run, on validation data only.

To add a criterion, write a subclass of ``Criterion`` in a module of this package and decorate it
with ``CRITERIA.register``. A package of your own declares its module under the entry-point group
``shortcutbed.criteria`` instead. Sweep files, planning, training, ``list criteria`` and reports
find it by its name::

    @CRITERIA.register
    class BalancedAccuracy(Criterion):
        name = "val_balanced"
        title = "validation balanced accuracy"

        def value(self, validation: Validation) -> float:
            correct, total = class_counts(validation.counts)
            return float((correct / total).mean())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmark.core.counts import accuracy, worst_class_accuracy, worst_group_accuracy
from benchmark.core.needs import Needs
from benchmark.core.registry import Registry


@dataclass(frozen=True)
class Validation:
    """An evaluation on the validation split.

    Attributes:
        step: number of training steps made so far.
        counts: confusion counts, as in ``benchmark.core.counts``.
        objective: mean over images of ``Algorithm.objective``; None unless a criterion uses it.
    """

    step: int
    counts: np.ndarray
    objective: float | None = None


class Criterion(ABC):
    """A rule that selects one step of a run: the one with the highest value.

    Attributes:
        name: the name in sweep files.
        title: the name in tables and messages; it completes "the step with the best …".
        needs: the annotations of validation images that ``value`` uses.
        uses_objective: whether ``value`` uses ``Validation.objective``.
        is_quality: whether values of different runs can be compared, and whether early stopping can
            follow them. If not, draws are compared by validation accuracy.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    needs: ClassVar[Needs] = Needs()
    uses_objective: ClassVar[bool] = False
    is_quality: ClassVar[bool] = True

    @abstractmethod
    def value(self, validation: Validation) -> float:
        """Return the quality of an evaluation; higher is better."""

    def __str__(self) -> str:
        return self.title


class CriteriaRegistry(Mapping[str, Criterion]):
    """The registered criteria by name: those of this module, then all others in order of name."""

    def __init__(self) -> None:
        self.registry: Registry[type[Criterion]] = Registry(
            "criterion", "benchmark.core.criteria", "shortcutbed.criteria", f"{__name__}:Criterion"
        )

    def register(self, criterion: type[Criterion]) -> type[Criterion]:
        """Add a criterion under its name; use as a decorator."""
        return self.registry.register(criterion)

    def __getitem__(self, name: str) -> Criterion:
        if name not in self.registry.names():
            raise KeyError(name)
        return self.registry.get(name)()

    def __iter__(self) -> Iterator[str]:
        further = (name for name in self.registry.names() if name not in _BUILT_IN)
        return iter([*_BUILT_IN, *further])

    def __len__(self) -> int:
        return len(self.registry.names())


#: Every criterion by the name that sweep files use.
CRITERIA = CriteriaRegistry()


@CRITERIA.register
class Last(Criterion):
    """The last step."""

    name = "last"
    title = "last step"
    is_quality = False

    def value(self, validation: Validation) -> float:
        return float(validation.step)


@CRITERIA.register
class Accuracy(Criterion):
    """The accuracy."""

    name = "val_accuracy"
    title = "validation accuracy"

    def value(self, validation: Validation) -> float:
        return accuracy(validation.counts)


@CRITERIA.register
class WorstClassAccuracy(Criterion):
    """The lowest accuracy of a class."""

    name = "val_worst_class"
    title = "validation worst-class accuracy"

    def value(self, validation: Validation) -> float:
        return worst_class_accuracy(validation.counts)


@CRITERIA.register
class WorstGroupAccuracy(Criterion):
    """The lowest accuracy of a group."""

    name = "val_worst_group"
    title = "validation worst-group accuracy"
    needs = Needs(val_groups=True)

    def value(self, validation: Validation) -> float:
        return worst_group_accuracy(validation.counts)


@CRITERIA.register
class MeanAccuracy(Criterion):
    """The mean of the accuracy and the lowest accuracy of a group."""

    name = "val_mean"
    title = "mean of validation accuracy and worst-group accuracy"
    needs = Needs(val_groups=True)

    def value(self, validation: Validation) -> float:
        return (accuracy(validation.counts) + worst_group_accuracy(validation.counts)) / 2


@CRITERIA.register
class Objective(Criterion):
    """The method's own objective, of which lower values are better."""

    name = "val_objective"
    title = "the method's own objective on validation"
    uses_objective = True

    def value(self, validation: Validation) -> float:
        if validation.objective is None:
            raise ValueError("this evaluation has no objective")
        return -validation.objective


#: The criteria of this module, in the order in which they are listed.
_BUILT_IN = tuple(CRITERIA.registry.known_modules())


def title_of(name: str) -> str:
    """Return the title of a criterion; an unknown name is its own title."""
    return str(CRITERIA.get(name, name))
