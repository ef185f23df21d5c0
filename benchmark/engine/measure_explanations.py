"""Measures the explanations of a trained model, as a run of its own."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.compilation import eagerly
from benchmark.core.conditions import Conditions
from benchmark.core.dataset import GroupedDataset, Split
from benchmark.core.errors import StopRequestedError
from benchmark.core.files import StagedFiles, commit_once, to_json
from benchmark.core.layout import RunFolder
from benchmark.core.log_line import LogLine
from benchmark.core.outcome import RunOutcome
from benchmark.core.record import RunRecord
from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.core.run_states import AttemptEnd
from benchmark.core.seeds import seed_for
from benchmark.core.spec import LABEL, RunSpec
from benchmark.core.speed.seeding import seed_generators
from benchmark.core.summaries import (
    MachineSummary,
    MeasuredMetric,
    MeasuredSplit,
    MeasurementSummary,
    Sensitivity,
    Timing,
)
from benchmark.core.thresholds import youden_thresholds
from benchmark.engine.build import load_upstream
from benchmark.engine.checkpoint import conditions_of, save_checkpoint
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.environment_info import peak_memory_bytes
from benchmark.engine.evaluate import images_per_pass
from benchmark.engine.exceptions import InterruptedRunError
from benchmark.engine.explanations import (
    GALLERY_IMAGES,
    MAX_BATCH,
    MAX_PIXELS,
    choose_explainer,
    evenly_spaced_rows,
    gallery_arrays,
    pixel_map,
)
from benchmark.engine.log import Log
from benchmark.engine.record_parts import about_data, about_method, about_upstream, tidy
from benchmark.engine.sensitivity import Answers, measure_explainer
from benchmark.explain import get
from benchmark.explain.base import HeatmapExplainer
from benchmark.explain.metrics import ExplainedImages, ExplanationMetric

#: The largest number of images whose explanation is timed, after one that warms up.
TIMED_IMAGES = 8
#: No further image is timed after this many seconds.
TIMING_SECONDS = 10.0
#: After the last image, a checkpoint is saved if the last one is older than this, in seconds.
MAX_CHECKPOINT_AGE = 10.0


@dataclass(frozen=True)
class Unit:
    """Images of one split that are explained together.

    Args:
        split: the name of the split.
        rows: their rows, int64[B].
        place: what the random numbers of the explanation depend on.
    """

    split: str
    rows: np.ndarray
    place: str


class ModelExplainer:
    """A trained model and an explainer of its predictions.

    Args:
        model: the trained method, in evaluation mode.
        trained: the method that trained the explainer, in evaluation mode; None for an explainer
            of the registry.
        name: the name of the explainer in the registry.
        options: its options.
        of_label: True to explain the label of an image instead of the prediction.
    """

    def __init__(
        self,
        model: Algorithm,
        trained: Algorithm | None = None,
        name: str = "",
        options: Mapping[str, Any] | None = None,
        *,
        of_label: bool = False,
    ) -> None:
        self.model = model
        self.of_label = of_label
        self.owner = model if trained is None else trained
        self.explainer: HeatmapExplainer = (
            get(name, **(options or {}))
            if trained is None
            else choose_explainer(trained.network, trained.explained_by)
        )

    def mismatch(self, image: torch.Tensor) -> str:
        """Return why the explainer does not suit the network of the model; empty if it does."""
        network, _ = self.owner.explainable(image)
        declared = getattr(network, "capabilities", None)
        required = self.explainer.requires
        if not required or declared is None or getattr(declared, required):
            return ""
        named = getattr(network, "name", type(network).__name__)
        return f"{self.explainer.name} needs a network that declares {required!r}: not {named}"

    @torch.inference_mode()
    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of the model, float[B,K]."""
        with self.model.setting.autocast():
            return self.model.predict(image).float()

    def target(self, batch: Batch) -> torch.Tensor:
        """Return the classes that are explained, int64[B]."""
        if self.of_label:
            return batch.label
        with torch.inference_mode(False):
            return self.logits(batch.image).argmax(1).clone()

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps float[B,C,h,w] of images."""
        network, seen = self.owner.explainable(image)
        with eagerly():
            return self.explainer(network, seen, target)

    def explained(self, batch: Batch, place: str) -> ExplainedImages:
        """Explain a batch.

        Random numbers depend only on ``place``.
        """
        target = self.target(batch)
        network, seen = self.owner.explainable(batch.image)

        def explain(network: nn.Module, image: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            with _random_numbers(image.device, place), eagerly():
                return self.explainer(network, seen if image is batch.image else image, of)

        heatmap = explain(network, batch.image, target)
        return ExplainedImages(
            model=self.logits,
            network=network,
            explain=explain,
            image=batch.image,
            heatmap=pixel_map(heatmap, batch.image.shape[2:]),
            target=target,
            mask=None if batch.mask is None else batch.mask[:, 0],
        )


@contextmanager
def _random_numbers(device: torch.device, place: str) -> Iterator[None]:
    """Let random numbers in the block depend on ``place`` alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        seed_generators(seed_for("explanations", place))
        yield


class MeasurementRun:
    """A measurement in progress.

    Args:
        spec: the run.
        data: the data of the trial.
        device: where to explain.
        folder: the folder of the run.
        attempt: the number of this attempt.
        checkpoint_seconds: seconds between two checkpoints.
        stop: returns a reason to stop, or None.
        on_line: called with every line of the log.
        data_dir: the folder of downloaded data sets.
        saved: the checkpoint to resume from, or None.
        conditions: the conditions of the run.
        at_once: see ``execute``.
    """

    def __init__(
        self,
        spec: RunSpec,
        data: GroupedDataset,
        device: torch.device,
        folder: Path,
        attempt: int,
        checkpoint_seconds: float,
        stop: Callable[[], str | None],
        on_line: Callable[[LogLine], None] | None = None,
        *,
        data_dir: Path | None = None,
        saved: Mapping[str, Any] | None = None,
        conditions: Conditions,
        at_once: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        assert spec.measurement is not None
        self.spec = spec
        self.measurement = spec.measurement
        self.data = data
        self.device = device
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.stop = stop
        self.conditions = conditions
        self.at_once = at_once
        with at_once():
            self.explainer = _load_explainer(spec, folder.parent, device, data_dir)
            self.splits = {
                name: DeviceSplit(data, name, device) for name in self.measurement.splits
            }
        self.metrics: dict[str, ExplanationMetric] = {
            name: EXPLANATION_METRICS.get(name)() for name in self.measurement.metrics
        }
        self.units = list(self._units())
        earlier = conditions_of(saved)
        self.resumed = [*saved.get("resumed", [])] if saved else []
        self.resumed += conditions.changes_since(earlier) if earlier else []
        self.done: int = saved["done"] if saved else 0
        self.seconds: float = saved["seconds"] if saved else 0.0
        #: Values of each image by split and name, one tensor for each unit that is done.
        self.values: dict[str, dict[str, list[torch.Tensor]]] = (
            {split: {k: list(v) for k, v in of.items()} for split, of in saved["values"].items()}
            if saved
            else {name: {} for name in self.splits}
        )
        self.log = Log(
            RunFolder(folder).attempt(attempt).log, saved["log"] if saved else "", on_line
        )
        self._saved_at = time.monotonic()

    @property
    def explained_images(self) -> int:
        """The number of images in the units that are done."""
        return sum(len(unit.rows) for unit in self.units[: self.done])

    def measure(self) -> None:
        """Measure every unit that is not done; save and end the run if it was asked to stop."""
        while self.done < len(self.units):
            self._poll()
            unit = self.units[self.done]
            started = time.perf_counter()
            try:
                with self.at_once():
                    found = self._measure(unit)
            except StopRequestedError as request:
                self._poll()
                raise InterruptedRunError(request.reason) from None
            for name, value in found.items():
                self.values[unit.split].setdefault(name, []).append(value)
            self.done += 1
            seconds = time.perf_counter() - started
            self.seconds += seconds
            self.log.line(self._line(len(unit.rows) / seconds if seconds else 0.0))
            self.save_if_older_than(self.checkpoint_seconds)

    def mismatch(self) -> str:
        """Return why the explainer does not suit the model; empty if it does."""
        unit = self.units[0]
        return self.explainer.mismatch(self.splits[unit.split].batch(unit.rows[:1]).image)

    def columns(self, split: str) -> dict[str, np.ndarray]:
        """Return the values of the images of a split by name."""
        return {name: torch.cat(parts).numpy() for name, parts in self.values[split].items()}

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of the explained images of a split, int64[n]."""
        return evenly_spaced_rows(self.splits[split].size, self.measurement.images)

    def timed(self) -> np.ndarray:
        """Return the seconds that single images took, float64[T]; empty if that is not wanted.

        The device has finished before and after each explanation. The first one is not counted.
        """
        if not any(metric.is_timing for metric in self.metrics.values()):
            return np.zeros(0)
        split = self.splits[self.measurement.splits[0]]
        return time_explanations(self.explainer, split, self.rows(split.name)[: TIMED_IMAGES + 1])

    def sensitivity(self) -> tuple[Sensitivity, ...]:
        """Return the metrics of classes, on the splits with labels; empty if none is wanted."""
        measures = [name for name, metric in self.metrics.items() if metric.of_classes]
        if not measures:
            return ()
        info = self.data.info
        labelled = [name for name in self.splits if name not in info.unlabelled_splits]
        threshold = np.zeros(len(info.label_names))
        if info.multi_label:
            val = DeviceSplit(self.data, "val", self.device)
            threshold = youden_thresholds(val.arrays.label, self._scores(val))
        answers = {
            name: Answers(self._scores(split), split.arrays.label, threshold)
            for name, split in self.splits.items()
            if name in labelled
        }
        main = about_data(self.data).main_split
        main = main if main in labelled else next(iter(labelled), None)
        splits = {name: self.splits[name] for name in labelled}
        return measure_explainer(self.explainer, splits, answers, main, measures)

    def _scores(self, split: DeviceSplit) -> np.ndarray:
        """Return the logits of the model on every image of a split, float32[N,K]."""
        size = images_per_pass(split, self.explainer.model)
        rows = np.arange(split.size)
        parts = [
            self.explainer.logits(split.batch(rows[start : start + size]).image).cpu()
            for start in range(0, split.size, size)
        ]
        return torch.cat(parts).numpy()  # type: ignore[no-any-return]

    def gallery(self) -> dict[str, np.ndarray]:
        """Return the arrays of heatmaps.npz; empty for data without masks."""
        masked = [name for name in self.splits if self.splits[name].arrays.mask is not None][:2]
        pieces = []
        for name in masked:
            rows = self.rows(name)
            rows = rows[evenly_spaced_rows(len(rows), GALLERY_IMAGES // len(masked))]
            explained = self.explainer.explained(self.splits[name].batch(rows), f"gallery {name}")
            predicted = np.zeros(self.splits[name].size, np.int64)
            predicted[rows] = explained.target.cpu().numpy()
            pieces.append(gallery_arrays(self.splits[name], rows, explained.heatmap, predicted))
        if not pieces:
            return {}
        gallery = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        return {**gallery, "explainer": np.array(self.measurement.explainer)}

    def _units(self) -> Iterator[Unit]:
        for name, split in self.splits.items():
            rows = self.rows(name)
            size = images_per_pass(split, self.explainer.owner, MAX_BATCH, MAX_PIXELS)
            for start in range(0, len(rows), size):
                yield Unit(name, rows[start : start + size], f"{name} {start}")

    def _measure(self, unit: Unit) -> dict[str, torch.Tensor]:
        """Return the values of the images of a unit by name, on the CPU."""
        explained = self.explainer.explained(self.splits[unit.split].batch(unit.rows), unit.place)
        found = {
            name: metric.of(explained).double().cpu()
            for name, metric in self.metrics.items()
            if metric.is_of_images()
        }
        return {**found, "prediction": explained.target.cpu()}

    def _line(self, speed: float) -> LogLine:
        return LogLine(
            step=self.explained_images,
            steps=sum(len(unit.rows) for unit in self.units),
            seconds=round(self.seconds, 3),
            images_per_second=round(speed, 1),
            terms={},
            memory_bytes=self.peak_memory(),
        )

    def peak_memory(self) -> int:
        """Return the peak memory of the GPU allocator or of the process; 0 if unknown."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_memory_bytes()

    def save_if_older_than(self, seconds: float) -> None:
        """Save a checkpoint, unless the last one is more recent than this."""
        if time.monotonic() - self._saved_at > seconds:
            self._save()

    def _poll(self) -> None:
        reason = self.stop()
        if reason is None:
            return
        if reason != AttemptEnd.LEASE_LOST:
            self._save()
        raise InterruptedRunError(reason)

    def _save(self) -> None:
        state = {
            "done": self.done,
            "seconds": self.seconds,
            "values": self.values,
            "log": self.log.text,
            "conditions": self.conditions.to_json(),
            "resumed": list(self.resumed),
        }
        save_checkpoint(self.folder, self.spec.key, state)
        self._saved_at = time.monotonic()


def _load_explainer(
    spec: RunSpec, runs: Path, device: torch.device, data_dir: Path | None
) -> ModelExplainer:
    """Load the model of a measurement, and the explainer that was trained for it, if any."""
    assert spec.measurement is not None
    loaded = {
        role: load_upstream(runs / key, device, data_dir) for role, key in spec.upstream.items()
    }
    return ModelExplainer(
        loaded["model"],
        loaded.get("explainer"),
        spec.measurement.explainer,
        spec.measurement.options,
        of_label=spec.measurement.target == LABEL,
    )


def time_explanations(
    explainer: ModelExplainer, split: DeviceSplit, rows: np.ndarray
) -> np.ndarray:
    """Return the seconds that the explanation of each image takes, alone in its batch, float64[T].

    The device has finished before and after each explanation. The first image warms up and is not
    counted. After TIMING_SECONDS no further image is explained.
    """
    found: list[float] = []
    for row in rows:
        batch = split.batch(np.array([row]))
        target = explainer.target(batch)
        with _random_numbers(split.device, "timing"):
            started = _clock(split.device)
            explainer(batch.image, target)
            found.append(_clock(split.device) - started)
        if len(found) > 1 and sum(found) > TIMING_SECONDS:
            break
    return np.array(found[1:] or found)


def _clock(device: torch.device) -> float:
    """Return the time after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def finish_measurement(run: MeasurementRun, attempt: int, started: float) -> RunOutcome:
    """Measure, and commit the record last, as for a run that trains.

    An explainer that does not suit the model gives a record with a note instead of results, so that
    one list of explainers can serve models of different kinds.

    Returns:
        ``DONE``, or ``SETTLED`` if another process committed the run first.
    """
    note = run.mismatch()
    arrays: dict[str, np.ndarray] = {}
    gallery: dict[str, np.ndarray] = {}
    sensitivity: tuple[Sensitivity, ...] = ()
    if note:
        print(f"no explanations: {note}", file=sys.stderr)
    else:
        run.measure()
        run.save_if_older_than(MAX_CHECKPOINT_AGE)
        with run.at_once():
            before = time.perf_counter()
            arrays = _arrays(run)
            gallery = run.gallery()
            sensitivity = run.sensitivity()
            run.seconds += time.perf_counter() - before
    run.log.close()
    record = _record(run, attempt, started, arrays, note, sensitivity)
    return _commit(run, attempt, record, arrays, gallery)


def _arrays(run: MeasurementRun) -> dict[str, np.ndarray]:
    """Return the arrays of explanations.npz; values that are not defined are 0 and marked."""
    arrays: dict[str, np.ndarray] = {}
    for name, split in run.splits.items():
        rows = run.rows(name)
        arrays[f"{name}/row"] = rows
        arrays[f"{name}/label"] = split.arrays.label[rows]
        if split.arrays.cluster is not None:
            arrays[f"{name}/cluster"] = split.arrays.cluster[rows]
        for metric, values in run.columns(name).items():
            if metric == "prediction":
                arrays[f"{name}/{metric}"] = values
                continue
            defined = np.isfinite(values)
            arrays[f"{name}/{metric}"] = np.where(defined, values, 0.0)
            arrays[f"{name}/{metric}/defined"] = defined
    return {**arrays, "seconds": run.timed()}


def _record(
    run: MeasurementRun,
    attempt: int,
    started: float,
    arrays: Mapping[str, np.ndarray],
    note: str,
    sensitivity: tuple[Sensitivity, ...],
) -> RunRecord:
    spec = run.spec
    seconds = arrays.get("seconds", np.zeros(0))
    summary = MeasurementSummary(
        explainer=run.measurement.explainer,
        metrics={
            name: MeasuredMetric(metric.title or name, metric.higher_is_better)
            for name, metric in run.metrics.items()
            if not metric.of_classes
        },
        splits={name: _split_summary(run, name, arrays) for name in run.splits} if arrays else {},
        seconds_per_image=float(seconds.mean()) if len(seconds) else None,
        note=note,
        sensitivity=sensitivity,
    )
    model = run.explainer.model
    upstream = {role: about_upstream(run.folder.parent / k) for role, k in spec.upstream.items()}
    return RunRecord(
        key=spec.key,
        spec=spec,
        attempt=attempt,
        selected={},
        data=about_data(run.data),
        method=about_method(spec, model),
        seconds=Timing(training=0.0, evaluation=round(run.seconds, 3), total=round(run.seconds, 3)),
        steps=0,
        stopped_early=False,
        images_per_second=0.0,
        peak_memory_bytes=run.peak_memory(),
        parameters=sum(p.numel() for p in run.explainer.owner.network.parameters()),
        machine=MachineSummary(
            **vars(run.conditions), host=socket.gethostname(), resumed=tuple(run.resumed)
        ),
        started=started,
        finished=time.time(),
        upstream=upstream,
        measurement=summary,
    )


def _split_summary(
    run: MeasurementRun, name: str, arrays: Mapping[str, np.ndarray]
) -> MeasuredSplit:
    rows = arrays[f"{name}/row"]
    means: dict[str, float | None] = {}
    undefined: dict[str, int] = {}
    for metric in run.metrics:
        if f"{name}/{metric}" in arrays:
            defined = arrays[f"{name}/{metric}/defined"]
            values = arrays[f"{name}/{metric}"][defined]
            means[metric] = float(values.mean()) if len(values) else None
            undefined[metric] = int((~defined).sum())
    return MeasuredSplit(len(rows), image_digest(run.splits[name].arrays, rows), means, undefined)


def image_digest(split: Split, rows: np.ndarray) -> str:
    """Return the SHA-256 of images, their labels and their masks."""
    found = hashlib.sha256()
    for array in (split.image, split.label, split.mask):
        if array is not None:
            found.update(np.ascontiguousarray(array[rows]).tobytes())
    return found.hexdigest()


def _commit(
    run: MeasurementRun,
    attempt: int,
    record: RunRecord,
    arrays: Mapping[str, np.ndarray],
    gallery: Mapping[str, np.ndarray],
) -> RunOutcome:
    """Write all files; the lease is checked after everything that is slow."""
    folder = RunFolder(run.folder)
    with StagedFiles() as files:
        if arrays:
            files.add(folder.explanations, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
        if gallery:
            files.add(folder.heatmaps, lambda file: np.savez_compressed(file, **gallery))  # type: ignore[arg-type]
        record = replace(record, checksums=files.checksums())
        content = to_json(record.to_json(), indent=None)
        RunRecord.from_json(json.loads(content))  # check that the record can be read
        files.add(folder.log, run.log.text.encode())
        if run.stop() == AttemptEnd.LEASE_LOST:
            raise InterruptedRunError(AttemptEnd.LEASE_LOST)
        if folder.record.exists():
            return RunOutcome.SETTLED
        files.publish()
    if not commit_once(folder.record, content):
        return RunOutcome.SETTLED
    tidy(folder, attempt)
    return RunOutcome.DONE
