"""Thresholds of scores, chosen on validation data."""

from __future__ import annotations

import numpy as np


def youden_threshold(label: np.ndarray, score: np.ndarray) -> float | None:
    """Return the threshold that maximises sensitivity + specificity − 1.

    Source: Youden (1950). The label is predicted for scores above the threshold. It lies halfway
    between the two neighbouring scores. Of equally good thresholds, the one nearest to the middle
    of them is taken; of two equally near ones, the lower.

    Args:
        label: [n] of 0 and 1; images with a negative label, which is not known, do not count.
        score: float[n], finite, higher if the label is more likely.

    Returns:
        The threshold; None if all labels are equal or all scores are.
    """
    known = np.asarray(label) >= 0
    positive = np.asarray(label)[known] > 0
    values = np.asarray(score, np.float64)[known]
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    cuts = np.flatnonzero(ascending[1:] > ascending[:-1])
    if not len(cuts):
        return None
    below = np.cumsum(positive[order])[cuts]  # positives that a cut misses
    # integers, so that equally good cuts are equal
    quality = (cuts + 1 - below) * positives - below * negatives
    thresholds = (ascending[cuts] + ascending[cuts + 1]) / 2
    best = thresholds[quality == quality.max()]
    middle = (best[0] + best[-1]) / 2
    return float(best[np.abs(best - middle).argmin()])


def youden_thresholds(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the threshold of each label, float64[K]; 0 where none is defined.

    Args:
        label: int64[N,K] of 0 and 1, or negative where a label is not known.
        score: logits float[N,K].
    """
    found = [youden_threshold(label[:, k], score[:, k]) for k in range(label.shape[1])]
    return np.array([0.0 if threshold is None else threshold for threshold in found])
