"""The order in which Attri-Net trains its critic, its generator and its heads."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

CRITIC, GENERATOR, HEADS = "critic", "generator", "heads"


@dataclass(frozen=True)
class Update:
    """One optimiser step of the schedule.

    Args:
        part: what is trained: ``"critic"``, ``"generator"`` or ``"heads"``.
        count: number of earlier steps of this part.
    """

    part: str
    count: int


class Schedule:
    """The part that each step trains, a pure function of its number.

    An iteration has ``critic_steps`` steps of the critic (``burst`` in the first
    ``first_bursts`` iterations and in every ``burst_every``-th), one step of the generator, and
    ``head_steps`` steps of the heads.

    Args:
        hparams: resolved hyper-parameters.
        steps: the budget.
    """

    def __init__(self, hparams: Mapping[str, Any], steps: int) -> None:
        self.heads: int = hparams["head_steps"]
        critic: list[int] = []
        done = 0
        while done < steps:
            iteration = len(critic)
            burst = iteration < hparams["first_bursts"] or iteration % hparams["burst_every"] == 0
            critic.append(hparams["burst"] if burst else hparams["critic_steps"])
            done += critic[-1] + 1 + self.heads
        #: steps of the critic before each iteration, and all steps before each iteration
        self.critic_before = [0, *accumulate(critic)]
        self.before = [n + i * (1 + self.heads) for i, n in enumerate(self.critic_before)]

    def update(self, step: int) -> Update:
        """Return what a step, counted from 0, trains."""
        iteration = bisect.bisect_right(self.before, step) - 1
        offset = step - self.before[iteration]
        critic = self.critic_before[iteration + 1] - self.critic_before[iteration]
        if offset < critic:
            return Update(CRITIC, self.critic_before[iteration] + offset)
        if offset == critic:
            return Update(GENERATOR, iteration)
        return Update(HEADS, iteration * self.heads + offset - critic - 1)
