"""Times a few steps of the real training loop on random images of the right shape."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo, GroupedDataset, Split
from benchmark.core.layout import RunFolder
from benchmark.core.registry import BACKBONES
from benchmark.core.spec import RunSpec
from benchmark.engine.build import assemble
from benchmark.engine.exceptions import NonFiniteError
from benchmark.engine.explanations import explain_splits
from benchmark.engine.loop import TrainingRun
from benchmark.models.base import pixels_inside

#: The largest number of timed steps, after one step that warms up.
MAX_STEPS = 3
#: No further step is made after this many seconds.
MAX_SECONDS = 3.0
#: The largest number of images of each split and of their pixels, unless a batch needs more.
MAX_IMAGES = 32
MAX_PIXELS = 8 * 224 * 224


class _TimedRun(TrainingRun):
    """Notes when each batch is requested, and which images are read outside of training steps.

    Attributes:
        marks: the time of each request for a batch.
        images_read: the number of images read outside of training steps, by split.
    """

    marks: list[float]
    images_read: dict[str, int]

    def steps(self) -> Iterator[Batch]:
        for batch in super().steps():
            self.marks.append(self._clock())
            made = len(self.marks) - 1
            if made > MAX_STEPS or (made > 1 and self.marks[-1] - self.marks[1] > MAX_SECONDS):
                return
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
) -> dict[str, float]:
    """Return the seconds that parts of a run take on this device.

    All weights are random. Only a temporary folder is written to.

    Args:
        spec: the run.
        specs: its upstream runs, and theirs, by key.
        infos: the descriptions of their data, by fingerprint.
        batch_size: the number of images per step.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        ``step``: one training step (0 for a method that makes none). ``image``: the evaluation of
        one image. ``look``: one image that the method reads outside of its steps. ``train`` and
        ``val``: how often the method reads each split outside of its steps. ``heatmap``: the
        explanation of one image.
    """
    torch_device = torch.device(device)
    info = infos[spec.data_fingerprint]
    budget = {
        **spec.budget,
        "steps": max(spec.budget["steps"], 2 * MAX_STEPS),
        "evaluate_every": 3 * spec.budget["steps"] + 99,  # never
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
        for name in ("train", "val"):
            run.split(name)  # moves the images to the device before the clock starts
        started = run._clock()
        algorithm.fit(run)
        fitted = run._clock() - started
        run.log_file.close()
        times = _training_times(run, fitted)
        times["image"] = _seconds_per_image(run)
        times["heatmap"] = _seconds_per_heatmap(run)
    del algorithm, run
    gc.collect()
    return times


def _untrained(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    device: torch.device,
) -> Algorithm:
    """Build an algorithm with untrained upstream algorithms, without pretrained weights."""
    upstream = {
        role: _untrained(specs[key], specs, infos, device).eval().requires_grad_(False)
        for role, key in spec.upstream.items()
    }
    if "weights" in BACKBONES.get(spec.backbone).options:
        spec = replace(spec, backbone_options={**spec.backbone_options, "weights": "none"})
    return assemble(spec, infos[spec.data_fingerprint], device, upstream)


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
    )
    return GroupedDataset("noise", {}, info, dict.fromkeys(info.splits, split), "")


def _training_times(run: _TimedRun, fitted: float) -> dict[str, float]:
    """Return the time of a step, and of what ``fit`` did beside its steps.

    Args:
        run: the timed run.
        fitted: the seconds that ``fit`` took.
    """
    steps = [after - before for before, after in zip(run.marks, run.marks[1:], strict=False)]
    images = sum(run.images_read.values())
    times = {
        "step": statistics.median(steps[1:] or steps) if steps else 0.0,
        "look": max(fitted - sum(steps), 0.0) / images if images else 0.0,
    }
    for name in ("train", "val"):
        times[name] = run.images_read.get(name, 0) / run.split(name).size
    return times


def _seconds_per_image(run: TrainingRun) -> float:
    """Return the time to evaluate an image; if it is short, of a second pass."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with suppress(NonFiniteError):  # raised only after all images were evaluated
            run.evaluate_split("val")
        seconds = time.perf_counter() - started
        if seconds > MAX_SECONDS:
            break
    return seconds / run.split("val").size


def _seconds_per_heatmap(run: TrainingRun) -> float:
    """Return the time to explain an image; 0 without masks or without explanations."""
    split = run.split("val")
    if split.mask is None or not run.spec.compute.get("explanations", True):
        return 0.0
    predicted = {"val": np.zeros(split.size, np.int64)}
    started = time.perf_counter()
    explain_splits(run.algorithm, {"val": split}, predicted)
    return (time.perf_counter() - started) / split.size
