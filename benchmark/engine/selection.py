"""Selects the step of a run to report, by several criteria at once, on validation data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark.core.criteria import CRITERIA, Validation
from benchmark.core.spec import before_switch
from benchmark.engine.evaluate import Evaluation


class Selection:
    """Keeps the best step so far by each criterion, and the weights of those steps.

    Early stopping follows the first criterion.

    Args:
        criteria: names from ``benchmark.core.criteria.CRITERIA``.
        patience: the run stops after this many evaluations in a row without an improvement; 0 never
            stops early.
        min_delta: an improvement must be larger than this.
        after: the step at which the method begins. Any evaluation after it is preferred to all
            earlier ones, and early stopping starts to count there; 0 if the method begins at once.
    """

    def __init__(
        self,
        criteria: Sequence[str],
        patience: int = 0,
        min_delta: float = 0.0,
        after: int = 0,
    ) -> None:
        self.criteria = tuple(criteria)
        self.patience = patience
        self.min_delta = min_delta
        self.after = after
        self.best: dict[str, tuple[int, float]] = {}
        self.weights: dict[int, Mapping[str, torch.Tensor]] = {}
        self.waited = 0  # evaluations since the last improvement
        self.anchor = float("-inf")  # the value that must be improved

    def update(
        self, step: int, validation: Evaluation, weights: Mapping[str, torch.Tensor]
    ) -> None:
        """Consider an evaluation.

        Args:
            step: the number of steps made so far.
            validation: the evaluation of the validation split.
            weights: the state of the model; copied only if a criterion selects this step.
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
            self.anchor = followed
            self.waited = 0
        else:
            self.waited += 1

    @property
    def exhausted(self) -> bool:
        """Return True if the run should stop early."""
        return self.patience > 0 and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        best = {name: [step, value] for name, (step, value) in self.best.items()}
        return {
            "best": best,
            "weights": dict(self.weights),
            "waited": self.waited,
            "anchor": self.anchor,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of ``state``."""
        self.best = {
            name: (int(step), float(value)) for name, (step, value) in state["best"].items()
        }
        self.weights = dict(state["weights"])
        self.waited = int(state["waited"])
        self.anchor = float(state["anchor"])


def criterion_values(
    criteria: Sequence[str], step: int, validation: Evaluation
) -> dict[str, float]:
    """Return the value of each criterion after ``step`` steps; higher is better."""
    measured = Validation(step, validation.counts, validation.objective)
    return {name: CRITERIA[name].value(measured) for name in criteria}
