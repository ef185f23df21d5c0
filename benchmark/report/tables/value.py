"""A number in a table's cell."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.report.statistics.estimate import NO_ESTIMATE, Estimate


class Spread(enum.StrEnum):
    """What is printed beside a value.

    Attributes:
        SD: The standard deviation.
        INTERVAL: A 95 % interval.
        CREDIBLE: Posterior mean and standard deviation and a 95 % credible interval, where a
            posterior is defined; elsewhere the standard deviation and a 95 % interval.
        BOTH: The standard deviation, and the interval below it, as on the HTML page.
    """

    SD = "sd"
    INTERVAL = "interval"
    CREDIBLE = "credible"
    BOTH = "both"


@dataclass(frozen=True)
class Value:
    """The number of a cell.

    Attributes:
        estimate: ``sd`` is over trials if there are several, else of the test sample alone.
        per_trial: The value of each trial, by the trial's number.
        notes: Footnotes that do not depend on the printed spread.
        best: Whether it cannot be distinguished from the best value of its column; None if that
            was not tested.
        is_top: Whether it is the best value of its column, which formats print in bold.
        not_compared: Why it was not compared with the best value of its column; empty if it was,
            or if nothing in the column was.
        shows_bounds: Whether the bounds are printed even where the standard deviation is asked for,
            because the value ± its standard deviation says little about the true value.
        posterior: Posterior mean, standard deviation and credible interval of a single trial; None
            if they were not requested or are not defined.
    """

    estimate: Estimate = NO_ESTIMATE
    per_trial: Mapping[int, float] | None = None
    notes: tuple[str, ...] = ()
    best: bool | None = None
    is_top: bool = False
    not_compared: str = ""
    shows_bounds: bool = False
    posterior: Estimate | None = None

    def shown(self, spread: str) -> Estimate:
        """Return what is printed: the posterior if it is asked for and defined, or the estimate."""
        if spread == Spread.CREDIBLE and self.posterior is not None:
            return self.posterior
        return self.estimate

    @property
    def trials(self) -> int:
        """Number of trials that have a value."""
        return len(self.per_trial or ())

    @property
    def mark(self) -> str:
        """``≈`` if it cannot be distinguished from the best, ``?`` if this was not tested."""
        if self.best and not self.is_top:
            return "≈"
        return "?" if self.not_compared else ""


NO_VALUE = Value()
