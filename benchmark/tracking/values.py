"""What trackers show of a run: numbers of a line of its log, results of its record, heatmaps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmark.core.counts import accuracy, is_multi_label, worst_group_accuracy
from benchmark.core.layout import RunFolder, State
from benchmark.core.log_line import LogLine
from benchmark.core.record import RunRecord
from benchmark.core.spec import RunSpec
from benchmark.tracking.base import Picture, Scalar, TrackedRun

#: Colours of relevance for and against the predicted class.
_FOR = np.array([214.0, 39.0, 40.0])
_AGAINST = np.array([31.0, 119.0, 180.0])


def tracked_run(folder: RunFolder, spec: RunSpec) -> TrackedRun:
    """Return the names and settings of a run."""
    settings: dict[str, Any] = {
        "run": folder.key,
        "method": spec.method,
        "dataset": spec.dataset,
        "backbone": spec.backbone,
        "trial": spec.trial,
        "draw": spec.draw,
    }
    tables = {
        "dataset": spec.dataset_options,
        "backbone": spec.backbone_options,
        "hparams": spec.hparams,
        "budget": spec.budget,
    }
    for table, values in tables.items():
        settings |= {f"{table}/{name}": value for name, value in values.items()}
    plain: dict[str, Scalar] = {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in settings.items()
    }
    return TrackedRun(folder.key, spec.label(), folder.sweep.path.resolve().name, plain)


def line_values(line: LogLine) -> dict[str, float]:
    """Return the numbers of one evaluation by name; those that are not finite are left out."""
    values: dict[str, float] = {f"loss/{name}": value for name, value in line.terms.items()}
    values |= {
        "images_per_second": line.images_per_second,
        "memory_bytes": float(line.memory_bytes),
        "seconds": line.seconds,
    }
    if line.lr is not None:
        values["lr"] = line.lr
    if line.objective is not None:
        values["val/objective"] = line.objective
    values |= _accuracies(line.splits)
    for name, by_split in line.curves.items():
        values |= {f"{split}/{name}": value for split, value in by_split.items()}
    return _finite(values)


def record_values(record: RunRecord) -> dict[str, float]:
    """Return selected steps, the accuracies at them, and the relevance on the foreground."""
    values: dict[str, float] = {}
    for criterion, selected in record.selected.items():
        prefix = f"selected/{criterion}"
        values[f"{prefix}/step"] = selected.step
        found = _accuracies(selected.counts)
        values |= {f"{prefix}/{name}": value for name, value in found.items()}
    if record.explanations is not None:
        for split, explained in record.explanations.splits.items():
            if explained.energy is not None:
                values[f"explanations/{split}/energy"] = explained.energy
    return _finite(values)


def _accuracies(splits: Mapping[str, np.ndarray]) -> dict[str, float]:
    values = {}
    for split, counts in splits.items():
        values[f"{split}/accuracy"] = accuracy(counts)
        confounders = counts.shape[1 if is_multi_label(counts) else 0]
        if confounders > 1:
            values[f"{split}/worst_group_accuracy"] = worst_group_accuracy(counts)
    return values


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def pictures_of(folder: RunFolder, record: RunRecord) -> list[Picture]:
    """Return the gallery of a run: images with their heatmaps; empty without one."""
    if folder.heatmaps.name not in record.checksums:
        return []
    from benchmark.report.figures.heatmap_gallery import scaled
    from benchmark.report.records.stored_arrays import read_heatmaps
    from benchmark.report.records.sweep_records import SweepRun

    spec = record.spec
    run = SweepRun(folder.key, spec.dataset, spec.method, True, folder, State.DONE, record=record)
    found = read_heatmaps(run)
    names = record.data.label_names
    pictures = []
    for i in range(len(found.image)):
        truth = (
            [names[found.label[i]]] if found.label.ndim == 1 else _present(found.label[i], names)
        )
        caption = f"{', '.join(truth) or 'none'}, predicted {names[found.prediction[i]]}"
        pixels = side_by_side(found.image[i], scaled(found.heatmap[i].astype(np.float64)))
        pictures.append(Picture(f"{found.split[i]}/{found.row[i]}", caption, pixels))
    return pictures


def _present(label: np.ndarray, names: tuple[str, ...]) -> list[str]:
    return [name for name, present in zip(names, label, strict=True) if present == 1]


def side_by_side(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return an image and beside it its heatmap, uint8[H,2W,3].

    Evidence for the class is red, evidence against it blue, over the image in grey.

    Args:
        image: uint8[C,H,W]; C is 1, 2 or 3.
        heatmap: float[H,W], from −1 to 1.
    """
    pixels = image if image.shape[0] == 3 else np.repeat(image[:1], 3, 0)
    colour = pixels.transpose(1, 2, 0).astype(np.float64)
    grey = np.repeat(colour.mean(2, keepdims=True), 3, 2)
    weight = np.clip(np.abs(np.nan_to_num(heatmap)), 0.0, 1.0)[..., None]
    tint = np.where(heatmap[..., None] >= 0, _FOR, _AGAINST)
    explained = grey * (1 - weight) + tint * weight
    both: np.ndarray = np.concatenate([colour, explained], 1).round().astype(np.uint8)
    return both
