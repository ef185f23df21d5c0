"""Evaluates a model on a split: confusion counts, and optionally scores and the objective."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.exceptions import NonFiniteError
from benchmark.models.base import pixels_inside

#: The largest number of images in a forward pass.
MAX_BATCH = 500
#: The largest number of pixels in a forward pass: more would need more memory than training does.
MAX_PIXELS = 500 * 128 * 128
#: The largest number of pixels for which an objective is computed at once, unless a training batch
#: has more: its graph needs several times the memory of a forward pass.
MAX_OBJECTIVE_PIXELS = 500 * 64 * 64
#: The logit of a class that is not compared. Its probability is 0, and it is finite, as all scores.
EXCLUDED = -1e9


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a model on a split.

    Args:
        counts: int64[confounders, labels, predictions]. For multi-label data int64[K, confounders,
            2, 2]: for every label a table of whether it is present and whether it is predicted.
        score: the logits float32[N,K], or None if they were not requested.
        objective: the mean of the method's objective, or None if it was not requested.
        images: the number of images.
        seconds: the time of all forward passes.
    """

    counts: np.ndarray
    score: np.ndarray | None = None
    objective: float | None = None
    images: int = 0
    seconds: float = 0.0


def evaluate(
    algorithm: Algorithm,
    split: DeviceSplit,
    num_classes: int,
    num_confounders: int,
    *,
    scores: bool = False,
    objective: bool = False,
    max_images: int = MAX_BATCH,
    max_pixels: int = MAX_PIXELS,
) -> Evaluation:
    """Evaluate a model on a split, in evaluation mode; the previous mode is restored.

    Args:
        algorithm: the trained method.
        split: the images; without confounder labels the counts have a single confounder row.
        num_classes: the number of labels, K.
        num_confounders: the number of confounder values.
        scores: True to keep the logits.
        objective: True to compute the mean of the method's own objective.
        max_images: the largest number of images in a forward pass.
        max_pixels: the largest number of pixels in a forward pass.

    Raises:
        NonFiniteError: a logit or the objective is NaN or infinite.
    """
    rows = num_confounders if split.confounder is not None else 1
    shape = (num_classes, rows, 2, 2) if split.label.ndim == 2 else (rows, num_classes, num_classes)
    total = torch.zeros(math.prod(shape), dtype=torch.int64, device=split.device)
    finite = torch.ones((), dtype=torch.bool, device=split.device)
    kept = []
    objectives = []
    seconds = 0.0
    training = algorithm.training
    algorithm.eval()
    try:
        per_pass = images_per_pass(split, algorithm, max_images, max_pixels)
        needs = algorithm.needs.on_validation()
        for batch in split.batches(per_pass, class_masks=objective and needs.class_masks):
            started = _clock(split.device)
            with torch.inference_mode(), algorithm.setting.autocast():
                logits = algorithm.predict(batch.image).float()
            seconds += _clock(split.device) - started
            finite &= logits.isfinite().all()
            logits = apply_class_sets(logits, batch, split)
            cells = count_cells(batch, logits, rows)
            if batch.label.ndim == 2:
                cells = cells[~batch.label.isnan()]  # known labels only
            total += torch.bincount(cells, minlength=len(total))
            if scores:
                kept.append(logits.cpu())
            if objective:
                at_once = images_per_objective(split, algorithm, per_pass)
                objectives += _objective_sums(algorithm, batch.strip(needs), at_once)
        if not bool(finite):
            raise NonFiniteError(algorithm.current_step, f"logits on split {split.name}")
        mean = float(sum(objectives)) / split.size if objective else None
        if mean is not None and not math.isfinite(mean):
            raise NonFiniteError(algorithm.current_step, f"objective on split {split.name}")
    finally:
        algorithm.train(training)
    return Evaluation(
        counts=total.view(shape).cpu().numpy(),
        score=torch.cat(kept).numpy() if scores else None,
        objective=mean,
        images=split.size,
        seconds=seconds,
    )


def _objective_sums(algorithm: Algorithm, batch: Batch, at_once: int) -> list[torch.Tensor]:
    """Return the objective of each part of a batch times its number of images, in float64."""
    sums = []
    for start in range(0, len(batch), at_once):
        part = batch.rows(slice(start, start + at_once)) if len(batch) > at_once else batch
        with algorithm.setting.autocast():
            value = algorithm.objective(part).detach()
        sums.append(value.double() * len(part))
    return sums


def _clock(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def apply_class_sets(logits: torch.Tensor, batch: Batch, split: DeviceSplit) -> torch.Tensor:
    """Apply the class sets of a split to logits, so that everything later sees a single label.

    Classes that are not scored are excluded: their logit becomes ``EXCLUDED``. Of the classes that
    count as correct for an image, the label gets the largest logit and the others are excluded.
    The best k predictions then contain the label exactly if they contained an accepted class.

    Args:
        logits: float[B,K].
        batch: the labels and the rows of the images.
        split: the split, with ``scored`` bool[K] and ``accepted`` bool[N,K], or None.

    Returns:
        float[B,K].
    """
    if split.scored is not None:
        logits = logits.masked_fill(~split.scored, EXCLUDED)
    if split.accepted is not None:
        accepted = split.accepted.index_select(0, batch.index)
        best = logits.masked_fill(~accepted, EXCLUDED).amax(1, keepdim=True)
        logits = logits.masked_fill(accepted, EXCLUDED).scatter(1, batch.label[:, None], best)
    return logits


def count_cells(batch: Batch, logits: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the cell of the flattened counts that each prediction belongs to.

    Args:
        batch: the labels and confounders.
        logits: float[B,K]; for multi-label data a logit above 0 predicts the label.
        rows: the number of confounder values, or 1 if they are unknown.

    Returns:
        int64[B], or int64[B,K] for multi-label data; cells of unknown labels are meaningless.
    """
    confounder = torch.zeros_like(batch.index) if batch.confounder is None else batch.confounder
    classes = logits.shape[1]
    if batch.label.ndim == 1:
        return (confounder * classes + batch.label) * classes + logits.argmax(1)
    of_label = torch.arange(classes, device=logits.device) * rows + confounder[:, None]
    return (of_label * 2 + batch.label.nan_to_num(0.0).long()) * 2 + (logits > 0)


def images_per_pass(
    split: DeviceSplit,
    module: torch.nn.Module,
    max_images: int = MAX_BATCH,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Return how many images of a split to pass through a network at once, at least 1.

    Args:
        split: the images.
        module: the network, or a module that contains it.
        max_images: the largest number of images.
        max_pixels: the largest number of pixels, at the resolution inside the network.
    """
    pixels = pixels_inside(module, *split.arrays.image.shape[-2:])
    return max(min(max_images, max_pixels // pixels), 1)


def images_per_objective(
    split: DeviceSplit,
    algorithm: Algorithm,
    at_most: int,
    max_pixels: int = MAX_OBJECTIVE_PIXELS,
) -> int:
    """Return for how many images of a split to compute an objective at once, at least 1.

    The graph of an objective takes the memory of a training step. Large images are therefore not
    more than a training batch has, or ``max_pixels`` if that is more.

    Args:
        split: the images.
        algorithm: the method.
        at_most: the number of images in a forward pass.
        max_pixels: the number of pixels that are always allowed.
    """
    allowed = images_per_pass(split, algorithm, at_most, max_pixels)
    return min(at_most, max(allowed, int(algorithm.hp.get("batch_size", 1))))
