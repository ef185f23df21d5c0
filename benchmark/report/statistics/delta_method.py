"""Sampling standard deviations of a confusion matrix's scores by the delta method, without a prior."""

from __future__ import annotations

import math

import numpy as np

from benchmark.report.statistics.estimate import Floats, Ints


def sampling_sd(table: Ints) -> dict[str, Floats]:
    """The sd of every plug-in score over repeated test sets of this size; NaN where the score is undefined.

    Intervals are made from this one. The posterior's flat prior counts as M more images per class, nearly all of them
    wrong: with few images per class the posterior is narrower than the plug-in value's own scatter, near perfect scores
    wider (docs/coverage.md has the figures).

    Args:
        table: [M, M] counts, M ≥ 2, at least one image.
    Returns:
        name → [M] for a per-class score, [1] for an overall one, as ``plug_in`` has them: sqrt(Σ_jk n_j p_jk G_jk²), G
        the score's gradient by cell and p_jk = (C_jk + s_jk)/(n_j + 2). The two added images per class, one right and
        one wrong (s_jj = 1, else s_jk = 1/(M − 1)), keep a score of 0 or 1 from looking certain. Scores do not change
        when all counts are scaled, so the mean of G is 0 and nothing is subtracted.
    Source: delta method for multinomial counts (Agresti, Categorical Data Analysis, 14.1); pseudo-counts as in Agresti
        & Coull (1998).
    """
    classes, images = len(table), table.sum(1).astype(np.float64)
    added = np.where(np.eye(classes, dtype=bool), 1.0, 1.0 / (classes - 1))
    cell = (table + added) * (images / (images + 2.0))[:, None]
    total, size, predicted, right = cell.sum(), cell.sum(1), cell.sum(0), np.diag(cell)
    present = np.flatnonzero(images)
    names = ("recall", "precision", "specificity", "f1")
    sds = {name: np.full(classes, np.nan) for name in names}
    macro = {name: np.zeros_like(cell) for name in names}
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(classes):
            slopes = gradients(
                j, float(right[j]), float(size[j]), float(predicted[j]), float(total), classes
            )
            for name, gradient in zip(names, slopes, strict=True):
                sds[name][j] = math.sqrt(float((cell * gradient**2).sum()))
                if images[j]:
                    macro[name] += gradient / len(present)
    overall = {
        "accuracy": (np.eye(classes) - right.sum() / total) / total,
        "balanced_accuracy": macro["recall"],
        "macro_precision": macro["precision"],
        "macro_specificity": macro["specificity"],
        "macro_f1": macro["f1"],
    }
    return sds | {
        name: np.sqrt((cell * gradient**2).sum(keepdims=True)[0])
        for name, gradient in overall.items()
    }


def gradients(
    j: int, right: float, size: float, predicted: float, total: float, classes: int
) -> tuple[Floats, ...]:
    """[M, M] each: how recall, precision, specificity and F1 of class j change with each cell; NaN where undefined."""
    in_row, in_column = np.zeros((2, classes, classes))
    in_row[j], in_column[:, j] = 1.0, 1.0
    both = in_row * in_column
    ratio = [
        np.divide(a, b)
        for a, b in ((right, size), (right, predicted), (predicted - right, total - size))
    ]
    recall = (both - ratio[0] * in_row) / size
    precision = (both - ratio[1] * in_column) / predicted
    specificity = (1.0 - in_row) * (ratio[2] - in_column) / np.float64(total - size)
    f1 = (2.0 * both - 2.0 * right / (size + predicted) * (in_row + in_column)) / (size + predicted)
    return recall, precision, specificity, f1
