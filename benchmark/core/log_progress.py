"""The part of a line of log.jsonl that shows the progress of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from benchmark.core.decode import Between, Count, Seconds


@dataclass(frozen=True)
class LogProgress:
    """The progress of a run at a line of its log.

    Attributes:
        step: Number of steps made.
        steps: Number of steps in the budget; 0 if the line does not contain it.
        seconds: Seconds of training and evaluation so far.
        images_per_second: Training speed since the last line.
    """

    step: Count
    steps: Count = 0
    seconds: Seconds = 0.0
    images_per_second: Annotated[float, Between(0.0, 1e12)] = 0.0
