"""Checks that each term of a loss has an effect, in the first steps that have it.

Nothing can be learned from a term that depends on no parameter, such as a detached tensor, an
explanation of a network without gradients, or the result of a compiler error. The log would still
show a plausible number.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.autograd_graph import depends_on
from benchmark.core.errors import UserError

#: The number of steps in which a term is checked. Each check reads the term from the device.
CHECKED_STEPS = 3


@dataclass
class TermCounts:
    """Counts of the checked steps of a term.

    Args:
        steps: all checked steps.
        zero: the steps in which the term was exactly 0.
        constant: the steps in which the term depended on no trained parameter.
    """

    steps: int = 0
    zero: int = 0
    constant: int = 0


class TermWatch:
    """Checks the terms of the first steps of a run.

    A term that depends on no trained parameter in its first ``CHECKED_STEPS`` steps is an error. A
    term that is exactly 0 in all of them is a warning, since it may be intended (a weight of 0, a
    penalty before its start). Terms in ``algorithm.may_be_zero`` are neither while they are 0.
    Terms that are only logged, and not minimised, are not checked.

    Args:
        algorithm: the method.

    Attributes:
        warnings: sentences for the record of the run.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.terms: dict[str, TermCounts] = {}
        self.gradients = TermCounts()
        self.warnings: list[str] = []

    def observe(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Check the terms of a step that was just made.

        Raises:
            UserError: a term depended on no parameter in its first steps.
        """
        for name, value in terms.items():
            if not isinstance(value, torch.Tensor):
                continue
            if not value.requires_grad and name not in self.algorithm.minimised:
                continue
            counts = self.terms.setdefault(name, TermCounts())
            if counts.steps < CHECKED_STEPS:
                self._check_term(name, value, counts)
        if self.gradients.steps < CHECKED_STEPS:
            self._check_gradients()

    def finish(self) -> None:
        """Warn of constant terms that had too few steps to be an error."""
        for name, counts in self.terms.items():
            if counts.steps < CHECKED_STEPS and counts.constant == counts.steps:
                self._warn(_constant_message(name, self.algorithm))

    def state(self) -> dict[str, Any]:
        """Return the counts and the warnings, for a checkpoint."""
        return {
            "terms": {name: list(astuple(counts)) for name, counts in self.terms.items()},
            "gradients": list(astuple(self.gradients)),
            "warnings": list(self.warnings),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of ``state``."""
        self.terms = {name: TermCounts(*values) for name, values in state["terms"].items()}
        self.gradients = TermCounts(*state["gradients"])
        self.warnings = list(state["warnings"])

    def _check_term(self, name: str, value: torch.Tensor, counts: TermCounts) -> None:
        counts.steps += 1
        zero = not bool(value.any())
        if zero and name in self.algorithm.may_be_zero:
            return
        counts.zero += zero
        trained = {id(p) for p in self.algorithm.parameters() if p.requires_grad}
        counts.constant += not depends_on(value, lambda leaf: id(leaf) in trained)
        if counts.steps < CHECKED_STEPS:
            return
        if counts.constant == CHECKED_STEPS:
            raise UserError(_constant_message(name, self.algorithm))
        if counts.zero == CHECKED_STEPS:
            self._warn(f"the term {name} was exactly 0 in each of its first {CHECKED_STEPS} steps.")

    def _check_gradients(self) -> None:
        gradients = [p.grad for p in self.algorithm.parameters() if p.grad is not None]
        if not gradients:
            return
        self.gradients.steps += 1
        self.gradients.zero += not any(bool(gradient.any()) for gradient in gradients)
        if self.gradients.zero == CHECKED_STEPS:
            self._warn(
                f"every gradient was exactly 0 in the first {CHECKED_STEPS} steps: nothing is "
                "learned."
            )

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        print(f"warning: {sentence}", file=sys.stderr)


def _constant_message(name: str, algorithm: Algorithm) -> str:
    return (
        f"the term {name} of {algorithm.name} depends on no trained parameter, so nothing can be "
        "learned from it; compute it with gradients from a network that is trained, or list it in "
        "may_be_zero if it may be 0."
    )
