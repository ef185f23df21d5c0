"""Times a few steps of the real training loop on random images of the right shape."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.class_masks import (
    ClassMasks,
    LabelledShape,
    RelativeBox,
    SparseClassMasks,
)
from benchmark.core.dataset import DatasetInfo, GroupedDataset, Split
from benchmark.core.layout import RunFolder
from benchmark.core.registry import ALGORITHMS, BACKBONES, EXPLAINERS, EXPLANATION_METRICS
from benchmark.core.run_times import RunTimes
from benchmark.core.spec import RunSpec
from benchmark.engine.build import assemble
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.exceptions import NonFiniteError
from benchmark.engine.explanations import explain_splits, has_masks
from benchmark.engine.flops import FlopCounter
from benchmark.engine.loop import TrainingRun
from benchmark.engine.measure_explanations import ModelExplainer, time_explanations
from benchmark.models.base import pixels_inside

#: The largest number of timed steps, after one step that warms up.
MAX_STEPS = 3
#: No further step or pass is made after this many seconds.
MAX_SECONDS = 1.0
#: A first step that takes longer than this many seconds is timed itself, and no other is made.
LONG_STEP_SECONDS = 5.0
#: The largest number of images of each split and of their pixels, unless a batch needs more.
MAX_IMAGES = 32
MAX_PIXELS = 2 * 224 * 224
#: The largest number of images whose explanation is measured, and of repetitions within it.
MAX_EXPLAINED = 4
MAX_REPETITIONS = 16


class _TimedRun(TrainingRun):
    """Notes when each batch is requested, and which images are read outside of training steps.

    Attributes:
        marks: the time of each request for a batch.
        images_read: the number of images read outside of training steps, by split.
        flops: counts the operations of the first step.
    """

    marks: list[float]
    images_read: dict[str, int]
    flops: FlopCounter

    def steps(self) -> Iterator[Batch]:
        for batch in super().steps():
            self.marks.append(self._clock())
            made = len(self.marks) - 1
            if made > MAX_STEPS or (made > 1 and self.marks[-1] - self.marks[1] > MAX_SECONDS):
                return
            if made == 1 and self.marks[1] - self.marks[0] > LONG_STEP_SECONDS:
                return
            is_counted = made == 0 and not self.spec.compute_options.compile
            with self.flops if is_counted else nullcontext():
                yield batch

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        # Not super().log, which checks the first steps more closely. An untrained network may well
        # give NaN on noise.
        with suppress(NonFiniteError):
            self.terms.add(self.step + 1, terms)

    def batches(self, split: str) -> Iterator[Batch]:
        for batch in super().batches(split):
            self.images_read[split] = self.images_read.get(split, 0) + len(batch)
            yield batch


def measure(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    batch_size: int,
    device: str,
) -> RunTimes:
    """Return the seconds that parts of a run take on this device.

    All weights are random. Only a temporary folder is written to.

    Args:
        spec: the run.
        specs: its upstream runs, and theirs, by key.
        infos: the descriptions of their data, by fingerprint.
        batch_size: the number of images per step.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        The times. Those of a measurement of explanations have only ``explained`` and ``timed``.
    """
    torch_device = torch.device(device)
    if spec.measurement is not None:
        return _measurement_times(spec, specs, infos, torch_device)
    info = infos[spec.data_fingerprint]
    budget = {
        **spec.budget,
        "steps": max(spec.training_budget.steps, 2 * MAX_STEPS),
        "evaluate_every": 3 * spec.training_budget.steps + 99,  # never
    }
    hparams = {**spec.hparams, "batch_size": batch_size}
    short = replace(spec, hparams=hparams, budget=budget)
    algorithm = _untrained(short, specs, infos, torch_device)
    algorithm.optimizers = algorithm.make_optimizers()
    few = max(min(MAX_IMAGES, MAX_PIXELS // pixels_inside(algorithm, *info.image_size[1:])), 2)
    data = random_data(info, max(few, min(batch_size, 512)))
    with tempfile.TemporaryDirectory() as folder:
        RunFolder(Path(folder)).attempt(1).path.mkdir(parents=True)
        run = _TimedRun(
            short,
            algorithm,
            data,
            torch_device,
            Path(folder),
            attempt=1,
            checkpoint_seconds=float("inf"),
            stop=lambda: None,
        )
        run.marks = []
        run.images_read = {}
        run.flops = FlopCounter()
        for name in ("train", "val"):
            run.split(name)  # moves the images to the device before the clock starts
        started = run._clock()
        algorithm.fit(run)
        fitted = run._clock() - started
        run.log_file.close()
        times = _training_times(run, fitted)
        _shorten_validation(run, few)
        seconds, operations = _cost_per_image(run)
        times = replace(
            times,
            step_flops=run.flops.total / batch_size,
            image=seconds,
            image_flops=operations,
            heatmap=_seconds_per_heatmap(run),
        )
    del algorithm, run
    gc.collect()
    return times


def _untrained(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    device: torch.device,
) -> Algorithm:
    """Build an algorithm with untrained upstream algorithms, without weights from files."""
    upstream = {
        role: _untrained(specs[key], specs, infos, device).eval().requires_grad_(False)
        for role, key in spec.upstream.items()
    }
    options = BACKBONES.get(spec.backbone).without_weights(spec.backbone_options)
    hparams = ALGORITHMS.get(spec.algorithm).without_files(spec.hparams)
    spec = replace(spec, backbone_options=options, hparams=hparams)
    return assemble(spec, infos[spec.data_fingerprint], device, upstream)


def _measurement_times(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    device: torch.device,
) -> RunTimes:
    """Return the times of a measurement of explanations; see ``measure``.

    An explainer that repeats something often does so a few times only, and its time is multiplied.
    """
    measurement = spec.measurement
    assert measurement is not None
    built = {
        role: _untrained(specs[key], specs, infos, device).eval().requires_grad_(False)
        for role, key in spec.upstream.items()
    }
    options = dict(measurement.options)
    repeated = "" if "explainer" in built else EXPLAINERS.get(measurement.explainer).repetitions
    factor = 1.0
    if repeated and options[repeated] > MAX_REPETITIONS:
        factor = options[repeated] / MAX_REPETITIONS
        options[repeated] = MAX_REPETITIONS
    explainer = ModelExplainer(
        built["model"], built.get("explainer"), measurement.explainer, options
    )
    split = DeviceSplit(random_data(infos[spec.data_fingerprint], MAX_EXPLAINED), "val", device)
    rows = np.arange(MAX_EXPLAINED)
    if explainer.mismatch(split.batch(rows[:1]).image):
        return RunTimes()
    seconds = float(time_explanations(explainer, split, rows[:2]).mean())
    metrics = [EXPLANATION_METRICS.get(name)() for name in measurement.metrics]
    started = time.perf_counter()
    explained = explainer.explained(split.batch(rows), "timing")
    explaining = time.perf_counter() - started
    for metric in metrics:
        if metric.is_of_images():
            metric.of(explained)
    measuring = time.perf_counter() - started - explaining
    return RunTimes(
        explained=(factor * explaining + measuring) / len(rows),
        timed=factor * seconds if any(metric.is_timing for metric in metrics) else 0.0,
    )


def random_data(info: DatasetInfo, size: int) -> GroupedDataset:
    """Return random images with the annotations of ``info``; each split contains every group."""
    rng = np.random.default_rng(0)
    _, height, width = info.image_size
    labels = len(info.label_names)
    confounders = max(len(info.confounder_names), 1)
    size = max(size, labels * confounders * max(len(info.environment_names), 1))
    rows = np.arange(size)
    label = rows % labels
    confounder = rows // labels % confounders
    if info.multi_label:
        label = (rows[:, None] + np.arange(labels)) % 2
    environment = rows // (labels * confounders) % max(len(info.environment_names), 1)
    split = Split(
        image=rng.integers(0, 256, (size, *info.image_size), dtype=np.uint8),
        label=label,
        confounder=confounder if info.confounder_names else None,
        environment=environment if info.environment_names else None,
        mask=rng.random((size, 1, height, width)) < 0.3
        if info.provides.masks or info.provides.val_masks
        else None,
        pair_id=rows if info.paired else None,
        class_masks=_random_class_masks(label, info) if info.annotations.class_masks else None,
    )
    return GroupedDataset("noise", {}, info, dict.fromkeys(info.splits, split), "")


def _random_class_masks(label: np.ndarray, info: DatasetInfo) -> ClassMasks:
    """Return a box of every class that an image has."""
    classes = len(info.label_names)
    has = label > 0 if label.ndim == 2 else label[:, None] == np.arange(classes)
    box = RelativeBox(0.2, 0.2, 0.6, 0.6)
    shapes = [[LabelledShape(int(k), box) for k in np.flatnonzero(row)] for row in has]
    return SparseClassMasks(shapes, classes, info.image_size[1:])


def _training_times(run: _TimedRun, fitted: float) -> RunTimes:
    """Return the time of a step, and of what ``fit`` did beside its steps.

    Args:
        run: the timed run.
        fitted: the seconds that ``fit`` took.
    """
    steps = [after - before for before, after in zip(run.marks, run.marks[1:], strict=False)]
    images = sum(run.images_read.values())
    return RunTimes(
        step=statistics.median(steps[1:] or steps) if steps else 0.0,
        look=max(fitted - sum(steps), 0.0) / images if images else 0.0,
        train_passes=run.images_read.get("train", 0) / run.split("train").size,
        val_passes=run.images_read.get("val", 0) / run.split("val").size,
    )


def _shorten_validation(run: TrainingRun, size: int) -> None:
    """Keep the first images of the validation split only."""
    val = run.data.splits["val"]
    arrays: dict[str, Any] = {}
    for array in fields(val):
        value = getattr(val, array.name)
        if isinstance(value, ClassMasks):
            value = value.take(np.arange(min(size, len(val))))
        elif value is not None:
            value = value[:size]
        arrays[array.name] = value
    run.data = replace(run.data, splits={**run.data.splits, "val": Split(**arrays)})
    run._splits["val"] = DeviceSplit(run.data, "val", run.device)


def _cost_per_image(run: TrainingRun) -> tuple[float, float]:
    """Return the seconds and the operations to evaluate an image.

    If the first pass is short, a second one is timed.
    """
    size = run.split("val").size
    counter = FlopCounter()
    seconds = 0.0
    for context in (counter, nullcontext()):
        started = time.perf_counter()
        with context, suppress(NonFiniteError):  # raised only after all images were evaluated
            run.evaluate_split("val")
        seconds = time.perf_counter() - started
        if seconds > MAX_SECONDS:
            break
    return seconds / size, counter.total / size


def _seconds_per_heatmap(run: TrainingRun) -> float:
    """Return the time to explain an image; 0 without masks or without explanations."""
    split = run.split("val")
    if not has_masks(split.arrays) or not run.spec.compute_options.explanations:
        return 0.0
    predicted = {"val": np.zeros(split.size, np.int64)}
    started = time.perf_counter()
    explain_splits(run.algorithm, {"val": split}, predicted)
    return (time.perf_counter() - started) / split.size
