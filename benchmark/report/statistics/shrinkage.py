"""Posteriors of differences between methods, from a hierarchical model of a table."""

from __future__ import annotations

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
#: Bisections of a quantile; the error is then below 1e-9 of the largest distance.
_BISECTIONS = 35


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
    standard_errors: Sequence[float],
    margin: float,
    prior_mean: float = PRIOR_MEAN,
) -> tuple[PosteriorDifference, ...]:
    """Return the posteriors of differences from one reference.

    The true values of the reference and of all methods are normal about a common mean with standard
    deviation τ, and τ has a Gamma(2) prior. If methods hardly differ, the differences are therefore
    drawn towards zero. Given τ everything is normal and in closed form; the posterior of
    τ is a sum over quantiles of its prior.

    Args:
        differences: K ≥ 1 differences from the reference.
        standard_errors: Of the differences, positive.
        margin: A smaller |Δ| counts as equivalent.
        prior_mean: Mean of the prior of τ, in the unit of the differences.

    Source: Gelman et al., Bayesian Data Analysis, section 5.4; prior of τ: Chung et al.
    (2013), which keeps it from zero.
    """
    difference = np.asarray(differences, np.float64)
    variance = np.asarray(standard_errors, np.float64) ** 2
    own = np.eye(len(difference))
    shared = np.ones_like(own)
    # The error of the reference is part of all differences.
    reference = float(variance.min()) / 2.0
    noise = np.diag(variance - reference) + reference * shared
    quantiles = (np.arange(_GRID) + 0.5) / _GRID
    between = (prior_mean / 2.0 * gammaincinv(2.0, quantiles)) ** 2
    prior = between[:, None, None] * (own + shared)
    total = prior + noise
    gain = np.linalg.solve(total, prior).transpose(0, 2, 1)
    mean = gain @ difference
    spread = prior - gain @ prior
    sd = np.sqrt(np.maximum(np.diagonal(spread, axis1=1, axis2=2), 1e-300))
    weight = _likelihood(total, difference)[:, None]
    positive = (weight * ndtr(mean / sd)).sum(0)
    inside = ndtr((margin - mean) / sd) - ndtr((-margin - mean) / sd)
    equivalent = (weight * inside).sum(0)
    estimates = _estimates(weight, mean, sd)
    return tuple(
        PosteriorDifference(float(p), float(e), estimate)
        for p, e, estimate in zip(positive, equivalent, estimates, strict=True)
    )


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


def _likelihood(covariance: Floats, difference: Floats) -> Floats:
    """Return the normal likelihoods under each covariance, with sum 1."""
    _, log_determinant = np.linalg.slogdet(covariance)
    distance = np.linalg.solve(covariance, difference[None, :, None])[..., 0] @ difference
    logs = -0.5 * (log_determinant + distance)
    weight = np.exp(logs - logs.max())
    return np.asarray(weight / weight.sum())
