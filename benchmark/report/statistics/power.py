"""Power: the probability of finding a difference, and the number of trials that it takes."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.special import ndtr

from benchmark.report.statistics.standard_error import StandardError

#: Power at which a number of trials counts as enough.
ENOUGH = 0.8
#: Largest number of trials that is tried.
MOST_TRIALS = 50
#: Differences that captions and plans describe: 2 and 5 points.
DIFFERENCES = (0.02, 0.05)
#: Assumptions about a sweep that has not run: the share of test images on which two methods differ
#: in a trial, that on which they differ in all trials, and the standard deviation of a method's
#: accuracy between trials.
TYPICAL_DISAGREEMENT = 0.2
TYPICAL_LASTING_DISAGREEMENT = 0.05
TYPICAL_TRIAL_SD = 0.015


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


def planned_error(trials: int, images: int, methods: int) -> StandardError:
    """Return the standard error of a difference that a sweep may be expected to have.

    Args:
        trials: Number of trials.
        images: Number of test images.
        methods: Number of methods, which together tell how much trials vary.
    """
    if trials < 2:
        return StandardError((TYPICAL_DISAGREEMENT / images,), (math.inf,))
    lasting = TYPICAL_LASTING_DISAGREEMENT / images
    between = 2.0 * TYPICAL_TRIAL_SD**2 + TYPICAL_DISAGREEMENT / images - lasting
    freedom = (trials - 1.0) * (methods - 1.0)
    return StandardError((between / trials, lasting), (freedom, math.inf))


def describe_power(
    error: StandardError, trials: int, images: int | None, methods: int, level: float
) -> str:
    """Return a clause on how often differences are found, and how many trials would find them.

    Args:
        error: Standard error of a difference, as in ``with_trials``.
        trials: Number of trials.
        images: Number of test images, or None if it is unknown.
        methods: Number of methods, all pairs of which are compared.
        level: Level of the tests of all pairs together.
    """
    tail = family_tail(methods, level)
    sizes = f"{trials} trial{'' if trials == 1 else 's'}"
    sizes += f" and {images:,} images" if images else ""
    small, large = (100.0 * power(error, difference, tail) for difference in DIFFERENCES)
    clause = (
        f"with {sizes}, a difference of {100 * DIFFERENCES[0]:g} points between two methods is "
        f"found in {small:.0f} % of such tables, one of {100 * DIFFERENCES[1]:g} points in "
        f"{large:.0f} %"
    )
    if trials < 2:
        return clause
    needed = (trials_needed(error, trials, difference, tail) for difference in DIFFERENCES)
    ways = dict.fromkeys(
        "more test images" if number is None else f"{number} trials" for number in needed
    )
    return f"{clause}; finding them in {100 * ENOUGH:.0f} % takes {' or '.join(ways)}"
