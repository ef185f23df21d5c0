"""Plug-in scores of confusion counts: per class, and overall.

Counts have the shapes of ``benchmark.core.counts``. Where an image may have several labels, the
scores are those of the answer yes to each label, and overall scores are means over the labels that
some images have and some do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.core.counts import accuracy, confusion_matrix, is_multi_label
from benchmark.report.statistics.estimate import Floats, Ints, finite_or_none

PER_CLASS = ("recall", "precision", "specificity", "f1")
OVERALL = ("accuracy", "balanced_accuracy", "macro_precision", "macro_specificity", "macro_f1")


def plug_in(table: Ints) -> dict[str, Floats]:
    """Return every score of a confusion matrix.

    Macro scores are means over the classes that have images. A class with images that is never
    predicted has F1 0 and no precision, and then there is no macro precision either: leaving such
    a class out would reward a classifier that never predicts it.

    Args:
        table: [M, M] counts, true class × predicted class.

    Returns:
        name → [M] for a score of ``PER_CLASS``, [1] for one of ``OVERALL``; NaN where undefined.
    """
    total = table.sum()
    size = table.sum(1)
    predicted = table.sum(0)
    correct = np.diag(table)
    present = size > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = correct / size
        # If all images belong to one class, its precision is 1 for every classifier.
        precision = np.where(present & (size < total), correct / predicted, np.nan)
        specificity = 1.0 - (predicted - correct) / (total - size)
        f1 = np.where(present, 2.0 * correct / (size + predicted), np.nan)
    return {
        "recall": recall,
        "precision": precision,
        "specificity": specificity,
        "f1": f1,
        "accuracy": np.array([correct.sum() / total]),
        "balanced_accuracy": recall[present].mean(keepdims=True),
        "macro_precision": precision[present].mean(keepdims=True),
        "macro_specificity": specificity[present].mean(keepdims=True),
        "macro_f1": f1[present].mean(keepdims=True),
    }


def per_class(counts: np.ndarray) -> dict[str, list[float | None]]:
    """Return the scores of ``PER_CLASS`` for each class, one against the rest.

    A score is None where it is undefined: recall, precision and F1 of a class without images,
    precision of a class that is never predicted, specificity of a class that has all images.
    """
    if is_multi_label(counts):
        of_labels = [per_class(table) for table in counts]
        return {name: [scores[name][1] for scores in of_labels] for name in PER_CLASS}
    scores = plug_in(confusion_matrix(counts))
    return {name: [finite_or_none(value) for value in scores[name]] for name in PER_CLASS}


def overall(counts: np.ndarray) -> dict[str, float | None]:
    """Return the scores of ``OVERALL``, None where undefined; an empty dictionary without images.

    With several labels per image it is also empty if every label is the same for all images.
    """
    if is_multi_label(counts):
        return _overall_of_labels(counts)
    table = confusion_matrix(counts)
    if not table.any():
        return {}
    scores = plug_in(table)
    return {name: finite_or_none(scores[name][0]) for name in OVERALL}


def _overall_of_labels(counts: np.ndarray) -> dict[str, float | None]:
    varying = counts[(counts.sum(axis=(1, 3)) > 0).all(axis=1)]
    if not len(varying):
        return {}
    scores = per_class(varying)
    macro = {f"macro_{name}": _mean(scores[name]) for name in PER_CLASS if name != "recall"}
    balanced = [overall(table)["balanced_accuracy"] for table in varying]
    return {
        "accuracy": finite_or_none(accuracy(counts)),
        "balanced_accuracy": _mean(balanced),
        **macro,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is None: see ``plug_in`` about macro precision."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
