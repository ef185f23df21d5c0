"""Scores of data whose images may have several labels: means over the labels, which share their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmark.report.statistics.delta_method import gradients
from benchmark.report.statistics.estimate import Estimate, Floats, listed, normal_estimate
from benchmark.report.statistics.metrics import overall

KIND = "normal over images, labels together"
MACRO = ("balanced_accuracy", "macro_precision", "macro_specificity", "macro_f1")


def macro_scores(
    label: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    cluster: np.ndarray | None = None,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Balanced accuracy and macro scores of K yes-or-no questions that are asked of the same images.

    Args:
        label, predicted: bool[N,K].
        cluster: int64[N], images that belong together, or None.
        level: of the intervals.
    Returns:
        name → plug-in mean over the labels that some images have and some have not, with the sampling sd: every image
        moves the scores of all its labels at once, so what it adds is summed over labels before it is squared. For one
        label this is ``sampling_sd``, with the same added images.
    Source: delta method for counts (Agresti, Categorical Data Analysis, 14.1), one row per image.
    """
    table = _tables(label, predicted)
    values = overall(table[:, None])
    complete = np.flatnonzero((table.sum(2) > 0).all(1))
    if not len(complete):
        return {
            name: Estimate(None, None, None, None, "none", "every label is all yes or all no")
            for name in MACRO
        }
    left = np.flatnonzero((table.sum(2) == 0).any(1))
    note = (
        f"left out: label {listed(list(left))}, which all images have or none" if len(left) else ""
    )
    spread = _spread(table, complete, label, predicted, cluster)
    found = {}
    for i, name in enumerate(MACRO):
        value = values[name]
        if value is None:
            never = [int(k) for k in complete if not table[k, :, 1].any()]
            found[name] = Estimate(
                None, None, None, None, "none", f"label {listed(never)} is never predicted"
            )
        else:
            found[name] = normal_estimate(value, float(spread[i]), KIND, level, (0.0, 1.0), note)
    return found


def _tables(label: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts [label, is it there, was it predicted]."""
    cell = (np.arange(label.shape[1]) * 2 + label) * 2 + predicted
    return np.bincount(cell.ravel(), minlength=4 * label.shape[1]).reshape(-1, 2, 2)


def _spread(
    table: NDArray[np.int64],
    complete: Sequence[int] | NDArray[np.int64],
    label: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    cluster: np.ndarray | None,
) -> Floats:
    """The sampling sds of MACRO."""
    share = np.zeros((len(MACRO), len(label)))
    added = np.zeros(len(MACRO))
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in complete:
            size = table[k].sum(1)
            weight = (size / (size + 2.0))[
                :, None
            ]  # two images are added to each row: see sampling_sd
            cell = (table[k] + 1.0) * weight
            right, present, said = cell[1, 1], cell[1].sum(), cell[:, 1].sum()
            recall, precision, specificity, f1 = gradients(1, right, present, said, cell.sum(), 2)
            slopes = np.stack([(recall + specificity) / 2.0, precision, specificity, f1]) / len(
                complete
            )
            share += (slopes * np.sqrt(weight))[
                :, label[:, k].astype(int), predicted[:, k].astype(int)
            ]
            added += (weight * slopes**2).sum((1, 2))
    if cluster is not None:
        which = np.unique(cluster, return_inverse=True)[1]
        share = np.stack([np.bincount(which, row) for row in share])
    return np.asarray(np.sqrt((share**2).sum(1) + added))
