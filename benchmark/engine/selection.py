"""Which step of a run is the one to report: several criteria side by side, on validation data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark.core.criteria import CRITERIA, Validation
from benchmark.core.spec import before_switch
from benchmark.engine.evaluate import Evaluation


class Selection:
    """The best step so far by each criterion, and the weights of those steps.

    Early stopping follows the first criterion: the run ends after ``patience`` evaluations in a row that did not
    improve it by more than ``min_delta``; 0 never stops early.

    Args:
        criteria: names from ``benchmark.core.criteria.CRITERIA``.
        after: an evaluation after more steps than this is chosen before any earlier one, and early stopping begins
            to count there; 0 for no such bound. The model is not yet the method's before that.
    """

    def __init__(
        self,
        criteria: Sequence[str],
        patience: int = 0,
        min_delta: float = 0.0,
        after: int = 0,
    ) -> None:
        self.criteria, self.patience, self.min_delta = tuple(criteria), patience, min_delta
        self.after = after
        self.best: dict[str, tuple[int, float]] = {}
        self.weights: dict[int, Mapping[str, torch.Tensor]] = {}
        self.waited = 0
        self.anchor = float("-inf")  # the value that patience measures from

    def update(
        self, step: int, validation: Evaluation, weights: Mapping[str, torch.Tensor]
    ) -> None:
        """Take note of an evaluation.

        Args:
            step: steps made so far.
            validation: the answers on the validation split.
            weights: the model's state; copied only if some criterion wants to keep it.
        """
        values = criterion_values(self.criteria, step, validation)
        early = before_switch(step, self.after)
        for name, value in values.items():
            best = self.best.get(name)
            first = best is None or (before_switch(best[0], self.after) and not early)
            if first or value > self.best[name][1]:
                self.best[name] = (step, value)
        wanted = {best for best, _ in self.best.values()}
        if step in wanted:
            self.weights[step] = {
                name: tensor.detach().cpu().clone() for name, tensor in weights.items()
            }
        self.weights = {s: w for s, w in self.weights.items() if s in wanted}
        if early:
            return
        followed = values[self.criteria[0]]
        if followed > self.anchor + self.min_delta:
            self.anchor, self.waited = followed, 0
        else:
            self.waited += 1

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience > 0 and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        best = {name: [step, value] for name, (step, value) in self.best.items()}
        return {
            "best": best,
            "weights": dict(self.weights),
            "waited": self.waited,
            "anchor": self.anchor,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best = {
            name: (int(step), float(value)) for name, (step, value) in state["best"].items()
        }
        self.weights = dict(state["weights"])
        self.waited, self.anchor = int(state["waited"]), float(state["anchor"])


def criterion_values(
    criteria: Sequence[str], step: int, validation: Evaluation
) -> dict[str, float]:
    """The value of each criterion on an evaluation after ``step`` steps; higher is better."""
    seen = Validation(step, validation.counts, validation.objective)
    return {name: CRITERIA[name].value(seen) for name in criteria}
