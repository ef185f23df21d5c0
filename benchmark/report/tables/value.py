"""A number in a table's cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.report.statistics.estimate import NO_ESTIMATE, Estimate


@dataclass(frozen=True)
class Value:
    """The number of a cell.

    Attributes:
        estimate: ``sd`` is over trials if there are several, else of the test sample alone.
        per_trial: The value of each trial, by the trial's number.
        notes: Footnotes that do not depend on the printed spread.
        best: Whether it cannot be distinguished from the best value of its column; None if that
            was not tested.
    """

    estimate: Estimate = NO_ESTIMATE
    per_trial: Mapping[int, float] | None = None
    notes: tuple[str, ...] = ()
    best: bool | None = None

    @property
    def trials(self) -> int:
        """Number of trials that have a value."""
        return len(self.per_trial or ())


NO_VALUE = Value()
