"""Explanations of a trained network: relevance on the foreground, and a gallery of heatmaps."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.compilation import eagerly
from benchmark.core.dataset import Split
from benchmark.core.errors import UserError
from benchmark.core.registry import EXPLAINERS, EXPLANATION_METRICS
from benchmark.core.seeds import seed_for
from benchmark.core.speed.seeding import seed_generators
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.evaluate import images_per_pass
from benchmark.explain import get
from benchmark.explain.base import HeatmapExplainer
from benchmark.explain.metrics import relevance_mass

#: The largest number of images of each split that are explained.
MAX_IMAGES = 512
#: The number of images of the gallery.
GALLERY_IMAGES = 8
#: The largest number of images and of pixels that are explained at once: like a training step, an
#: explanation keeps the activations of every layer.
MAX_BATCH = 64
MAX_PIXELS = 16 * 224 * 224
#: Means that have a field of their own in the record; the others are in ``metrics``.
_RECORDED_FIELDS = ("energy", "correlation", "area", "distance", "on_shortcut", "shortcut_area")


@dataclass
class Explanations:
    """The explanations of a run; all are empty if there are none.

    Args:
        report: the entry of record.json.
        gallery: the arrays of heatmaps.npz.
        global_maps: explanations of whole classes, float32[K,H,W] for each name.
    """

    report: dict[str, Any] = field(default_factory=dict)
    gallery: dict[str, np.ndarray] = field(default_factory=dict)
    global_maps: dict[str, np.ndarray] = field(default_factory=dict)


def evenly_spaced_rows(size: int, most: int) -> np.ndarray:
    """Return up to ``most`` of ``size`` rows, evenly spaced from the first to the last, int64."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(np.int64))


def choose_explainer(network: nn.Module, explained_by: str = "") -> HeatmapExplainer:
    """Return the explainer of a trained network.

    Args:
        network: the network to explain.
        explained_by: the explainer that the method declares; if empty, it is the first in
            ``evaluation_order`` that suits what the network declares.

    Raises:
        UserError: the network declares no capabilities, or the declared explainer is unknown.
    """
    if explained_by:
        return get(explained_by)
    declared = getattr(network, "capabilities", None)
    if declared is None:
        raise UserError(
            f"{type(network).__name__} declares no capabilities: no explanation is defined for it."
        )
    kinds = [EXPLAINERS.get(name) for name in EXPLAINERS.names()]
    tried = [kind for kind in kinds if kind.evaluation_order is not None and kind.suits(declared)]
    explainer: HeatmapExplainer = min(tried, key=lambda kind: kind.evaluation_order)()
    return explainer


def explain_splits(
    algorithm: Algorithm,
    splits: Mapping[str, DeviceSplit],
    predicted: Mapping[str, np.ndarray],
    gallery_splits: Sequence[str] = (),
) -> Explanations:
    """Explain the predicted classes in evaluation mode, and measure where the relevance lies.

    At most MAX_IMAGES images of each split are explained. An error becomes a note in the report,
    since the run itself is valid without explanations.

    Args:
        algorithm: the trained method.
        splits: splits with masks (see ``has_masks``), by name.
        predicted: the classes int64[N] to explain, for each split.
        gallery_splits: the splits of the gallery, which has GALLERY_IMAGES images in all.
    """
    if not splits:
        return Explanations()
    try:
        with explaining(algorithm):
            return _explain(algorithm, splits, predicted, gallery_splits)
    except ExplanationError as error:
        print(f"no explanations: {error}", file=sys.stderr)
        return Explanations({"explainer": None, "splits": {}, "note": str(error)})


class ExplanationError(Exception):
    """A network cannot be explained; the message is one line."""


@contextmanager
def explaining(algorithm: Algorithm) -> Iterator[None]:
    """Put a method into evaluation mode in the block, in which it is explained.

    Raises:
        ExplanationError: any error except one of the file system, since a run is valid without
            explanations: lack of memory, or a kernel that is not deterministic.
    """
    training = algorithm.training
    algorithm.eval()
    try:
        with eagerly():  # also for explainers of other packages
            yield
    except UserError as error:
        raise ExplanationError(str(error)) from None
    except Exception as error:
        if isinstance(error, OSError):
            raise
        traceback.print_exc()
        raise ExplanationError(f"{type(error).__name__}: {error}".partition("\n")[0]) from None
    finally:
        algorithm.train(training)


def _explain(
    algorithm: Algorithm,
    splits: Mapping[str, DeviceSplit],
    predicted: Mapping[str, np.ndarray],
    gallery_splits: Sequence[str],
) -> Explanations:
    summaries: dict[str, Any] = {}
    pieces: list[dict[str, np.ndarray]] = []
    explainer_name = ""
    for name, split in splits.items():
        rows = evenly_spaced_rows(split.size, MAX_IMAGES)
        gallery_rows = rows[:0]
        if name in gallery_splits:
            count = math.ceil(GALLERY_IMAGES / len(gallery_splits))
            gallery_rows = rows[evenly_spaced_rows(len(rows), count)]
        per_pass = images_per_pass(split, algorithm, MAX_BATCH, MAX_PIXELS)
        measured: list[dict[str, torch.Tensor]] = []
        for start in range(0, len(rows), per_pass):
            part = rows[start : start + per_pass]
            batch = split.batch(part)
            target = torch.from_numpy(predicted[name][part]).to(split.device)
            explainer, heatmap, distance = explain_batch(
                algorithm, batch, target, f"{name} {start}"
            )
            explainer_name = explainer.name
            mask = torch.from_numpy(masks_of(split.arrays, part)).to(split.device)
            pixels = pixel_map(heatmap, mask.shape[2:])
            metrics = {**measure(pixels, mask), **measure_shortcut(pixels, split.arrays, part)}
            if distance is not None:
                metrics["distance"] = distance
            measured.append({key: value.double().cpu() for key, value in metrics.items()})
            shown = np.flatnonzero(np.isin(part, gallery_rows))
            if len(shown):
                pieces.append(gallery_arrays(split, part[shown], pixels[shown], predicted[name]))
        columns = {key: torch.cat([m[key] for m in measured]) for key in measured[0]}
        summaries[name] = summary(columns)
        if _is_rest(split.arrays, rows):
            summaries[name]["foreground_is_rest"] = True
    gallery: dict[str, np.ndarray] = {}
    if pieces:
        gallery = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        gallery["explainer"] = np.array(explainer_name)
    return Explanations({"explainer": explainer_name, "splits": summaries}, gallery)


def explain_batch(
    algorithm: Algorithm, batch: Batch, target: torch.Tensor, place: str
) -> tuple[HeatmapExplainer, torch.Tensor, torch.Tensor | None]:
    """Return the explainer, the heatmap and its distance from the teacher's heatmap, if any.

    Random numbers depend only on ``place``.
    """
    devices = [batch.image.device] if batch.image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_generators(seed_for("explanations", place))
        network, seen = algorithm.explainable(batch.image)
        explainer = choose_explainer(network, algorithm.explained_by)
        heatmap = explainer(network, seen, target)
        # A teacher that draws noise draws the same for all students.
        seed_generators(seed_for("explanations", place))
        try:
            distance = algorithm.explanation_distance(
                heatmap, lambda n, i: explainer(n, i, target), batch.image
            )
        except UserError:  # the explainer of the student does not suit the teacher's network
            distance = None
    return explainer, heatmap, distance


def has_masks(split: Split) -> bool:
    """Return True if a split has masks, or class masks of at least half of its images."""
    if split.mask is not None:
        return True
    masks = split.class_masks
    return masks is not None and len(masks) > 0 and bool(masks.known().any(1).mean() >= 0.5)


def masks_of(split: Split, rows: np.ndarray) -> np.ndarray:
    """Return the masks of some images, bool[n,1,H,W].

    Without masks they are the union of the masks of all classes.
    """
    if split.mask is not None:
        return np.asarray(split.mask[rows])
    assert split.class_masks is not None
    return np.logical_or.reduce(split.class_masks.rasterise(rows), axis=1, keepdims=True)


def pixel_map(heatmap: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Sum the channels of heatmaps and resize them bilinearly to float[B,H,W]."""
    summed = heatmap.sum(1, keepdim=True)
    if summed.shape[2:] != torch.Size(size):
        summed = F.interpolate(summed, list(size), mode="bilinear", align_corners=False)
    return summed[:, 0]


def measure(pixels: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return every explanation metric of each image that runs record.

    Beside the metrics there are ``area``, the share of the image that the mask covers (which is the
    energy of a constant map), and ``total``, the sum of the absolute relevance.

    Args:
        pixels: signed relevance, float[B,H,W].
        mask: bool[B,1,H,W].

    Returns:
        float64[B] for each name, NaN for images for which a metric is undefined.
    """
    relevance = pixels.double().abs()
    inside = mask[:, 0]
    measured = {
        name: EXPLANATION_METRICS.get(name)()(relevance, inside)
        for name in EXPLANATION_METRICS.names()
        if EXPLANATION_METRICS.get(name).recorded
    }
    area = inside.flatten(1).double().mean(1)
    return {**measured, "area": area, "total": relevance.flatten(1).sum(1)}


def measure_shortcut(
    pixels: torch.Tensor, split: Split, rows: np.ndarray
) -> dict[str, torch.Tensor]:
    """Return the share of the absolute relevance where the confounder shows, and its area.

    Args:
        pixels: signed relevance, float[B,H,W].
        split: the split of the images.
        rows: the rows of the images, int64[B].

    Returns:
        float64[B] for each name, NaN for images without the confounder; empty if its place is not
        known.
    """
    if split.shortcut is None:
        return {}
    shown = torch.from_numpy(np.asarray(split.shortcut[rows])).to(pixels.device)[:, 0]
    area = shown.flatten(1).double().mean(1)
    return {
        "on_shortcut": relevance_mass(pixels.double().abs(), shown),
        "shortcut_area": torch.where(area > 0, area, torch.nan),
    }


def _is_rest(split: Split, rows: np.ndarray) -> bool:
    """Return True if the foreground is everything except the shortcut in all of the images.

    A shortcut that covers most of the image is a background, and the rest of it is an object.
    """
    if split.shortcut is None or split.mask is None:
        return False
    shown = np.asarray(split.shortcut[rows])
    return bool(shown.mean() < 0.5 and (np.asarray(split.mask[rows]) != shown).all())


def summary(columns: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the means that are recorded, and the number of images that are left out of them.

    Args:
        columns: values of each image, as from ``measure``.

    Returns:
        The fields of ``ExplainedSplit``. A mean is over the images for which the metric is defined;
        it is None if there are none.
    """
    total = columns["total"]
    means: dict[str, Any] = {
        "images": len(total),
        "zero_maps": int((total == 0).sum()),
        "nonfinite_maps": int((~total.isfinite()).sum()),
        "empty_masks": int((columns["area"] == 0).sum()),
    }
    further: dict[str, float | None] = {}
    for name in (*_RECORDED_FIELDS, *sorted(columns.keys() - {*_RECORDED_FIELDS, "total"})):
        if name in columns:
            defined = columns[name][columns[name].isfinite() & total.isfinite()]
            target = means if name in _RECORDED_FIELDS else further
            target[name] = float(defined.mean()) if len(defined) else None
    return {**means, "metrics": further} if further else means


def gallery_arrays(
    split: DeviceSplit, rows: np.ndarray, pixels: torch.Tensor, predicted: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the gallery arrays; heatmaps are divided by their largest value, ``scale``."""
    arrays = split.arrays
    known = {}
    maps = pixels.nan_to_num(0.0, 0.0, 0.0)
    scale = maps.abs().amax((1, 2), keepdim=True)
    maps = maps / torch.where(scale > 0, scale, 1.0)
    if arrays.confounder is not None:
        known["confounder"] = arrays.confounder[rows]
    return {
        "split": np.array([split.name] * len(rows)),
        "row": rows,
        "image": np.asarray(arrays.image[rows]),
        "mask": masks_of(arrays, rows),
        "heatmap": maps.cpu().numpy().astype(np.float16),
        "scale": scale.flatten().cpu().numpy().astype(np.float32),
        "label": arrays.label[rows],
        "prediction": predicted[rows],
        **known,
    }
