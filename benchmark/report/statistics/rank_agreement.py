"""Agreement of rankings: Kendall's τ with an interval by bootstrap over images and trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.report.statistics.estimate import LEVEL, Floats

#: Number of bootstrap samples.
DRAWS = 1000
#: Bootstrap samples whose means are computed together.
_AT_ONCE = 100


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ-b of two rankings.

    Attributes:
        value: τ-b of the means; None if one of the rankings has ties only.
        low: Lower bound of the interval; None without a value.
        high: Upper bound of the interval.
    """

    value: float | None
    low: float | None
    high: float | None


NO_AGREEMENT = Agreement(None, None, None)


def kendall_tau(scores: Floats) -> Floats:
    """Return Kendall's τ-b between the columns of scores.

    Args:
        scores: float[..., K, M], scores of K items by M criteria.

    Returns:
        float[..., M, M]; NaN where a criterion has ties only.

    Source: Kendall (1945).
    """
    first, second = np.triu_indices(scores.shape[-2], 1)
    signs = np.sign(scores[..., first, :] - scores[..., second, :])
    concordance = np.einsum("...pa,...pb->...ab", signs, signs)
    untied = np.abs(signs).sum(-2)
    scale = np.sqrt(untied[..., :, None] * untied[..., None, :])
    with np.errstate(invalid="ignore"):
        found: Floats = concordance / scale
    return found


def rank_agreement(
    values: Sequence[Floats], *, same_images: bool, draws: int = DRAWS, seed: int = 0
) -> list[list[Agreement]]:
    """Return how far M criteria agree in ranking K items.

    An item is ranked by its mean over trials of the mean over the images for which the criterion is
    defined. The interval is the percentile bootstrap over trials and images; with one trial over
    images only. With few trials it is rather narrow.

    Args:
        values: float[K,M,n] of each trial; larger is better; NaN where not defined.
        same_images: Whether all trials have the same images, which are then drawn together.
        draws: Number of bootstrap samples.
        seed: Seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    trials = len(values)
    tau = kendall_tau(np.mean([np.nanmean(one, axis=2) for one in values], axis=0))
    sampled = []
    for start in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - start)
        by_trial = _bootstrap_means(values, same_images, count, rng)
        weights = rng.multinomial(trials, np.full(trials, 1.0 / trials), size=count) / trials
        sampled.append(kendall_tau(np.einsum("bt,tbkm->bkm", weights, by_trial)))
    tail = 100.0 * (1.0 - LEVEL) / 2.0
    every = np.concatenate(sampled)
    every = np.where(np.isfinite(every).any(0), every, 0.0)  # then τ itself is not defined
    low, high = np.nanpercentile(every, [tail, 100.0 - tail], axis=0)
    return [
        [
            Agreement(float(tau[a, b]), float(low[a, b]), float(high[a, b]))
            if np.isfinite([tau[a, b], low[a, b], high[a, b]]).all()
            else NO_AGREEMENT
            for b in range(len(tau))
        ]
        for a in range(len(tau))
    ]


def _bootstrap_means(
    values: Sequence[Floats], same_images: bool, count: int, rng: np.random.Generator
) -> Floats:
    """Return the means of each trial over resampled images, float[S,count,K,M]."""
    found = []
    weights: Floats | None = None
    for one in values:
        images = one.shape[2]
        if weights is None or not same_images:
            drawn = rng.multinomial(images, np.full(images, 1.0 / images), size=count)
            weights = drawn.astype(np.float64)
        defined = np.isfinite(one)
        total = np.einsum("bn,kmn->bkm", weights, np.where(defined, one, 0.0), optimize=True)
        number = np.einsum("bn,kmn->bkm", weights, defined.astype(np.float64), optimize=True)
        with np.errstate(invalid="ignore"):
            found.append(total / number)
    return np.stack(found)
