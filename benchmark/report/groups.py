"""Worst-group accuracy with bounds that hold near ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from benchmark.report.estimate import Estimate, Floats, Ints, checked_counts, listed, normal_quantile

_KIND = "Clopper–Pearson envelope"


def clopper_pearson(correct: Ints, total: Ints, lower_tail: float, upper_tail: float) -> tuple[Floats, Floats]:
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
        raise ValueError(f"Give one correct count and one size per group; got shapes {right.shape} and {size.shape}.")
    if (right > size).any():
        raise ValueError(f"Group {int(np.argmax(right > size))} has more correct images than images.")
    present = np.flatnonzero(size)
    if not len(present):
        raise ValueError("No group has any images; there is no worst group.")
    alpha = 1.0 - level
    low, high = clopper_pearson(right[present], size[present], alpha / 2.0, alpha / (2.0 * len(present)))
    absent = np.flatnonzero(size == 0)
    notes = [f"left out: group {listed(list(absent))} without test images"] if len(absent) else []
    if len(present) == 1:
        notes.append("one group only")
    worst = float((right[present] / size[present]).min())
    return Estimate(worst, None, float(low.min()), float(high.min()), _KIND, "; ".join(notes))
