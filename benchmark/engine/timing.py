"""What a run will cost: a few steps of the real training loop, on random images of the data's shape, by the clock."""

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

#: Steps that count, at most, and seconds after which no further one is made; one more before them warms up.
STEPS, SECONDS = 3, 3.0
#: Images of each split at least, and their pixels: enough for a passable average, few enough to be quick.
MAX_IMAGES = 32
MAX_PIXELS = 8 * 224 * 224


class _TimedRun(TrainingRun):
    """Notes when each batch is handed out, and what the method looks at outside its steps."""

    marks: list[float]
    looked: dict[str, int]

    def steps(self) -> Iterator[Batch]:
        for batch in super().steps():
            self.marks.append(self._clock())
            made = len(self.marks) - 1
            if made > STEPS or (made > 1 and self.marks[-1] - self.marks[1] > SECONDS):
                return
            yield batch

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        with suppress(
            NonFiniteError
        ):  # untrained networks on noise: the step was made all the same
            self.terms.add(self.step + 1, terms)  # not super().log: it looks closer at first steps

    def batches(self, split: str) -> Iterator[Batch]:
        for batch in super().batches(split):
            self.looked[split] = self.looked.get(split, 0) + len(batch)
            yield batch


def measure(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    batch_size: int,
    device: str,
) -> dict[str, float]:
    """Seconds that parts of a run take on this device.

    Args:
        spec: the run; weights are random here, whatever it starts from. Nothing is written but in a temporary folder.
        specs: by key, its upstream runs and theirs.
        infos: by fingerprint, of their data.
        batch_size: of the steps.

    Returns:
        ``step``: one training step (0 for a method that makes none); ``image``: evaluation of one image; ``look``: what
        one image costs that the method reads outside its steps; ``train``, ``val``: how often it reads each split so;
        ``heatmap``: explanation of one image.
    """
    place = torch.device(device)
    info = infos[spec.data_fingerprint]
    short = replace(spec, hparams={**spec.hparams, "batch_size": batch_size}, budget={
        **spec.budget, "steps": max(spec.budget["steps"], 2 * STEPS), "evaluate_every": 3 * spec.budget["steps"] + 99,
    })  # fmt: skip
    algorithm = _untrained(short, specs, infos, place)
    algorithm.optimizers = algorithm.make_optimizers()
    few = max(min(MAX_IMAGES, MAX_PIXELS // pixels_inside(algorithm, *info.image_size[1:])), 2)
    data = random_data(info, max(few, min(batch_size, 512)))
    with tempfile.TemporaryDirectory() as folder:
        RunFolder(Path(folder)).attempt(1).path.mkdir(parents=True)
        run = _TimedRun(short, algorithm, data, place, Path(folder), 1, float("inf"), lambda: None)
        run.marks, run.looked = [], {}
        run.split("train"), run.split("val")
        started = run._clock()
        algorithm.fit(run)
        fitted = run._clock() - started
        run.log_file.close()
        found = _times(run, fitted)
        found |= {"image": _per_image(run), "heatmap": _per_heatmap(run)}
    del algorithm, run
    gc.collect()
    return found


def _untrained(
    spec: RunSpec,
    specs: Mapping[str, RunSpec],
    infos: Mapping[str, DatasetInfo],
    device: torch.device,
) -> Algorithm:
    """The algorithm on upstream algorithms that have learnt nothing, without pretrained weights."""
    upstream = {
        role: _untrained(specs[key], specs, infos, device).eval().requires_grad_(False)
        for role, key in spec.upstream.items()
    }
    if "weights" in BACKBONES.get(spec.backbone).options:
        spec = replace(spec, backbone_options={**spec.backbone_options, "weights": "none"})
    return assemble(spec, infos[spec.data_fingerprint], device, upstream)


def random_data(info: DatasetInfo, size: int) -> GroupedDataset:
    """Noise with the annotations that ``info`` promises, every group in each split."""
    rng, (_, height, width) = np.random.default_rng(0), info.image_size
    labels, confounders = len(info.label_names), max(len(info.confounder_names), 1)
    size = max(size, labels * confounders * max(len(info.environment_names), 1))
    rows = np.arange(size)
    label, confounder = rows % labels, rows // labels % confounders
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


def _times(run: _TimedRun, fitted: float) -> dict[str, float]:
    """Of a step, and of what ``fit`` did beside its steps."""
    gaps = [b - a for a, b in zip(run.marks, run.marks[1:], strict=False)]
    looked = sum(run.looked.values())
    times = {
        "step": statistics.median(gaps[1:] or gaps) if gaps else 0.0,
        "look": max(fitted - sum(gaps), 0.0) / looked if looked else 0.0,
    }
    return {
        **times,
        **{name: run.looked.get(name, 0) / run.split(name).size for name in ("train", "val")},
    }


def _per_image(run: TrainingRun) -> float:
    """Of evaluation; where it is quick, of a second pass."""
    took = 0.0
    for _ in range(2):
        before = time.perf_counter()
        with suppress(NonFiniteError):  # which is found when all is done
            run.evaluate_split("val")
        took = time.perf_counter() - before
        if took > SECONDS:
            break
    return took / run.split("val").size


def _per_heatmap(run: TrainingRun) -> float:
    """Of the explanations at the end; 0 where there are no masks, or no explanation is wanted."""
    if run.split("val").mask is None or not run.spec.compute.get("explanations", True):
        return 0.0
    few = run.split("val")
    predicted = {"val": np.zeros(few.size, np.int64)}
    before = time.perf_counter()
    explain_splits(run.algorithm, {"val": few}, predicted)
    return (time.perf_counter() - before) / few.size
