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
        not_compared: Why it was not compared with the best value of its column; empty if it was,
            or if nothing in the column was.
        shows_bounds: Whether the bounds are printed even where the standard deviation is asked for,
            because the value ± its standard deviation says little about the true value.
    """

    estimate: Estimate = NO_ESTIMATE
    per_trial: Mapping[int, float] | None = None
    notes: tuple[str, ...] = ()
    best: bool | None = None
    not_compared: str = ""
    shows_bounds: bool = False

    @property
    def trials(self) -> int:
        """Number of trials that have a value."""
        return len(self.per_trial or ())

    @property
    def mark(self) -> str:
        """``*`` if it cannot be distinguished from the best, ``?`` if this was not tested."""
        if self.best:
            return "*"
        return "?" if self.not_compared else ""


NO_VALUE = Value()
