"""Credible intervals: quantiles of the posteriors of a confusion matrix and of the gap.

Recall has a Beta posterior with exact quantiles. All other bounds are quantiles of independent
draws, which are counted in narrow bins, so that memory does not grow with their number.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincinv

from benchmark.report.statistics.estimate import (
    UPPER_PROBABILITY,
    Estimate,
    Floats,
    Ints,
    checked_counts,
)
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS

#: Draws behind a bound. Its Monte Carlo error is then about 1/240 of the posterior's sd.
DRAWS = 400_000
#: Caption text of credible intervals.
KIND = "credible"
_TAILS = np.array([1.0 - UPPER_PROBABILITY, UPPER_PROBABILITY])
#: Numbers that a block of draws may hold.
_BLOCK = 1_000_000
#: Bins of the range of a score. Bounds are interpolated inside a bin.
_BINS = 20_000


def credible_bounds(table: Ints, draws: int | None = None, seed: int = 0) -> dict[str, Floats]:
    """Return the bounds of the equal-tailed 95 % credible interval of every score.

    Args:
        table: [M, M] counts, true class × predicted class; rows without images are left out of the
            model.
        draws: Number of draws; by default 400,000.
        seed: Seed of the draws; equal seeds give equal results.

    Returns:
        name → [M, 2] for a score per class, [1, 2] for an overall one; NaN where undefined.

    Source: TEA paper, Appendix H; Zhang, Wang & Zhao (ICTIR 2015).
    """
    generator = np.random.default_rng(seed)
    present = np.flatnonzero(table.sum(1))
    rows = table[present]
    classes = len(table)
    names = [*PER_CLASS, *OVERALL]
    sizes = [classes if name in PER_CLASS else 1 for name in names]
    counter = _Counter(sum(sizes))
    left = DRAWS if draws is None else draws
    block = max(1, min(left, _BLOCK // rows.size))
    while left > 0:
        now = min(block, left)
        mu = _dirichlet(generator, rows.sum(1), now)
        theta = _dirichlet(generator, rows, now)
        scores = scores_of(mu, theta, present, classes)
        counter.add(np.concatenate([scores[name] for name in names], axis=-1).T)
        left -= now
    stacked = counter.quantiles()
    found = dict(zip(names, np.split(stacked, np.cumsum(sizes)[:-1]), strict=True))
    found["recall"] = recall_bounds(np.diag(table), table.sum(1), classes)
    return found


def recall_bounds(correct: Ints, size: Ints, classes: int) -> Floats:
    """Return the exact bounds of recalls, [..., 2]; NaN without images.

    Under a flat prior on the probabilities of M predictions the posterior of recall is
    Beta(correct + 1, size − correct + M − 1).

    Args:
        correct: [...] images of a class, or of a part of it, that are predicted correctly.
        size: [...] all its images.
        classes: Number M of classes.
    """
    a = np.asarray(correct, np.float64)[..., None] + 1.0
    b = np.asarray(size - correct, np.float64)[..., None] + classes - 1.0
    return np.where(size[..., None] > 0, betaincinv(a, b, _TAILS), np.nan)


def recall_posterior(correct: int, size: int, classes: int) -> Estimate | None:
    """Return posterior mean, sd and credible interval of the recall of a class or a part of it.

    Args:
        correct: Images that are predicted correctly.
        size: All images.
        classes: Number of classes that may be predicted.

    Returns:
        None without images.
    """
    if not size:
        return None
    low, high = recall_bounds(np.array(correct), np.array(size), classes)
    mean = (correct + 1.0) / (size + classes)
    sd = math.sqrt(mean * (1.0 - mean) / (size + classes + 1.0))
    return Estimate(mean, sd, float(low), float(high), KIND, is_posterior=True)


def accuracy_bounds(table: Ints, draws: int | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the bounds of the accuracy alone, which takes far fewer draws than all scores."""
    return _quantiles(accuracy_draws(table, draws or DRAWS, seed))


def accuracy_draws(table: Ints, draws: int, seed: int = 0) -> Floats:
    """Return independent draws of the accuracy Σ_j μ_j θ_jj from its posterior.

    Args:
        table: [M, M] counts, true class × predicted class.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    weight = np.zeros(draws)
    correct = np.zeros(draws)
    for j in np.flatnonzero(table.sum(1)):
        size = table[j].sum()
        share = generator.standard_gamma(size + 1.0, draws, np.float32)
        right = generator.standard_gamma(table[j, j] + 1.0, draws, np.float32)
        wrong = generator.standard_gamma(size - table[j, j] + len(table) - 1.0, draws, np.float32)
        weight += share
        correct += share * (right / (right + wrong))
    return correct / weight


def unpaired_gap_posterior(biased: Ints, deceiving: Ints, seed: int = 0) -> Estimate:
    """Return the posterior of the difference of the accuracies on two sets of objects.

    Args:
        biased: [M, M] confusion counts on the biased test set.
        deceiving: The same on the deceiving test set.
        seed: Seed of the draws.
    """
    first = accuracy_draws(biased, DRAWS, seed)
    return _of_draws(first - accuracy_draws(deceiving, DRAWS, seed + 1))


def paired_gap_posterior(pairs: Ints, seed: int = 0) -> Estimate:
    """Return the posterior of the gap between two test sets that show the same objects.

    The prior of the four joint probabilities is Dir(½, ½, ½, ½), as in ``paired_gap``.

    Args:
        pairs: [2, 2] counts of pairs by biased × deceiving correctness.
        seed: Seed of the draws.

    Raises:
        ValueError: Another shape; negative, fractional or NaN counts.
    """
    counts = checked_counts(pairs, "pair counts")
    if counts.shape != (2, 2):
        raise ValueError(f"Pair counts have shape (2, 2); got {counts.shape}.")
    generator = np.random.default_rng(seed)
    joint = _dirichlet(generator, counts.ravel(), DRAWS, prior=0.5)
    found = _of_draws(joint[:, 2] - joint[:, 1])
    n = counts.sum() + 2.0
    only_biased = (counts[1, 0] + 0.5) / n
    only_deceiving = (counts[0, 1] + 0.5) / n
    mean = float(only_biased - only_deceiving)
    sd = math.sqrt(float(only_biased + only_deceiving - mean**2) / (n + 1.0))
    return Estimate(mean, sd, found.low, found.high, KIND, is_posterior=True)


def _of_draws(draws: Floats) -> Estimate:
    low, high = _quantiles(draws)
    mean = float(draws.mean())
    return Estimate(mean, float(draws.std()), low, high, KIND, is_posterior=True)


def _quantiles(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, _TAILS)
    return float(low), float(high)


def _dirichlet(
    generator: np.random.Generator, counts: Ints, draws: int, prior: float = 1.0
) -> Floats:
    """Return draws of Dir(counts + prior) over the last axis, [draws, *counts.shape].

    Gammas of one parameter in single precision are several times faster than a broadcast draw.
    """
    gamma = np.empty((*counts.shape, draws), np.float32)
    for place, count in np.ndenumerate(counts):
        generator.standard_gamma(count + prior, dtype=np.float32, out=gamma[place])
    found = np.moveaxis(gamma, -1, 0).astype(np.float64)
    found /= found.sum(-1, keepdims=True)
    return found


class _Counter:
    """Counts of draws of scores in [0, 1], in narrow bins.

    Args:
        scores: Number of scores.
    """

    def __init__(self, scores: int) -> None:
        self._counts = np.zeros((scores, _BINS), np.int64)
        self._is_defined = np.ones(scores, np.bool_)

    def add(self, draws: Floats) -> None:
        """Count draws, [scores, draws]; NaN in all draws of an undefined score."""
        self._is_defined &= np.isfinite(draws[:, 0])
        cells = np.clip(np.nan_to_num(draws) * _BINS, 0, _BINS - 1).astype(np.int64)
        cells += _BINS * np.arange(len(draws))[:, None]
        np.add.at(self._counts.reshape(-1), cells.ravel(), 1)

    def quantiles(self) -> Floats:
        """Return the bounds of each score, [scores, 2]."""
        found = np.full((len(self._counts), 2), np.nan)
        edges = np.arange(_BINS + 1) / _BINS
        for i in np.flatnonzero(self._is_defined):
            total = np.concatenate([[0], np.cumsum(self._counts[i])])
            inside = np.flatnonzero(self._counts[i])
            # Empty bins have no unique place in the inverse, so only filled ones are used.
            places = np.concatenate([inside, inside + 1])
            places = places[np.lexsort((places, total[places]))]
            found[i] = np.interp(_TAILS * total[-1], total[places], edges[places])
        return found


def scores_of(mu: Floats, theta: Floats, present: Ints, classes: int) -> dict[str, Floats]:
    """Return every score for every draw, directly from its definition.

    Args:
        mu: [..., K] probabilities of the K classes that have images.
        theta: [..., K, M] prediction probabilities of those classes.
        present: [K] numbers of these classes.
        classes: Number M of all classes.

    Returns:
        name → [..., M] for a score per class, [..., 1] for an overall one; NaN where undefined.

    Source: TEA paper, Appendix H; Zhang, Wang & Zhao (ICTIR 2015).
    """
    joint = mu[..., None] * theta
    predicted = joint.sum(-2)
    share, correct, recall = np.zeros((3, *predicted.shape))
    share[..., present] = mu
    for row, j in enumerate(present):
        correct[..., j] = joint[..., row, j]
        recall[..., j] = theta[..., row, j]
    absent = np.setdiff1d(np.arange(classes), present)
    recall[..., absent] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = correct / predicted
        f1 = 2.0 * correct / (share + predicted)
        specificity = 1.0 - (predicted - correct) / (1.0 - share)
    precision[..., absent] = f1[..., absent] = np.nan
    return {
        "recall": recall,
        "precision": precision,
        "specificity": specificity,
        "f1": f1,
        "accuracy": correct.sum(-1, keepdims=True),
        "balanced_accuracy": recall[..., present].mean(-1, keepdims=True),
        "macro_precision": precision[..., present].mean(-1, keepdims=True),
        "macro_specificity": specificity[..., present].mean(-1, keepdims=True),
        "macro_f1": f1[..., present].mean(-1, keepdims=True),
    }
