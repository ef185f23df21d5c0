"""Worst-group accuracy with bounds that hold near ties."""

from __future__ import annotations

import math
import statistics

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, stdtrit

from benchmark.report.statistics.estimate import (
    Estimate,
    Floats,
    Ints,
    checked_counts,
    listed,
    normal_quantile,
)

_KIND = "Clopper–Pearson envelope"
_TRIALS_KIND = "envelope and t over trials"


def clopper_pearson(
    correct: Ints, total: Ints, lower_tail: float, upper_tail: float
) -> tuple[Floats, Floats]:
    """One-sided exact binomial bounds, each missed with at most its tail probability.

    Args:
        correct, total: [G] counts with 0 ≤ correct ≤ total and total ≥ 1.
    Source: Clopper & Pearson (1934), as quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k).
    """
    k, n = correct.astype(np.float64), total.astype(np.float64)
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, lower_tail))
    high = np.where(k == n, 1.0, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - upper_tail))
    return low, high


def worst_group_interval(correct: ArrayLike, total: ArrayLike, level: float = 0.95) -> Estimate:
    """The smallest group accuracy with an envelope of exact bounds: [min_g L_g(α/2), min_g U_g(α/(2G))].

    The posterior of a minimum and the bootstrap are too narrow and too low near ties. Here the lower bound holds
    because the worst group's own bound does, and the upper one because all G upper bounds hold together.

    Args:
        correct, total: [G] rightly classified and all images of each group.
        level: of the interval.
    Returns:
        The plug-in minimum; ``sd`` is None, since a minimum has no useful one. Groups without images are left out and
        named by position in the note.
    Raises:
        ValueError: shapes that differ, negative, fractional or NaN counts, more right than there are, no images at all.
    Source: Clopper & Pearson (1934) and Bonferroni's inequality.
    """
    normal_quantile(level)  # refuses a level that is none
    right, size = checked_counts(correct, "correct counts"), checked_counts(total, "group sizes")
    if right.ndim != 1 or right.shape != size.shape:
        raise ValueError(
            f"Give one correct count and one size per group; got shapes {right.shape} and {size.shape}."
        )
    if (right > size).any():
        raise ValueError(
            f"Group {int(np.argmax(right > size))} has more correct images than images."
        )
    present = np.flatnonzero(size)
    if not len(present):
        raise ValueError("No group has any images; there is no worst group.")
    alpha = 1.0 - level
    low, high = clopper_pearson(
        right[present], size[present], alpha / 2.0, alpha / (2.0 * len(present))
    )
    absent = np.flatnonzero(size == 0)
    notes = [f"left out: group {listed(list(absent))} without test images"] if len(absent) else []
    if len(present) == 1:
        notes.append("one group only")
    worst = float((right[present] / size[present]).min())
    return Estimate(worst, None, float(low.min()), float(high.min()), _KIND, "; ".join(notes))


def worst_group_over_trials(correct: ArrayLike, total: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean over trials of their worst groups' accuracy, with the uncertainty of trials and of test images.

    A t interval of the minima alone forgets that the test set is finite: near ties every trial's minimum lies below the
    truth, and more trials on the same images make the interval narrower around the wrong value.

    Args:
        correct, total: [S, G] rightly classified and all images of each group in S ≥ 2 trials.
        level: of the interval.
    Returns:
        The mean of the minima, their sd, and the interval whose distances to either side are the root of the summed
        squares of two: to the mean of the trials' envelopes (``worst_group_interval``; trials that share their images
        err alike, so that averaging buys nothing), and Student's t · sd / √S.
    Raises:
        ValueError: as in ``worst_group_interval``; fewer than two trials.
    Source: a quantile for each component, as in Howe (1974).
    """
    right, size = checked_counts(correct, "correct counts"), checked_counts(total, "group sizes")
    if right.ndim != 2 or right.shape != size.shape or len(right) < 2:
        raise ValueError(
            f"Give counts [trials, groups] of two trials or more; got {right.shape} and {size.shape}."
        )
    single = [worst_group_interval(r, n, level) for r, n in zip(right, size, strict=True)]
    value, low, high = (
        statistics.fmean(float(bound) for e in single if (bound := getattr(e, name)) is not None)
        for name in ("value", "low", "high")
    )
    sd = statistics.stdev(float(e.value) for e in single if e.value is not None)
    trials = float(stdtrit(len(single) - 1, 0.5 + level / 2.0)) * sd / math.sqrt(len(single))
    low, high = (
        max(value - math.hypot(value - low, trials), 0.0),
        min(value + math.hypot(high - value, trials), 1.0),
    )
    return Estimate(value, sd, low, high, _TRIALS_KIND, single[0].note)


def worst_group_variance(correct: ArrayLike, total: ArrayLike) -> float:
    """The binomial variance of the worst group's accuracy, p(1 − p)/n with p = (correct + 2)/(n + 4).

    Args:
        correct, total: [G]; groups without images do not count.
    Source: pseudo-counts of Agresti & Coull (1998), so that a group of which all are right is not certain.
    """
    right, size = checked_counts(correct, "correct counts"), checked_counts(total, "group sizes")
    accuracy = np.where(size > 0, right / np.maximum(size, 1), np.inf)
    worst = int(np.argmin(accuracy))
    p = (right[worst] + 2.0) / (size[worst] + 4.0)
    return float(p * (1.0 - p) / max(int(size[worst]), 1))
