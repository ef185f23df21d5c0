"""Mean of a score over trials, with the uncertainty of trials and of test images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import expit, logit

from benchmark.report.statistics.delta_method import Contributions
from benchmark.report.statistics.estimate import (
    NORMAL_QUANTILE,
    Estimate,
    Ints,
    clipped,
    student_quantile,
    without_interval,
)
from benchmark.report.statistics.standard_error import StandardError
from benchmark.report.statistics.stratified_mean import crossed_variance

KIND = "trials by t, images by the mean of their sd"
KIND_CROSSED = "crossed trials × images"


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
        sampling: Variance of the mean that the trials share with their test images.
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


def crossed_over_trials(
    estimates: Sequence[Estimate],
    contributions: Sequence[Contributions],
    cluster: Ints | None = None,
    *,
    on_logit_scale: bool = False,
) -> Estimate:
    """Return the mean of a score in [0, 1] over trials that have the same test images.

    A smooth score is the mean of its linearised values, one per image, so that the crossed analysis
    of variance applies.

    Args:
        estimates: The score of each of S ≥ 2 trials; all have a value.
        contributions: What each image contributes to the error of the score, in each trial.
        cluster: [n] patient of each image, or None.
        on_logit_scale: Whether the interval is symmetric on the logit scale.

    Returns:
        ``sd`` is that of the trials. If all trials are equal and without contributions, as with
        an AUC of exactly 1, the bounds are those of the first trial.

    Source: Delta method and ``crossed_variance``; logit scale as in Pepe (2003), section 5.2.
    """
    values = np.array([estimate.value for estimate in estimates], np.float64)
    value = float(values.mean())
    sd = float(values.std(ddof=1))
    each = np.stack([one.values - one.values.mean() for one in contributions])
    linear = values[:, None] + each.shape[1] * each
    added = float(np.mean([one.added for one in contributions]))
    error = crossed_variance(linear, cluster=cluster, added_variance=added).error
    if error is None:
        return replace(estimates[0], value=value, sd=sd)
    half = error.half_width()
    if on_logit_scale and 0.0 < value < 1.0:
        half /= value * (1.0 - value)
        low = float(expit(logit(value) - half))
        high = float(expit(logit(value) + half))
        return Estimate(value, sd, low, high, KIND_CROSSED)
    low, high = clipped(value - half, value + half, (0.0, 1.0))
    return Estimate(value, sd, low, high, KIND_CROSSED)
