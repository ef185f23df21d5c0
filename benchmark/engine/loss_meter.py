"""Means of the terms of a loss between two evaluations, and the watch for values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from benchmark.engine.exceptions import NonFiniteError

#: On a GPU the watch reads back once in this many steps: reading every step would wait for every kernel.
_EVERY = 25


class Terms:
    """Sums of the named terms on the device where they are made."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self._first_bad: dict[str, torch.Tensor] = {}

    def add(self, step: int, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Add the terms of ``step`` (from 1).

        Raises:
            NonFiniteError: a term is NaN or infinite; on a GPU up to 24 steps later, naming the step at which it was.
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
        if step % _EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise NonFiniteError if a term was not finite since the last check."""
        bad = [(int(step), name) for name, step in self._first_bad.items() if int(step) >= 0]
        if bad:
            step, name = min(bad)
            raise NonFiniteError(step, f"term {name} of the loss")

    def means(self) -> dict[str, float]:
        """Mean of each term since ``clear``, over the steps that had it."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        self.sums, self.counts, self._first_bad = {}, {}, {}

    def state(self) -> dict[str, list[float]]:
        """For a checkpoint: sum and count of each term."""
        return {name: [float(total), float(self.counts[name])] for name, total in self.sums.items()}

    def restore(self, state: Mapping[str, list[float]], device: torch.device) -> None:
        self.clear()
        for name, (total, count) in state.items():
            self.sums[name] = torch.tensor(total, dtype=torch.float64, device=device)
            self.counts[name] = int(count)
