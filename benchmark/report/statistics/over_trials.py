"""Mean of a score over trials, with the uncertainty of trials and of test images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from benchmark.report.statistics.estimate import (
    NORMAL_QUANTILE,
    Estimate,
    clipped,
    student_quantile,
    without_interval,
)
from benchmark.report.statistics.standard_error import StandardError

KIND = "trials by t, images by the mean of their sd"


def student_over_trials(
    values: Sequence[float],
    kind: str = "t over trials",
    limits: tuple[float, float] = (0.0, 1.0),
    sampling: float = 0.0,
) -> Estimate:
    """Return mean ± sd of at least two trials and an interval of the mean.

    There is no interval if all trials are equal and there is no other variance, because the spread
    of the trials is then unknown.

    Args:
        values: The score in each trial.
        kind: Caption text that says how the interval was made.
        limits: Range of the score; the bounds are kept inside.
        sampling: Variance of the mean that the trials share, because they have the same test images.
    """
    mean = statistics.fmean(values)
    sd = statistics.stdev(values)
    if sd == 0.0 and sampling == 0.0:
        return Estimate(mean, sd, None, None, "none", "no interval: all trials are equal")
    trials = len(values)
    error = StandardError((sd**2 / trials, sampling), (trials - 1.0, math.inf))
    half = error.half_width()
    low, high = clipped(mean - half, mean + half, limits)
    return Estimate(mean, sd, low, high, kind)


def mean_over_trials(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean over trials of a score in [0, 1] that all have on the same test images.

    Half the width of the interval is √((t · s / √S)² + (z · σ)²). s is the standard deviation of
    the S trials, t Student's quantile with S − 1 degrees of freedom; σ is the mean over trials of
    the standard deviation that the test images alone give. Trials share the images, so σ does not
    shrink with S. Part of σ is already contained in s, so the interval is rather wide
    (docs/coverage.md). A single trial keeps its own interval.

    Args:
        estimates: One per trial; those without a value are left out.

    Returns:
        ``sd`` is that of the trials (with one trial that of the images). There are no bounds where
        a trial has no standard deviation.
    """
    known = [e for e in estimates if e.value is not None]
    if len(known) < 2:
        return known[0] if known else without_interval(None)
    values = [e.value for e in known if e.value is not None]
    of_images = [e.interval_sd for e in known if e.interval_sd is not None]
    value = statistics.fmean(values)
    sd = statistics.stdev(values)
    if len(of_images) < len(known):
        return Estimate(value, sd, None, None, KIND, "no sd of the images")
    half = math.hypot(
        student_quantile(len(known) - 1.0) * sd / math.sqrt(len(known)),
        NORMAL_QUANTILE * statistics.fmean(of_images),
    )
    low, high = clipped(value - half, value + half, (0.0, 1.0))
    return Estimate(value, sd, low, high, KIND)
