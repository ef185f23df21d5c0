"""Whether each term of a loss does something, looked at in the first steps that have it.

A term that depends on no parameter cannot be learnt from, whatever the cause: an explanation of a network in which
no gradient flows, a detached tensor, a compiler's mistake. The log would show a plausible number all the same.
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

#: Steps with a term after which the term is judged. Looking at a term reads it back from the device.
FIRST = 3


@dataclass
class Seen:
    """What was seen of a term: steps in all, steps in which it was 0, steps in which no parameter moved it."""

    steps: int = 0
    zero: int = 0
    constant: int = 0


class TermWatch:
    """Looks at the terms of the first steps of one run; ``warnings`` are sentences for its record.

    A term that no trained parameter moves in its first ``FIRST`` steps is an error. A term that is exactly 0 in all of
    them may be right (a weight of 0, a penalty before its start) and is a warning. Terms that the algorithm names in
    ``may_be_zero`` are neither while they are 0; what is only logged, and not minimised, is not looked at.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.terms: dict[str, Seen] = {}
        self.gradients = Seen()
        self.warnings: list[str] = []

    def look(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Look at the terms of a step that was just made.

        Raises:
            UserError: no parameter moved a term in its first steps.
        """
        for name, value in terms.items():
            if not isinstance(value, torch.Tensor):
                continue
            if not value.requires_grad and name not in self.algorithm.minimised:
                continue
            seen = self.terms.setdefault(name, Seen())
            if seen.steps < FIRST:
                self._look_at(name, value, seen)
        if self.gradients.steps < FIRST:
            self._look_at_gradients()

    def finish(self) -> None:
        """Judge the terms that had too few steps to be judged before; none of them is an error any more."""
        for name, seen in self.terms.items():
            if seen.steps < FIRST and seen.constant == seen.steps:
                self._warn(_constant(name, self.algorithm))

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "terms": {name: list(astuple(seen)) for name, seen in self.terms.items()},
            "gradients": list(astuple(self.gradients)),
            "warnings": list(self.warnings),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.terms = {name: Seen(*values) for name, values in state["terms"].items()}
        self.gradients = Seen(*state["gradients"])
        self.warnings = list(state["warnings"])

    def _look_at(self, name: str, value: torch.Tensor, seen: Seen) -> None:
        seen.steps += 1
        zero = not bool(value.any())
        if zero and name in self.algorithm.may_be_zero:
            return
        seen.zero += zero
        trained = {id(p) for p in self.algorithm.parameters() if p.requires_grad}
        seen.constant += not depends_on(value, lambda leaf: id(leaf) in trained)
        if seen.steps < FIRST:
            return
        if seen.constant == FIRST:
            raise UserError(_constant(name, self.algorithm))
        if seen.zero == FIRST:
            self._warn(f"the term {name} was exactly 0 in each of its first {FIRST} steps.")

    def _look_at_gradients(self) -> None:
        found = [p.grad for p in self.algorithm.parameters() if p.grad is not None]
        if not found:
            return
        self.gradients.steps += 1
        self.gradients.zero += not any(bool(gradient.any()) for gradient in found)
        if self.gradients.zero == FIRST:
            self._warn(
                f"every gradient was exactly 0 in the first {FIRST} steps: nothing is learnt."
            )

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        print(f"warning: {sentence}", file=sys.stderr)


def _constant(name: str, algorithm: Algorithm) -> str:
    return (
        f"no parameter that is trained moves the term {name} of {algorithm.name}, so nothing can be learnt from it; "
        "compute it with gradients from a network that is trained, or name it in may_be_zero where it is rightly 0."
    )
