"""Sampling standard deviations of a confusion matrix's scores by the delta method."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmark.report.statistics.estimate import Floats, Ints


def sampling_sd(table: Ints) -> dict[str, Floats]:
    """Return the sd of every plug-in score over repeated test sets of this size.

    Intervals are made from this sd and not from the posterior's. The posterior's flat prior counts
    as M more images per class, nearly all of them wrong. With few images per class the posterior is
    therefore narrower than the scatter of the plug-in value, and near perfect scores it is wider
    (docs/coverage.md has the figures).

    The sd is sqrt(Σ_jk n_j p_jk G_jk²) with the score's gradient G by cell and
    p_jk = (C_jk + s_jk)/(n_j + 2). Two images are added per class, one correct and one wrong
    (s_jj = 1, else s_jk = 1/(M − 1)), so that a score of 0 or 1 does not look certain. Scores do
    not change when all counts are scaled, so the mean of G is 0 and nothing is subtracted.

    Args:
        table: [M, M] counts, M ≥ 2, at least one image.

    Returns:
        name → [M] for a score per class, [1] for an overall one, as in ``plug_in``; NaN where the
        score is undefined.

    Source: Delta method for multinomial counts (Agresti, Categorical Data Analysis, 14.1);
    pseudo-counts as in Agresti & Coull (1998).
    """
    smoothed = _smooth(table)
    return {
        name: np.sqrt((smoothed.cell * gradient**2).sum((-2, -1)))
        for name, gradient in smoothed.gradients.items()
    }


@dataclass(frozen=True)
class Contributions:
    """The contribution of each image to the error of a score.

    Attributes:
        values: [n]; their squares sum to the sampling variance without ``added``.
        added: Variance from the images that are added to the counts.
    """

    values: Floats
    added: float = 0.0


def score_contributions(
    table: Ints, label: Ints, predicted: Ints
) -> dict[str, tuple[Contributions, ...]]:
    """Return the contributions of the images to every score.

    Args:
        table: [M, M] counts of the images.
        label: [n] class of each image.
        predicted: [n] predicted class.

    Returns:
        name → M contributions for a score per class, one for an overall score.
    """
    smoothed = _smooth(table)
    root = np.sqrt(smoothed.weight)
    found = {}
    for name, gradient in smoothed.gradients.items():
        values = (root[:, None] * gradient)[:, label, predicted]
        added = (smoothed.added * smoothed.weight[:, None] * gradient**2).sum((1, 2))
        found[name] = tuple(
            Contributions(one, float(extra)) for one, extra in zip(values, added, strict=True)
        )
    return found


@dataclass(frozen=True)
class _Smoothed:
    """Counts with the added images, and the gradients of all scores at these counts.

    Attributes:
        added: [M, M] added images.
        weight: [M] factor of a class that keeps its number of images.
        gradients: name → [M, M, M] for a score per class, [1, M, M] for an overall one.
        cell: [M, M] counts with the added images.
    """

    added: Floats
    weight: Floats
    gradients: dict[str, Floats]
    cell: Floats


def _smooth(table: Ints) -> _Smoothed:
    classes = len(table)
    images = table.sum(1).astype(np.float64)
    added = np.where(np.eye(classes, dtype=bool), 1.0, 1.0 / (classes - 1))
    weight = images / (images + 2.0)
    cell = (table + added) * weight[:, None]
    total = float(cell.sum())
    size = cell.sum(1)
    predicted = cell.sum(0)
    correct = np.diag(cell)
    present = np.flatnonzero(images)
    names = ("recall", "precision", "specificity", "f1")
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = [
            gradients(j, float(correct[j]), float(size[j]), float(predicted[j]), total, classes)
            for j in range(classes)
        ]
        per_class = {name: np.stack([slope[i] for slope in slopes]) for i, name in enumerate(names)}
    macro = {name: per_class[name][present].sum(0) / len(present) for name in names}
    overall = {
        "accuracy": (np.eye(classes) - correct.sum() / total) / total,
        "balanced_accuracy": macro["recall"],
        "macro_precision": macro["precision"],
        "macro_specificity": macro["specificity"],
        "macro_f1": macro["f1"],
    }
    found = per_class | {name: gradient[None] for name, gradient in overall.items()}
    return _Smoothed(added, weight, found, cell)


def accuracy_sampling_sd(table: Ints) -> float:
    """Return the sd of the accuracy in ``sampling_sd``: √(p (1 − p)/N) with the added images."""
    size = table.sum(1)
    weight = size / (size + 2.0)
    total = float(size.sum())
    share = float((weight * (np.diag(table) + 1.0)).sum()) / total
    return math.sqrt(share * (1.0 - share) / total)


def gradients(
    j: int, correct: float, size: float, predicted: float, total: float, classes: int
) -> tuple[Floats, ...]:
    """Return the derivatives of the scores of class j with respect to each cell.

    Args:
        j: The class.
        correct: Its images that are predicted correctly.
        size: Its images.
        predicted: Images that are predicted to be of the class.
        total: All images.
        classes: Number of classes M.

    Returns:
        The gradients [M, M] of recall, precision, specificity and F1; NaN where undefined.
    """
    in_row = np.zeros((classes, classes))
    in_column = np.zeros((classes, classes))
    in_row[j] = 1.0
    in_column[:, j] = 1.0
    both = in_row * in_column
    true_positive_rate = np.divide(correct, size)
    positive_predictive_value = np.divide(correct, predicted)
    false_positive_rate = np.divide(predicted - correct, total - size)
    recall = (both - true_positive_rate * in_row) / size
    precision = (both - positive_predictive_value * in_column) / predicted
    specificity = (1.0 - in_row) * (false_positive_rate - in_column) / np.float64(total - size)
    f1 = 2.0 * both - 2.0 * correct / (size + predicted) * (in_row + in_column)
    return recall, precision, specificity, f1 / (size + predicted)
