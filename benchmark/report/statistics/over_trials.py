"""Mean of a score over trials, where trials and test images both leave it uncertain."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

from benchmark.report.statistics.estimate import Estimate, clipped, normal_quantile

KIND = "trials by t, images by the mean of their sd"


def mean_over_trials(estimates: Sequence[Estimate], level: float = 0.95) -> Estimate:
    """The mean of one score over trials on one test set, in [0, 1], and an interval that counts both.

    Half its width is √((t · s / √S)² + (z · σ)²): s is the sd of the S trials, t Student's quantile with S − 1 degrees
    of freedom; σ is the mean over trials of the sd that the test images alone give. Trials share the images, so σ does
    not shrink with S; since s holds a share of σ already, the interval is on the wide side (docs/coverage.md). One
    trial keeps its own interval.

    Args:
        estimates: of every trial; those without a value are left out.
        level: of the interval.

    Returns:
        ``sd`` is that of the trials (of the images, with one trial); without bounds where a trial has no sd.
    """
    known = [e for e in estimates if e.value is not None]
    if len(known) < 2:
        return known[0] if known else Estimate(None, None, None, None, "none")
    values, images = [e.value for e in known if e.value is not None], [e.interval_sd for e in known]
    value, sd = statistics.fmean(values), statistics.stdev(values)
    if any(s is None for s in images):
        return Estimate(value, sd, None, None, KIND, "no sd of the images")
    t = float(stdtrit(len(known) - 1.0, 0.5 + level / 2.0))
    sigma = statistics.fmean(s for s in images if s is not None)
    half = math.hypot(t * sd / math.sqrt(len(known)), normal_quantile(level) * sigma)
    low, high = clipped(value - half, value + half, (0.0, 1.0))
    return Estimate(value, sd, low, high, KIND)
