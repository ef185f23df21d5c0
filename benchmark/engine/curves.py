"""Measurements of a model at the evaluations during training: AUC and distance of heatmaps."""

from __future__ import annotations

import sys

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.compilation import eagerly
from benchmark.core.errors import UserError
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.evaluate import images_per_pass
from benchmark.engine.explanations import (
    MAX_BATCH,
    MAX_PIXELS,
    evenly_spaced_rows,
    explain_batch,
)

#: Largest number of images of a split whose heatmaps are compared at an evaluation.
MAX_IMAGES = 64


def measure_curve(
    name: str, algorithm: Algorithm, split: DeviceSplit, score: np.ndarray
) -> float | None:
    """Return a measurement of ``benchmark.core.spec.CURVES``, or None if it has no value.

    Args:
        name: name of the measurement.
        algorithm: the method.
        split: the images.
        score: logits float[N,K] of the images.
    """
    if name == "auc":
        return mean_auc(split.arrays.label, score)
    return heatmap_distance(algorithm, split, score.argmax(1))


def mean_auc(label: np.ndarray, score: np.ndarray) -> float | None:
    """Return the area under the ROC curve of each class against the rest, averaged over classes.

    It is the mean AUC of the report's tables. Ties count one half. Classes without an image, and
    classes of all images, are left out.

    Args:
        label: int64[N], or float[N,K] for data with several labels.
        score: logits float[N,K].

    Returns:
        A number from 0 to 1, or None if no class has an AUC.
    """
    if label.ndim == 1:
        label = label[:, None] == np.arange(score.shape[1])
    areas = []
    for positive, values in zip((label > 0).T, score.T, strict=True):
        count = int(positive.sum())
        others = len(positive) - count
        if count and others:
            _, place, ties = np.unique(values, return_inverse=True, return_counts=True)
            rank = (np.cumsum(ties) - (ties - 1) / 2)[place.reshape(-1)]
            areas.append((rank[positive].sum() - count * (count + 1) / 2) / (count * others))
    return float(np.mean(areas)) if areas else None


def heatmap_distance(
    algorithm: Algorithm, split: DeviceSplit, predicted: np.ndarray
) -> float | None:
    """Return the mean distance of the heatmaps of a student from those of its teacher.

    Up to MAX_IMAGES images are explained in evaluation mode, each for the class that the student
    predicts. The explainer is that of the final explanations.

    Args:
        algorithm: the student.
        split: the images.
        predicted: int64[N], the predicted classes.

    Returns:
        The distance, or None if the method has none or the heatmaps cannot be computed.
    """
    rows = evenly_spaced_rows(split.size, MAX_IMAGES)
    per_pass = images_per_pass(split, algorithm, MAX_BATCH, MAX_PIXELS)
    found: list[torch.Tensor] = []
    training = algorithm.training
    algorithm.eval()
    try:
        with eagerly():
            for start in range(0, len(rows), per_pass):
                part = rows[start : start + per_pass]
                target = torch.from_numpy(predicted[part]).to(split.device)
                place = f"{split.name} {start}"
                distance = explain_batch(algorithm, split.batch(part), target, place)[2]
                if distance is None:
                    return None
                found.append(distance.detach().double().cpu())
    except (UserError, RuntimeError) as error:  # such as a kernel that is not deterministic
        print(f"no distance of heatmaps: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return None
    finally:
        algorithm.train(training)
    mean = float(torch.cat(found).mean())
    return mean if np.isfinite(mean) else None
