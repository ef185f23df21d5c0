"""Every table metric, from confusion counts [confounder, label, predicted]. What is undefined is None, never NaN.

Where an image may have several labels, counts are [label, confounder, is it there, was it predicted]: a table of yes
and no for every label. Accuracy is then that of all answers, and a group is (label, is it there, confounder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import Ints, correct_and_total, group_counts
from benchmark.report.statistics.posterior import OVERALL, PER_CLASS, plug_in


def multi_label(counts: np.ndarray) -> bool:
    """Whether these are counts of data whose images may have several labels."""
    return counts.ndim == 4


def confusion(counts: np.ndarray) -> Ints:
    """Counts [label, predicted], summed over confounders; with several labels [label, is it there, predicted]."""
    return counts.sum(axis=-3, dtype=np.int64)


def images_of(counts: np.ndarray) -> int:
    """How many images were counted: with several labels every image is in the table of each."""
    total = int(counts.sum(dtype=np.int64))
    return total // len(counts) if multi_label(counts) and len(counts) else total


def average_accuracy(counts: np.ndarray) -> float | None:
    """Share of all answers of a split that are right; None without images."""
    right, total = correct_and_total(counts)
    return right / total if total else None


def balanced_accuracy(counts: np.ndarray) -> float | None:
    """Mean over the classes that have images of their recall; with several labels the mean of each label's own."""
    if multi_label(counts):
        return _mean([balanced_accuracy(table) for table in counts[_complete(counts)]])
    table = confusion(counts)
    size = table.sum(axis=1)
    present = size > 0
    return float((np.diag(table)[present] / size[present]).mean()) if present.any() else None


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
    return WorstGroup(
        int(present[at]), float(accuracy[at]), len(present), len(total) - len(present)
    )


def group_accuracy(counts: np.ndarray) -> list[float | None]:
    """Accuracy per group; None for a group without images."""
    right, total = group_counts(counts)
    return [int(r) / int(t) if t else None for r, t in zip(right, total, strict=True)]


def per_class(counts: np.ndarray) -> dict[str, list[float | None]]:
    """``recall`` (sensitivity), ``precision``, ``specificity`` and ``f1`` of each class, one against the rest.

    None where a score is undefined: recall, precision and F1 of a class without images, precision of a class that is
    never predicted, specificity of a class that has all images. With several labels: of the answer yes to each.
    """
    if multi_label(counts):
        found = [per_class(table) for table in counts]
        return {name: [scores[name][1] for scores in found] for name in PER_CLASS}
    scores = plug_in(confusion(counts))
    return {name: [_number(value) for value in scores[name]] for name in PER_CLASS}


def overall(counts: np.ndarray) -> dict[str, float | None]:
    """``accuracy``, ``balanced_accuracy`` and the macro means over classes that have images; {} without images.

    With several labels: means over the labels that some images have and some have not.
    """
    if multi_label(counts):
        return _overall_of_labels(counts)
    table = confusion(counts)
    if not table.any():
        return {}
    scores = plug_in(table)
    return {name: _number(scores[name][0]) for name in OVERALL}


def signed_gap(counts: Mapping[str, np.ndarray], bias_splits: tuple[str, str]) -> float | None:
    """Accuracy on the biased split minus accuracy on the deceiving one; its sign is kept."""
    biased, deceiving = (
        average_accuracy(counts[split]) if split in counts else None for split in bias_splits
    )
    return None if biased is None or deceiving is None else biased - deceiving


def _overall_of_labels(counts: np.ndarray) -> dict[str, float | None]:
    complete = _complete(counts)
    if not complete.any():
        return {}
    scores = per_class(counts[complete])
    means = {f"macro_{name}": _mean(scores[name]) for name in PER_CLASS if name != "recall"}
    return {
        "accuracy": average_accuracy(counts),
        "balanced_accuracy": balanced_accuracy(counts),
        **means,
    }


def _complete(counts: np.ndarray) -> np.ndarray:
    """Labels that some images have and some have not, bool[K]."""
    return np.asarray((counts.sum(axis=(1, 3)) > 0).all(axis=1))


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one is not defined: leaving out a label that is never predicted would reward who never says yes."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
