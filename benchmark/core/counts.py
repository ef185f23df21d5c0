"""From confusion counts to accuracies, the same for selection and for tables.

Counts are ``int[confounder, label, predicted]``, with one confounder where confounders are unknown. Where an image may
have several labels they are ``int[label, confounder, present, predicted]``: a table of yes and no for every label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def correct_and_total(counts: np.ndarray) -> tuple[int, int]:
    """Right answers and all answers of a split; one per image, or one per image and label."""
    return int(np.einsum("...ll->...l", counts, dtype=np.int64).sum()), int(
        counts.sum(dtype=np.int64)
    )


def group_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
    """Images predicted right and all images per group, int64[G], in the order of the data set's group names.

    A group is ``label * confounders + confounder``; with several labels per image it is
    ``(label * 2 + present) * confounders + confounder``.
    """
    right = np.einsum("...zll->...lz", counts, dtype=np.int64)
    total = counts.sum(axis=-1, dtype=np.int64).swapaxes(-1, -2)
    return right.ravel(), total.ravel()


def class_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
    """Images predicted right and all images per class, int64[K], whatever their confounder.

    With several labels per image a class is ``label * 2 + present``: the images that have a label, and those that do
    not.
    """
    return group_counts(counts.sum(axis=-3, keepdims=True, dtype=np.int64))


def accuracy(counts: np.ndarray) -> float:
    """Share of all answers that are right; NaN without images."""
    right, total = correct_and_total(counts)
    return right / total if total else float("nan")


def worst_group_accuracy(counts: np.ndarray) -> float:
    """Smallest accuracy of a group that has images; NaN without images."""
    return _lowest(*group_counts(counts))


def worst_class_accuracy(counts: np.ndarray) -> float:
    """Smallest accuracy (recall) of a class that has images; NaN without images."""
    return _lowest(*class_counts(counts))


def _lowest(right: Ints, total: Ints) -> float:
    present = total > 0
    return float((right[present] / total[present]).min()) if present.any() else float("nan")
