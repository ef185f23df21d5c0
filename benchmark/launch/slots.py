"""The places for runs on this machine: a slot is a device and a set of CPU cores."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError, shown
from benchmark.launch.gpus import find_gpus, require_gpus

#: The largest number of runs at a time, on one machine or on one GPU.
MAX_WORKERS = 1024
#: The variable that tells a worker how many cores it may use, where it sees more.
CORES = "SHORTCUTBED_CORES"


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Args:
        index: the number of the slot, from 0.
        device: ``"cpu"`` or ``"cuda"``.
        gpu: the value of CUDA_VISIBLE_DEVICES, or None on the CPU.
        cores: the cores that the run may use.
        threads: the number of threads that PyTorch uses.
        share: the number of slots on the device; each may use 1/share of the memory of a GPU.
    """

    index: int
    device: str
    gpu: str | None
    cores: tuple[int, ...]
    threads: int
    share: int = 1

    @property
    def device_name(self) -> str:
        """The name of the device, which slots on the same device share."""
        return "the CPU" if self.gpu is None else f"GPU {self.gpu}"


@dataclass(frozen=True)
class Placement:
    """The devices that a user wants to use.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for the GPUs if PyTorch can use any.
        workers: the largest number of runs at a time; by default one per core, or ``per_gpu`` per
            GPU.
        per_gpu: the number of runs at a time on each GPU.

    Raises:
        UserError: an unknown device, or a number out of range.
    """

    device: str = "auto"
    workers: int | None = None
    per_gpu: int = 1

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device is {self.device!r}, expected auto, cpu or cuda.")
        for name, value in (("workers", self.workers), ("per-gpu", self.per_gpu)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}, expected at least 1.")
            if value is not None and value > MAX_WORKERS:
                raise UserError(f"{name} is {shown(value)}, expected at most {MAX_WORKERS:,}.")

    def local_slots(self) -> list[Slot]:
        """Return the slots of this machine.

        Raises:
            UserError: a GPU was requested and there is none.
        """
        gpus: tuple[str, ...] = ()
        if self.device != "cpu":
            gpus = (require_gpus() if self.device == "cuda" else find_gpus()).usable
        return self._gpu_slots(gpus) if gpus else self._cpu_slots()

    def _cpu_slots(self) -> list[Slot]:
        cores = available_cores()
        granted = min(len(cores), cpu_quota() or len(cores), granted_cores() or len(cores))
        count = self.workers or granted
        threads = max(1, granted // count)
        return [
            Slot(i, "cpu", gpu=None, cores=part, threads=threads, share=count)
            for i, part in enumerate(_split(cores, count))
        ]

    def _gpu_slots(self, gpus: Sequence[str]) -> list[Slot]:
        cores = available_cores()
        # The first round gives one run to each GPU, the next round a second one.
        assigned = [gpu for _ in range(self.per_gpu) for gpu in gpus][: self.workers]
        granted = min(len(cores), cpu_quota() or len(cores), granted_cores() or len(cores))
        threads = max(1, granted // len(assigned))
        return [
            Slot(i, "cuda", gpu, cores=part, threads=threads, share=assigned.count(gpu))
            for i, (gpu, part) in enumerate(
                zip(assigned, _split(cores, len(assigned)), strict=True)
            )
        ]


def available_cores() -> tuple[int, ...]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return how many cores' worth of time a container grants, rounded up; None if unlimited."""
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


def granted_cores() -> int | None:
    """Return how many cores a cluster has granted to this worker, or None outside of a cluster.

    A worker may see all cores of its machine: jobs of Slurm do without task/affinity or cgroups,
    and tasks of Ray always do.
    """
    for name in (CORES, "SLURM_CPUS_PER_TASK"):
        granted = os.environ.get(name, "")
        if granted.isdecimal() and int(granted):
            return int(granted)
    return None


def _split(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Split the cores into ``count`` even parts; if there are too few, parts share cores."""
    if count >= len(cores):
        return [(cores[i % len(cores)],) for i in range(count)]
    edges = [i * len(cores) // count for i in range(count + 1)]
    return [tuple(cores[edges[i] : edges[i + 1]]) for i in range(count)]
