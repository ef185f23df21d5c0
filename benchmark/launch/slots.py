"""Where runs run: a slot is a device and a set of CPU cores."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError, shown
from benchmark.launch.gpus import find_gpus, require_gpus

#: Runs at a time at most, on one machine or on one GPU.
MOST_WORKERS = 1024


@dataclass(frozen=True)
class Slot:
    """One place for one run at a time.

    Args:
        index: number of the slot, from 0.
        device: ``"cpu"`` or ``"cuda"``.
        gpu: what CUDA_VISIBLE_DEVICES must say, or None on the CPU.
        cores: the cores that the run may use.
        threads: how many threads PyTorch uses.
        share: how many slots the device has; each may use 1/share of a GPU's memory.
    """

    index: int
    device: str
    gpu: str | None
    cores: tuple[int, ...]
    threads: int
    share: int = 1

    @property
    def place(self) -> str:
        """The device that slots have in common, in words."""
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"


def slots(device: str = "auto", workers: int | None = None, per_gpu: int = 1) -> list[Slot]:
    """The slots of this machine.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for GPUs where there are any that PyTorch can use.
        workers: at most so many slots; by default one per core, or ``per_gpu`` per GPU.
        per_gpu: slots per GPU.

    Raises:
        UserError: a number below 1, an unknown device, or no GPU where one was asked for.
    """
    check_request(device, workers, per_gpu)
    gpus: tuple[str, ...] = ()
    if device != "cpu":
        gpus = (require_gpus() if device == "cuda" else find_gpus()).usable
    cores = available_cores()
    if not gpus:
        count = workers or min(len(cores), cpu_quota() or len(cores))
        return [
            Slot(i, "cpu", None, part, max(1, len(cores) // count), count)
            for i, part in _parts(cores, count)
        ]
    # the first round gives every GPU one run, the next a second one
    places = [gpu for _ in range(per_gpu) for gpu in gpus][:workers]
    threads = max(1, len(cores) // len(places))
    return [
        Slot(i, "cuda", places[i], part, threads, places.count(places[i]))
        for i, part in _parts(cores, len(places))
    ]


def check_request(device: str, workers: int | None, per_gpu: int) -> None:
    """Check what was asked for without asking the machine; see ``slots``.

    Raises:
        UserError: a number below 1, or an unknown device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {device!r}, expected auto, cpu or cuda.")
    for name, value in (("workers", workers), ("per-gpu", per_gpu)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")
        if value is not None and value > MOST_WORKERS:
            raise UserError(f"{name} is {shown(value)}, expected at most {MOST_WORKERS:,}.")


def available_cores() -> tuple[int, ...]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """How many cores' worth of time a container grants, rounded up, or None where it sets no limit."""
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


def _parts(cores: Sequence[int], count: int) -> list[tuple[int, tuple[int, ...]]]:
    """``count`` even shares of the cores; more shares than cores take turns."""
    if count >= len(cores):
        return [(i, (cores[i % len(cores)],)) for i in range(count)]
    edges = [i * len(cores) // count for i in range(count + 1)]
    return [(i, tuple(cores[edges[i] : edges[i + 1]])) for i in range(count)]
