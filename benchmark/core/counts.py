"""Accuracies from confusion counts, for model selection and for tables.

Counts are ``int[confounder, label, predicted]``, with one confounder if confounders are unknown.
Multi-label counts are ``int[label, confounder, present, predicted]``: a binary table for every
label. Accuracies are fractions, and NaN if there are no images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def is_multi_label(counts: np.ndarray) -> bool:
    """Return True for counts of multi-label data."""
    return counts.ndim == 4


def confusion_matrix(counts: np.ndarray) -> Ints:
    """Return the counts summed over confounders, int64[label, predicted].

    With several labels per image the shape is [label, present, predicted].
    """
    return counts.sum(axis=-3, dtype=np.int64)


def num_images(counts: np.ndarray) -> int:
    """Return the number of images that were counted.

    With several labels per image, every image is in the table of each label.
    """
    total = int(counts.sum(dtype=np.int64))
    return total // len(counts) if is_multi_label(counts) and len(counts) else total


def correct_and_total(counts: np.ndarray) -> tuple[int, int]:
    """Return the number of correct predictions and the number of all predictions.

    There is one prediction per image, or one per image and label.
    """
    correct = np.einsum("...ll->...l", counts, dtype=np.int64).sum()
    return int(correct), int(counts.sum(dtype=np.int64))


def group_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
    """Return the correctly predicted images and all images of each group, int64[G].

    Groups are in the order of the data set's group names: ``label * confounders + confounder``,
    or ``(label * 2 + present) * confounders + confounder`` with several labels per image.
    """
    correct = np.einsum("...zll->...lz", counts, dtype=np.int64)
    total = counts.sum(axis=-1, dtype=np.int64).swapaxes(-1, -2)
    return correct.ravel(), total.ravel()


def class_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
    """Return the correctly predicted images and all images of each class, int64[K].

    The confounder is ignored. With several labels per image a class is ``label * 2 + present``:
    the images that have a label, and those that do not.
    """
    return group_counts(counts.sum(axis=-3, keepdims=True, dtype=np.int64))


def accuracy(counts: np.ndarray) -> float:
    """Return the fraction of correct predictions."""
    correct, total = correct_and_total(counts)
    return correct / total if total else float("nan")


def group_accuracy(counts: np.ndarray) -> Floats:
    """Return the accuracy of each group, float64[G]; NaN for a group without images."""
    return _shares(*group_counts(counts))


def worst_group(counts: np.ndarray) -> int | None:
    """Return the index of the group with the lowest accuracy; of equal groups, the first.

    Groups without images are left out. The result is None if no group has images.
    """
    accuracies = group_accuracy(counts)
    return None if np.isnan(accuracies).all() else int(np.nanargmin(accuracies))


def worst_group_accuracy(counts: np.ndarray) -> float:
    """Return the lowest accuracy of a group that has images."""
    return _lowest(*group_counts(counts))


def worst_class_accuracy(counts: np.ndarray) -> float:
    """Return the lowest accuracy (recall) of a class that has images."""
    return _lowest(*class_counts(counts))


def _shares(correct: Ints, total: Ints) -> Floats:
    return np.where(total > 0, correct / np.maximum(total, 1), np.nan)


def _lowest(correct: Ints, total: Ints) -> float:
    shares = _shares(correct, total)
    return float("nan") if np.isnan(shares).all() else float(np.nanmin(shares))
