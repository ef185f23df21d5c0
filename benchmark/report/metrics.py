"""Every table metric, from confusion counts [confounder, label, predicted]. What is undefined is None, never NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.report.posterior import OVERALL, PER_CLASS, plug_in

Ints = NDArray[np.int64]


def confusion(counts: np.ndarray) -> Ints:
    """Counts [label, predicted], summed over confounders."""
    return counts.sum(axis=0, dtype=np.int64)


def correct_and_total(counts: np.ndarray) -> tuple[int, int]:
    """Images predicted right, and all images, of a split."""
    return int(np.einsum("zll->", counts, dtype=np.int64)), int(counts.sum(dtype=np.int64))


def average_accuracy(counts: np.ndarray) -> float | None:
    """Share of all images of a split that are predicted right; None without images."""
    right, total = correct_and_total(counts)
    return right / total if total else None


def balanced_accuracy(counts: np.ndarray) -> float | None:
    """Mean over the classes that have images of their recall."""
    table = confusion(counts)
    size = table.sum(axis=1)
    present = size > 0
    return float((np.diag(table)[present] / size[present]).mean()) if present.any() else None


def group_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
    """Images predicted right and all images per group, int64[G]; group = label * confounders + confounder."""
    right = np.einsum("zll->lz", counts, dtype=np.int64)
    total = counts.sum(axis=2, dtype=np.int64).T
    return right.ravel(), total.ravel()


@dataclass(frozen=True)
class WorstGroup:
    """The non-empty group with the lowest accuracy: its number, its accuracy, and how many groups have images."""

    group: int
    accuracy: float
    groups: int
    empty: int


def worst_group(counts: np.ndarray) -> WorstGroup | None:
    """The lowest accuracy over groups that have images (ties: the first); None without images."""
    right, total = group_counts(counts)
    present = np.flatnonzero(total)
    if not len(present):
        return None
    accuracy = right[present] / total[present]
    at = int(np.argmin(accuracy))
    return WorstGroup(int(present[at]), float(accuracy[at]), len(present), len(total) - len(present))


def group_accuracy(counts: np.ndarray) -> list[float | None]:
    """Accuracy per group; None for a group without images."""
    right, total = group_counts(counts)
    return [int(r) / int(t) if t else None for r, t in zip(right, total, strict=True)]


def per_class(counts: np.ndarray) -> dict[str, list[float | None]]:
    """``recall`` (sensitivity), ``precision``, ``specificity`` and ``f1`` of each class, one against the rest.

    None where a score is undefined: recall, precision and F1 of a class without images, precision of a class that is
    never predicted, specificity of a class that has all images.
    """
    scores = plug_in(confusion(counts))
    return {name: [_number(value) for value in scores[name]] for name in PER_CLASS}


def overall(counts: np.ndarray) -> dict[str, float | None]:
    """``accuracy``, ``balanced_accuracy`` and the macro means over classes that have images; {} without images."""
    table = confusion(counts)
    if not table.any():
        return {}
    scores = plug_in(table)
    return {name: _number(scores[name][0]) for name in OVERALL}


def signed_gap(counts: Mapping[str, np.ndarray], bias_splits: tuple[str, str]) -> float | None:
    """Accuracy on the biased split minus accuracy on the deceiving one; its sign is kept."""
    biased, deceiving = (average_accuracy(counts[split]) if split in counts else None for split in bias_splits)
    return None if biased is None or deceiving is None else biased - deceiving


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
