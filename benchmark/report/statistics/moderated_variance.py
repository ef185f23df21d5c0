"""Variances of several methods, each estimated from few trials, that support each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

from benchmark.report.statistics.estimate import Floats

#: Variances are raised to this share of their median, so that their logarithms exist.
_SMALLEST_SHARE = 1e-5


@dataclass(frozen=True)
class TrialVariance:
    """The variance between trials of a score in one trial.

    Attributes:
        variance: An estimate of it.
        degrees_of_freedom: Of the estimate.
    """

    variance: float
    degrees_of_freedom: float


def trial_variances(values: Floats) -> tuple[TrialVariance, ...]:
    """Return the variance between trials of each method, moderated by those of the others.

    A trial's effect that all methods share cancels from differences and is removed first. The
    variance of a difference is then the sum of two of the variances.

    Args:
        values: [K, S] score of K ≥ 2 methods in the same S ≥ 2 trials.

    Returns:
        One variance per method. With two methods both are half of the variance of their difference.
    """
    methods, trials = values.shape
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    variances = (residual**2).sum(1) / (trials - 1) * methods / (methods - 1)
    freedom = trials - 1.0
    if methods > 2:
        variances, moderated = moderated_variances(variances, freedom)
        freedom = min(moderated, (methods - 1) * freedom)
    return tuple(TrialVariance(float(variance), freedom) for variance in variances)


def moderated_variances(variances: Floats, degrees_of_freedom: float) -> tuple[Floats, float]:
    """Return posterior variances under a scaled inverse χ² prior that is fitted to all of them.

    Args:
        variances: [K] sample variances.
        degrees_of_freedom: Of each sample variance.

    Returns:
        (d0 s0² + d s²)/(d0 + d) with the degrees of freedom d0 + d. If the variances differ no more
        than by chance, d0 is infinite and all are equal to their mean.

    Source: Smyth (2004), Linear models and empirical Bayes methods, sections 4 and 6.2.
    """
    median = float(np.median(variances))
    if median <= 0.0:
        return np.full(len(variances), variances.mean()), degrees_of_freedom
    half = degrees_of_freedom / 2.0
    logs = np.log(np.maximum(variances, _SMALLEST_SHARE * median)) - digamma(half) + math.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half))
    if excess <= 0.0:
        return np.full(len(variances), variances.mean()), math.inf
    prior_half = _inverse_trigamma(excess)
    prior = math.exp(float(logs.mean() + digamma(prior_half)) - math.log(prior_half))
    total = prior_half + half
    return (prior_half * prior + half * variances) / total, 2.0 * total


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value > 0, by Newton's method (Smyth 2004, appendix)."""
    x = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1.0 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x
