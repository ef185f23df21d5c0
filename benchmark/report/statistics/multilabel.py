"""Scores of images that may have several labels: means over the labels, which share the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmark.report.statistics.delta_method import gradients
from benchmark.report.statistics.estimate import (
    Estimate,
    Floats,
    listed,
    normal_estimate,
    without_interval,
)
from benchmark.report.statistics.plug_in import overall

KIND = "normal over images, labels together"
MACRO = ("balanced_accuracy", "macro_precision", "macro_specificity", "macro_f1")


def macro_scores(
    label: NDArray[np.bool_], predicted: NDArray[np.bool_], cluster: np.ndarray | None = None
) -> dict[str, Estimate]:
    """Return balanced accuracy and macro scores of K labels of the same images.

    Every image affects the scores of all its labels at once, so its influence is summed over
    labels before it is squared. For one label the sd is that of ``sampling_sd``, with the same
    added images.

    Args:
        label: bool[N, K].
        predicted: bool[N, K].
        cluster: int64[N], number of the patient (or other group of dependent images), or None.

    Returns:
        Name in ``MACRO`` → plug-in mean over the labels that some images have and some do not,
        with the sampling sd.

    Source: Delta method for counts (Agresti, Categorical Data Analysis, 14.1), one row per image.
    """
    table = _tables(label, predicted)
    values = overall(table[:, None])
    varying = (table.sum(2) > 0).all(1)
    complete = np.flatnonzero(varying)
    if not len(complete):
        return {name: without_interval(None, "every label is all yes or all no") for name in MACRO}
    left_out = list(np.flatnonzero(~varying))
    note = f"left out: label {listed(left_out)}, which all images have or none" if left_out else ""
    sds = _sampling_sds(table, complete, label, predicted, cluster)
    never = [int(k) for k in complete if not table[k, :, 1].any()]
    scores = {}
    for name, sd in zip(MACRO, sds, strict=True):
        value = values[name]
        scores[name] = (
            without_interval(None, f"label {listed(never)} is never predicted")
            if value is None
            else normal_estimate(value, float(sd), KIND, (0.0, 1.0), note)
        )
    return scores


def _tables(label: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the counts [label, present, predicted]."""
    cell = (np.arange(label.shape[1]) * 2 + label) * 2 + predicted
    return np.bincount(cell.ravel(), minlength=4 * label.shape[1]).reshape(-1, 2, 2)


def _sampling_sds(
    table: NDArray[np.int64],
    complete: Sequence[int] | NDArray[np.int64],
    label: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    cluster: np.ndarray | None,
) -> Floats:
    """Return the sampling sds of the scores in ``MACRO``."""
    influence = np.zeros((len(MACRO), len(label)))
    added = np.zeros(len(MACRO))
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in complete:
            size = table[k].sum(1)
            # As in `sampling_sd`, two images are added to each row.
            weight = (size / (size + 2.0))[:, None]
            cell = (table[k] + 1.0) * weight
            recall, precision, specificity, f1 = gradients(
                1, cell[1, 1], cell[1].sum(), cell[:, 1].sum(), cell.sum(), 2
            )
            slopes = np.stack([(recall + specificity) / 2.0, precision, specificity, f1])
            slopes /= len(complete)
            of_cell = slopes * np.sqrt(weight)
            influence += of_cell[:, label[:, k].astype(int), predicted[:, k].astype(int)]
            added += (weight * slopes**2).sum((1, 2))
    if cluster is not None:
        which = np.unique(cluster, return_inverse=True)[1]
        influence = np.stack([np.bincount(which, row) for row in influence])
    return np.asarray(np.sqrt((influence**2).sum(1) + added))
