"""The mean of paired differences with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True)
class PairedMean:
    """The mean of paired differences in [−1, 1].

    Attributes:
        mean: The mean, shrunken towards 0; NaN without images.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        units: Number of independent units: images, or patients with several images.
    """

    mean: float
    low: float
    high: float
    units: int


def paired_mean(
    values: np.ndarray, cluster: np.ndarray | None = None, level: float = 0.95
) -> PairedMean:
    """Return the mean of paired differences with a two-sided interval.

    Four observations of 0 are added to the mean, and one of size 1 to the sum of squares, so that
    an experiment in which no answer changed is not certain: m = Σv / (n + 4), and the variance of
    m is ((Σv² + 1) / (n + 4) − m²) / (n + 4). For one-sided decisions at 2.5 %, use one bound.

    Args:
        values: float[N] in [−1, 1]; NaN where a difference is undefined.
        cluster: int64[N], equal for images of one patient, whose values are averaged first.
        level: Probability that the interval contains the true mean.
    """
    defined = np.isfinite(values)
    used = values[defined].astype(np.float64)
    if cluster is not None and len(used):
        _, which = np.unique(cluster[defined], return_inverse=True)
        used = np.bincount(which, used) / np.bincount(which)
    count = len(used)
    if not count:
        return PairedMean(math.nan, -1.0, 1.0, 0)
    mean = float(used.sum() / (count + 4))
    variance = float((used @ used + 1.0) / (count + 4) - mean**2) / (count + 4)
    half = float(ndtri(0.5 + level / 2)) * math.sqrt(variance)
    return PairedMean(mean, max(mean - half, -1.0), min(mean + half, 1.0), count)


def smallest_visible(units: int, threshold: float, level: float = 0.95) -> float:
    """Return the smallest reliance that ``paired_mean`` would find with this number of units.

    It is the share of images whose answer would have to follow the shortcut, all others being
    unaffected, for the lower bound to exceed the threshold. It is 1 if nothing would be found.

    Args:
        units: Number of independent units.
        threshold: The threshold of the verdict.
        level: Probability that the interval contains the true mean.
    """
    for followed in range(units + 1):
        values = np.zeros(units)
        values[:followed] = 1.0
        if paired_mean(values, level=level).low > threshold:
            return followed / units
    return 1.0
