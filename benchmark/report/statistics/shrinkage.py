"""Posteriors of differences between methods, from a hierarchical model of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtr

from benchmark.report.statistics.credible import KIND
from benchmark.report.statistics.estimate import UPPER_PROBABILITY, Estimate, Floats

#: Mean of the prior of τ, the standard deviation between methods: three points of accuracy.
PRIOR_MEAN = 0.03
#: Values of τ over which the posterior is averaged.
_GRID = 64
#: Values of the standard deviation between trials over which the posterior is averaged.
_TRIAL_GRID = 64
#: The smallest and the largest of them, in units of the prior's scale and of the estimate.
_SMALLEST, _LARGEST = 0.05, 20.0
#: With more degrees of freedom, the estimate is taken as the true variance.
_MANY_DEGREES = 100.0
#: Values whose weight is smaller than the largest by this factor, a logarithm, are left out.
_NEGLIGIBLE = 30.0
#: Bisections of a quantile; the error is then below 1e-9 of the largest distance.
_BISECTIONS = 35


@dataclass(frozen=True)
class Noise:
    """The variance of the error of a difference between two means over trials.

    Attributes:
        known: Variance that is known, such as that of the test images.
        by_trials: Estimate of the variance due to the trials; 0 with one trial.
        degrees_of_freedom: Of that estimate.
        trials: Number of trials.
        residual: Part of the variance due to the trials that is known, since each trial has errors
            on other images.
    """

    known: float
    by_trials: float = 0.0
    degrees_of_freedom: float = math.inf
    trials: int = 1
    residual: float = 0.0


@dataclass(frozen=True)
class PosteriorDifference:
    """The posterior of the difference Δ of a method and the reference.

    Attributes:
        positive: P(Δ > 0).
        equivalent: P(|Δ| < margin).
        estimate: Posterior mean, standard deviation and credible interval of Δ.
    """

    positive: float
    equivalent: float
    estimate: Estimate


def posterior_differences(
    differences: Sequence[float],
    noises: Sequence[Noise],
    margin: float,
    prior_mean: float = PRIOR_MEAN,
) -> tuple[PosteriorDifference, ...]:
    """Return the posteriors of differences from one reference.

    The true values of the reference and of all methods are normal about a common mean with standard
    deviation τ, and τ has a Gamma(2) prior. If methods hardly differ, the differences are therefore
    drawn towards zero. The standard deviation σ of the networks of a method in new trials has the
    density σ/(s² + σ²)^(3/2), where s is half of ``prior_mean``: its median is about that of τ and
    its tail is heavy, so that few trials that differ much are believed. Given τ and σ, everything
    is normal and in closed form; the posterior is a sum over values of both.

    Args:
        differences: K ≥ 1 differences from the reference.
        noises: Variances of their errors, with a positive sum.
        margin: A smaller |Δ| counts as equivalent.
        prior_mean: Mean of the prior of τ, in the unit of the differences.

    Source: Gelman et al., Bayesian Data Analysis, sections 3.2 and 5.4; prior of τ: Chung et al.
    (2013), which keeps it from zero.
    """
    difference = np.asarray(differences, np.float64)
    quantiles = (np.arange(_GRID) + 0.5) / _GRID
    between = (prior_mean / 2.0 * gammaincinv(2.0, quantiles)) ** 2
    variances, variance_logs = _variances(noises, prior_mean / 2.0)
    parts = [_given_variance(difference, variance, between) for variance in variances]
    logs = np.concatenate([part[0] + log for part, log in zip(parts, variance_logs, strict=True)])
    mean, sd = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    weight = np.exp(logs - logs.max())[:, None]
    weight /= weight.sum()
    positive = (weight * ndtr(mean / sd)).sum(0)
    inside = ndtr((margin - mean) / sd) - ndtr((-margin - mean) / sd)
    equivalent = (weight * inside).sum(0)
    estimates = _estimates(weight, mean, sd)
    return tuple(
        PosteriorDifference(float(p), float(e), estimate)
        for p, e, estimate in zip(positive, equivalent, estimates, strict=True)
    )


def _variances(noises: Sequence[Noise], scale: float) -> tuple[Floats, Floats]:
    """Return possible values of the variances, [n, K], and logarithms of their weights, [n].

    d times the estimate divided by the true variance has a χ² distribution with d degrees of
    freedom. Where estimates of the methods differ, so do the true values, by the same factors. The
    values of σ are evenly spaced on the logarithmic scale.

    Args:
        noises: Variances of K errors.
        scale: Of the prior of σ.
    """
    known = np.array([noise.known for noise in noises])
    estimate = np.array([noise.by_trials for noise in noises])
    freedom = min((n.degrees_of_freedom for n in noises if n.by_trials > 0.0), default=math.inf)
    if freedom > _MANY_DEGREES:
        return (known + estimate)[None], np.zeros(1)
    residual = np.array([noise.residual for noise in noises])
    trials = np.array([noise.trials for noise in noises])
    estimated = math.sqrt(float((estimate * trials).mean()) / 2.0)
    unit = max(scale, estimated)
    sigma = np.geomspace(_SMALLEST * min(scale, unit), _LARGEST * unit, _TRIAL_GRID)
    factor = estimate / estimate.mean()
    by_trials = residual + factor * 2.0 * sigma[:, None] ** 2 / trials
    mean = by_trials.mean(1)
    likelihood = -0.5 * freedom * (np.log(mean) + estimate.mean() / mean)
    prior = 2.0 * np.log(sigma) - 1.5 * np.log(scale**2 + sigma**2)
    weight = likelihood + prior
    kept = weight > weight.max() - _NEGLIGIBLE
    return (known + by_trials)[kept], weight[kept]


def _given_variance(
    difference: Floats, variance: Floats, between: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the posterior for known variances and each value of τ².

    Args:
        difference: [K] differences from the reference.
        variance: [K] their variances.
        between: [n] values of τ².

    Returns:
        The logarithm of the likelihood up to a constant, [n], and the mean and the standard
        deviation of the true differences, each [n, K].
    """
    own = np.eye(len(difference))
    shared = np.ones_like(own)
    # The error of the reference is part of all differences.
    reference = float(variance.min()) / 2.0
    noise = np.diag(variance - reference) + reference * shared
    prior = between[:, None, None] * (own + shared)
    total = prior + noise
    gain = np.linalg.solve(total, prior).transpose(0, 2, 1)
    spread = prior - gain @ prior
    sd = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 1e-300))
    return _log_likelihood(total, difference), gain @ difference, sd


def _estimates(weight: Floats, mean: Floats, sd: Floats) -> list[Estimate]:
    """Return mean, standard deviation and credible interval of K mixtures of normals.

    Args:
        weight: [n, 1] weights of the components, with sum 1.
        mean: [n, K] means of the components.
        sd: [n, K] standard deviations.
    """
    centre = (weight * mean).sum(0)
    total = np.sqrt((weight * (sd**2 + (mean - centre) ** 2)).sum(0))
    tails = np.array([[1.0 - UPPER_PROBABILITY], [UPPER_PROBABILITY]])
    # Chebyshev's inequality: no tail of 2.5 % lies farther than 1 / √0.025 standard deviations.
    low = np.stack([centre - 7.0 * total] * 2)
    high = np.stack([centre + 7.0 * total] * 2)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        below = ndtr((middle[:, None] - mean) / sd)
        is_below = (weight * below).sum(1) < tails
        low = np.where(is_below, middle, low)
        high = np.where(is_below, high, middle)
    return [
        Estimate(float(c), float(t), float(lower), float(upper), KIND, is_posterior=True)
        for c, t, lower, upper in zip(centre, total, low[0], high[1], strict=True)
    ]


def _log_likelihood(covariance: Floats, difference: Floats) -> Floats:
    """Return the logarithms of the normal likelihoods under each covariance, up to a constant."""
    _, log_determinant = np.linalg.slogdet(covariance)
    distance = np.linalg.solve(covariance, difference[None, :, None])[..., 0] @ difference
    return np.asarray(-0.5 * (log_determinant + distance))
