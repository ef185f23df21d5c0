"""Means of the terms of a loss between two evaluations, and a check for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from benchmark.engine.exceptions import NonFiniteError

#: On a GPU values are checked once in this many steps, since each check waits for the GPU.
_CHECK_EVERY = 25


class LossMeter:
    """Sums the named terms of a loss on the device where they are computed."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self._first_bad: dict[str, torch.Tensor] = {}

    def add(self, step: int, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Add the terms of a step.

        Args:
            step: the number of the step, from 1.
            terms: the terms by name.

        Raises:
            NonFiniteError: a term is NaN or infinite. On a GPU it is raised up to 24 steps later,
                with the step at which it happened.
        """
        for name, value in terms.items():
            tensor = (
                value.detach().double()
                if isinstance(value, torch.Tensor)
                else torch.tensor(float(value)).double()
            )
            self.sums[name] = self.sums[name] + tensor if name in self.sums else tensor.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
            if tensor.device.type == "cpu":
                if not math.isfinite(tensor):
                    raise NonFiniteError(step, f"term {name} of the loss")
                continue
            never = torch.full((), -1, dtype=torch.int64, device=tensor.device)
            seen = self._first_bad.get(name, never)
            self._first_bad[name] = torch.where((seen < 0) & ~tensor.isfinite(), step, seen)
        if step % _CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise a NonFiniteError if a term was not finite since the last check."""
        bad = [(int(step), name) for name, step in self._first_bad.items() if int(step) >= 0]
        if bad:
            step, name = min(bad)
            raise NonFiniteError(step, f"term {name} of the loss")

    def means(self) -> dict[str, float]:
        """Return the mean of each term since ``clear``, over the steps that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        """Forget all terms."""
        self.sums = {}
        self.counts = {}
        self._first_bad = {}

    def state(self) -> dict[str, list[float]]:
        """Return the sum and the count of each term, for a checkpoint."""
        return {name: [float(total), float(self.counts[name])] for name, total in self.sums.items()}

    def restore(self, state: Mapping[str, list[float]], device: torch.device) -> None:
        """Continue from the result of ``state``."""
        self.clear()
        for name, (total, count) in state.items():
            self.sums[name] = torch.tensor(total, dtype=torch.float64, device=device)
            self.counts[name] = int(count)
