"""How likely a difference between two methods is found, and how many trials it would take."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.special import ndtr

from benchmark.report.statistics.standard_error import StandardError

#: Power at which a number of trials counts as enough.
ENOUGH = 0.8
#: Largest number of trials that is tried.
MOST_TRIALS = 50


def power(error: StandardError, difference: float, tail: float) -> float:
    """Return the probability that a true difference is found.

    Args:
        error: Standard error of the estimated difference.
        difference: The true difference.
        tail: Probability per side of a false finding.

    Returns:
        Φ((|difference| − half width)/sd), which ignores findings of the wrong sign.
    """
    return float(ndtr((abs(difference) - error.half_width(tail)) / error.sd))


def with_trials(error: StandardError, trials: int, planned: int) -> StandardError:
    """Return what the standard error would be with another number of trials.

    Args:
        error: Its first component is the variance between trials, its others do not change.
        trials: Number of trials behind it, at least 2.
        planned: The other number of trials, at least 2.
    """
    variances = (error.variances[0] * trials / planned, *error.variances[1:])
    freedom = error.degrees_of_freedom[0] * (planned - 1) / (trials - 1)
    return replace(
        error,
        variances=variances,
        degrees_of_freedom=(freedom, *error.degrees_of_freedom[1:]),
    )


def trials_needed(error: StandardError, trials: int, difference: float, tail: float) -> int | None:
    """Return the smallest number of trials with a power of at least ``ENOUGH``.

    Args:
        error: As in ``with_trials``.
        trials: Number of trials behind it, at least 2.
        difference: The true difference.
        tail: Probability per side of a false finding.

    Returns:
        The number, or None if ``MOST_TRIALS`` are not enough.
    """
    for planned in range(2, MOST_TRIALS + 1):
        if power(with_trials(error, trials, planned), difference, tail) >= ENOUGH:
            return planned
    return None


def family_tail(methods: int, level: float) -> float:
    """Return the probability per side in the first comparison of all pairs of methods."""
    return level / 2.0 / max(math.comb(methods, 2), 1)
