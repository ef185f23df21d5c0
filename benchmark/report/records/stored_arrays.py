"""Read the arrays of a run, checked against its record: predictions, heatmaps and embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.arrays import MAX_ARRAY_BYTES, ArrayFile
from benchmark.core.errors import DamagedError
from benchmark.core.record import RunRecord
from benchmark.core.summaries import DataSummary
from benchmark.report.records.sweep_records import SweepRun

#: Most bytes of an array of a gallery or of embeddings, far above what the engine writes.
_SMALL = 1 << 28


@dataclass(frozen=True)
class StoredPredictions:
    """The predictions of a run on one split.

    Attributes:
        label: int64[N], or int64[N,K] of 0 and 1 if an image may have several labels, with -1 in
            ``val`` where a label is not known.
        score: Logits, float[N,K].
        confounder: int64[N], or None if unknown.
        pair_id: Number of the object that an image shows, int64[N], or None.
        cluster: Number of the patient of an image, int64[N], or None.
    """

    label: np.ndarray
    score: np.ndarray
    confounder: np.ndarray | None
    pair_id: np.ndarray | None
    cluster: np.ndarray | None


@dataclass(frozen=True)
class StoredHeatmaps:
    """The gallery of a run.

    Attributes:
        split: Split of each image.
        row: Row of each image in its split, int64[G].
        image: uint8[G,C,H,W].
        mask: bool[G,1,H,W], True in the foreground.
        heatmap: float[G,H,W].
        label: int64[G], or int64[G,K] of 0 and 1.
        prediction: Predicted class, which is explained, int64[G].
        explainer: Name of the explainer.
    """

    split: list[str]
    row: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    heatmap: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    explainer: str

    def has_same_images(self, other: StoredHeatmaps) -> bool:
        """Return whether two galleries show the same images."""
        return self.split == other.split and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("row", "image", "mask", "label")
        )


@dataclass(frozen=True)
class StoredGlobalMaps:
    """Explanations of whole classes.

    Attributes:
        names: Name of each kind of map.
        maps: float32[M,K,H,W], divided by their largest absolute value.
    """

    names: list[str]
    maps: np.ndarray


@dataclass(frozen=True)
class StoredEmbeddings:
    """The features of test images of a run, and of validation images if environments are known.

    Attributes:
        split: Split of each image.
        feature: float[M,P].
        label: int64[M], or int64[M,K] of 0 and 1.
        confounder: int64[M], or None if unknown.
        environment: int64[M], the environment of training, or the number of these plus the position
            of the test split; None if unknown.
    """

    split: list[str]
    feature: np.ndarray
    label: np.ndarray
    confounder: np.ndarray | None
    environment: np.ndarray | None = None


@dataclass(frozen=True)
class StoredExplanations:
    """The measured explanations of one split.

    Attributes:
        row: Row of each image in its split, int64[n].
        cluster: Number of the patient of each image, int64[n], or None.
        values: Values of each metric, float64[n], NaN where it is not defined.
    """

    row: np.ndarray
    cluster: np.ndarray | None
    values: Mapping[str, np.ndarray]


def read_explanations(run: SweepRun) -> tuple[dict[str, StoredExplanations], np.ndarray]:
    """Return the measured explanations of a finished run by split, and the timed seconds.

    Raises:
        FileNotFoundError: If there is no file.
        DamagedError: If it is damaged or of another run.
    """
    record = _record(run)
    summary = record.measurement
    if summary is None:
        raise DamagedError(f"{run.key} measured no explanations.")
    found = {}
    with _open(record, run.folder.explanations, _SMALL) as file:
        for split in summary.splits:
            row = file.read(f"{split}/row", "i", [None])
            images = len(row)
            cluster = None
            if f"{split}/cluster" in file.names:
                cluster = file.read(f"{split}/cluster", "i", [images])
            values = {}
            for metric in summary.splits[split].means:
                value = file.read(f"{split}/{metric}", "f", [images])
                defined = file.read(f"{split}/{metric}/defined", "b", [images])
                values[metric] = np.where(defined, value, np.nan)
            found[split] = StoredExplanations(row, cluster, values)
        seconds = file.read("seconds", "f", [None])
    return found, seconds


def read_predictions(
    run: SweepRun, criterion: str, split: str, *, verify: bool = True
) -> StoredPredictions:
    """Return the predictions of a finished run at a selected step.

    Args:
        run: A run with a record.
        criterion: Criterion of the selected step.
        split: Name of the split.
        verify: Whether to compare the checksum of the file with the one in the record.

    Raises:
        FileNotFoundError: If there is no file.
        DamagedError: If it is damaged, of another run, or has no predictions of the split.
    """
    record = _record(run)
    data = record.data
    counts = run.selected[criterion].counts.get(split)
    with _open(record, run.folder.predictions, verify=verify) as file:
        score = f"{criterion}/{split}/score"
        if score not in file.names or f"{split}/label" not in file.names:
            raise DamagedError(f"{file.path.name} has no scores of {split}.")
        may_be_unknown = split == "val" and data.multi_label
        if counts is None or may_be_unknown:
            images = data.splits.get(split)
        else:
            images = _images(counts)
        label = _labels(file, f"{split}/label", images, data, may_be_unknown=may_be_unknown)
        known = {
            name: file.read(f"{split}/{name}", "i", [len(label)])
            for name in ("confounder", "pair_id", "cluster")
            if f"{split}/{name}" in file.names
        }
        if "confounder" in known:
            _require_below(known["confounder"], len(data.confounder_names), file, split)
        scores = file.read(score, "f", [len(label), len(data.label_names)])
    return StoredPredictions(
        label, scores, known.get("confounder"), known.get("pair_id"), known.get("cluster")
    )


def read_heatmaps(run: SweepRun) -> StoredHeatmaps:
    """Return the gallery of a finished run.

    Raises:
        FileNotFoundError: If there is no file.
        DamagedError: If it is damaged or of another run.
    """
    record = _record(run)
    data = record.data
    with _open(record, run.folder.heatmaps, _SMALL) as file:
        image = file.read("image", "u", [None, None, None, None])
        count, channels, height, width = image.shape
        if image.dtype != np.uint8 or not channels:
            raise DamagedError(f"{file.path.name} is damaged: its images are not uint8[N,C,H,W].")
        split = file.texts("split", [count])
        _require_among(split, data.test_splits, file)
        prediction = file.read("prediction", "i", [count])
        _require_below(prediction, len(data.label_names), file, "prediction")
        return StoredHeatmaps(
            split=split,
            row=file.read("row", "i", [count]),
            image=image,
            mask=file.read("mask", "b", [count, 1, height, width]),
            heatmap=file.read("heatmap", "f", [count, height, width]),
            label=_labels(file, "label", count, data),
            prediction=prediction,
            explainer=file.texts("explainer", [])[0],
        )


def read_global_maps(run: SweepRun) -> StoredGlobalMaps:
    """Return the explanations of whole classes of a finished run.

    Raises:
        FileNotFoundError: If there is no file.
        DamagedError: If it is damaged or of another run.
    """
    record = _record(run)
    with _open(record, run.folder.global_maps, _SMALL) as file:
        maps = file.read("map", "f", [None, len(record.data.label_names), None, None])
        names = file.texts("name", [len(maps)])
        if not all(maps.shape) or not np.isfinite(maps).all():
            raise DamagedError(f"{file.path.name} is damaged: its maps are empty or not finite.")
    return StoredGlobalMaps(names, maps.astype(np.float32))


def read_embeddings(run: SweepRun) -> StoredEmbeddings:
    """Return the features of test images of a finished run.

    Raises:
        FileNotFoundError: If there is no file.
        DamagedError: If it is damaged or of another run.
    """
    record = _record(run)
    data = record.data
    with _open(record, run.folder.embeddings, _SMALL) as file:
        feature = file.read("feature", "f", [None, None])
        split = file.texts("split", [len(feature)])
        _require_among(split, ["val", *data.test_splits], file)
        environment = None
        if "environment" in file.names:
            environment = file.read("environment", "i", [len(feature)])
            known = len(data.environment_names) + len(data.test_splits)
            _require_below(environment, known, file, "environment")
        confounder = None
        if "confounder" in file.names:
            confounder = file.read("confounder", "i", [len(feature)])
            _require_below(confounder, len(data.confounder_names), file, "confounder")
        label = _labels(file, "label", len(feature), data)
        return StoredEmbeddings(split, feature, label, confounder, environment)


def _record(run: SweepRun) -> RunRecord:
    if run.record is None:
        raise DamagedError(f"{run.key} has no record.")
    return run.record


def _open(
    record: RunRecord, path: Path, most: int = MAX_ARRAY_BYTES, *, verify: bool = True
) -> ArrayFile:
    """Open a file beside the record; records of earlier versions hold no checksums."""
    checksum = record.checksums.get(path.name)
    if record.checksums and checksum is None and path.exists():
        raise DamagedError(f"{path.name} is of another run: record.json does not list it.")
    return ArrayFile(path, checksum if verify else None, most)


def _images(counts: np.ndarray) -> int:
    total = int(counts.sum(dtype=np.int64))
    return total // len(counts) if counts.ndim == 4 else total


def _labels(
    file: ArrayFile,
    name: str,
    images: int | None,
    data: DataSummary,
    *,
    may_be_unknown: bool = False,
) -> np.ndarray:
    """Return classes int64[N], or int64[N,K] of 0 and 1 if an image may have several labels.

    If labels may be unknown, they are -1 then.
    """
    classes = len(data.label_names)
    shape = [images, classes] if data.multi_label else [images]
    label = file.read(name, "i", shape)
    lowest = -1 if may_be_unknown else 0
    _require_below(label, 2 if data.multi_label else classes, file, name, lowest)
    return label


def _require_below(
    values: np.ndarray, bound: int, file: ArrayFile, name: str, lowest: int = 0
) -> None:
    if values.size and not (values.min() >= lowest and values.max() < bound):
        raise DamagedError(
            f"{file.path.name} is damaged: {name} holds {values.min()} to {values.max()}, "
            f"expected {lowest} to {bound - 1}."
        )


def _require_among(names: Collection[str], known: Collection[str], file: ArrayFile) -> None:
    if not set(names) <= set(known):
        raise DamagedError(
            f"{file.path.name} is damaged: it names splits that the data do not have."
        )
