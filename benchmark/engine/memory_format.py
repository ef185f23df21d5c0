"""Chooses the memory format of a run whose spec has ``channels_last = "auto"``.

A few steps of its backbone are timed in both formats on the device of the run. The ratio is kept in
the cache folder, so that the other runs on such a machine make the same choice.
"""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmark.core.cache_folder import cache_folder
from benchmark.core.conditions import Conditions
from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import DamagedError
from benchmark.core.files import commit_once, read_json, to_json, write_atomic
from benchmark.core.registry import BACKBONES
from benchmark.core.spec import RunSpec
from benchmark.engine.build import autocast, network_factory
from benchmark.engine.device_errors import is_device_error
from benchmark.models.base import pixels_inside

#: Channels last is chosen if a step takes at most this share of the time in the default format.
CLEARLY_FASTER = 0.95
#: Steps in each format before the clock starts, and timed ones.
WARM_UP = 2
ROUNDS = 9
#: After this many seconds no further round is timed, if there were at least ``FEWEST_ROUNDS``.
MAX_SECONDS = 10.0
FEWEST_ROUNDS = 3
#: Pixels of the images of a step on a CPU, so that a measurement does not take minutes there.
MAX_CPU_PIXELS = 16 * 224 * 224
#: Folder of the ratios in the cache folder, and the largest size of a file in it.
FOLDER = "memory_format"
_FILE_BYTES = 1 << 16


@dataclass(frozen=True)
class Workload:
    """What the ratio of times depends on, besides the machine.

    Args:
        build: Makes the backbone, on the CPU.
        image_size: (C, H, W) of the images.
        images: Number of images of a step.
        autocast: Makes the context of forward passes.
    """

    build: Callable[[], nn.Module]
    image_size: tuple[int, int, int]
    images: int
    autocast: Callable[[], AbstractContextManager[Any]]


def with_memory_format(
    conditions: Conditions,
    spec: RunSpec,
    info: DatasetInfo,
    device: torch.device,
    data_dir: Path | None = None,
) -> Conditions:
    """Return the conditions of a run, with its memory format if the spec leaves that open.

    A choice that the conditions already have, since the run is resumed, is kept. With compilation,
    and without training steps, nothing is measured and the default format is chosen. A measurement
    that fails chooses it, too, and is not stored.

    Args:
        conditions: The conditions so far.
        spec: The run.
        info: The description of its data set.
        device: Where it runs. PyTorch is set up as for the run.
        data_dir: The folder of downloaded data sets, which has the cache folder.
    """
    compute = spec.compute_options
    if compute.channels_last != "auto" or conditions.channels_last is not None:
        return conditions
    if compute.compile or spec.training_budget.steps == 0:
        return conditions.with_channels_last(False, None)
    fewest = BACKBONES.get(spec.backbone).fewest_rows(info.image_size, spec.backbone_options)
    work = Workload(
        build=network_factory(spec, info, untrained=True),
        image_size=info.image_size,
        images=max(int(spec.hparams["batch_size"]), fewest),
        autocast=autocast(device, compute.precision),
    )
    path = cache_folder(data_dir) / FOLDER / f"{_digest(conditions, spec, info)}.json"
    try:
        ratio = _stored_ratio(path)
        if ratio is None:
            ratio = _store(path, time_ratio(work, device))
    except Exception as error:
        if is_device_error(error):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        print(
            f"channels_last = 'auto' is off, since no step could be timed ({reason}).",
            file=sys.stderr,
        )
        return conditions.with_channels_last(False, None)
    return conditions.with_channels_last(ratio <= CLEARLY_FASTER, ratio)


def time_ratio(work: Workload, device: torch.device) -> float:
    """Return the time of a step with channels last, relative to one in the default format.

    A step is a forward and a backward pass. The formats take turns, so that a drift in the speed of
    the machine affects both, and the ratio is the median over the turns. The states of the random
    generators are restored.

    Args:
        work: What a step computes.
        device: Where.
    """
    generators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators):
        first = work.build().to(device).train()
        images = work.images
        if device.type == "cpu":
            pixels = pixels_inside(first, *work.image_size[1:])
            images = min(images, max(MAX_CPU_PIXELS // pixels, 2))
        second = copy.deepcopy(first).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image = torch.randn(images, *work.image_size, device=device)

        def seconds(network: nn.Module) -> float:
            started = _clock(device)
            with work.autocast():
                output = network(image)
            F.cross_entropy(output.float(), output.argmax(1)).backward()
            network.zero_grad(set_to_none=True)
            return _clock(device) - started

        for _ in range(WARM_UP):
            seconds(first)
            seconds(second)
        ratios: list[float] = []
        began = time.monotonic()
        while len(ratios) < ROUNDS:
            if len(ratios) % 2:  # so that neither format is always the one that follows
                last = seconds(second)
                default = seconds(first)
            else:
                default = seconds(first)
                last = seconds(second)
            ratios.append(last / max(default, 1e-9))
            if len(ratios) >= FEWEST_ROUNDS and time.monotonic() - began > MAX_SECONDS:
                break
    return round(statistics.median(ratios), 3)


def _clock(device: torch.device) -> float:
    """Return wall seconds, after the work of a GPU; processor seconds on a CPU with one thread.

    Other work on the machine delays a process, but hardly changes its processor time.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _digest(conditions: Conditions, spec: RunSpec, info: DatasetInfo) -> str:
    """Return a name for everything that the ratio depends on."""
    identity: Mapping[str, Any] = {
        "device": conditions.device,
        "threads": conditions.threads,
        "processor": conditions.processor,
        "instructions": conditions.instructions,
        "torch": conditions.versions.get("torch"),
        "settings": conditions.settings,
        "environment": conditions.environment,
        "backbone": spec.backbone,
        "options": spec.backbone_options,
        "outputs": len(info.label_names),
        "image_size": info.image_size,
        "batch_size": spec.hparams["batch_size"],
        "precision": spec.compute_options.precision,
    }
    content = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _stored_ratio(path: Path) -> float | None:
    """Return a ratio that was measured before; None if there is none or its file is damaged."""
    try:
        content = read_json(path, _FILE_BYTES)
    except (OSError, DamagedError):
        return None
    ratio = content.get("ratio") if isinstance(content, dict) else None
    return ratio if type(ratio) is float and 0.0 < ratio < 1e6 else None


def _store(path: Path, ratio: float) -> float:
    """Keep a ratio, and return the one to use: that of a process which stored one meanwhile."""
    content = to_json({"ratio": ratio})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if commit_once(path, content):
            return ratio
        stored = _stored_ratio(path)
        if stored is not None:
            return stored
        write_atomic(path, content)  # the file is damaged
    except OSError as error:
        print(
            f"the measured speed of channels last could not be kept in {path.parent} "
            f"({error.strerror}), so that every run measures it.",
            file=sys.stderr,
        )
    return ratio
