"""Devices and data that a command needs before it computes anything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from benchmark.core.named_options import NamedOptions
from benchmark.core.registry import DATASETS
from benchmark.core.terminal import say
from benchmark.launch.gpus import VISIBLE, find_gpus, require_gpus
from benchmark.launch.slots import Placement, Slot


def pick_device(wanted: str) -> str:
    """Return ``"cpu"`` or ``"cuda"`` for a run in this process, without using CUDA.

    If some GPUs cannot be used, CUDA_VISIBLE_DEVICES is set to the first one that can.

    Args:
        wanted: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        UserError: a GPU was requested and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    gpus = require_gpus() if wanted == "cuda" else find_gpus()
    if gpus.note:
        say(f"note: {gpus.note}", error=True)
    if gpus.usable and gpus.problems:
        os.environ[VISIBLE] = gpus.usable[0]
    return "cuda" if gpus.usable else "cpu"


def local_slots(placement: Placement) -> list[Slot]:
    """Return the slots of this machine, and report GPUs that cannot be used.

    Raises:
        UserError: a GPU was requested and there is none.
    """
    slots = placement.local_slots()
    if placement.device != "cpu" and find_gpus().note:
        say(f"note: {find_gpus().note}", error=True)
    return slots


def download(datasets: Iterable[NamedOptions], folder: Path) -> None:
    """Download the data sets that can be downloaded.

    Raises:
        UserError: a data set cannot be downloaded automatically, or the download failed.
    """
    for named in datasets:
        kind = DATASETS.get(named.name)
        options = {
            k: kind.options[k].parse(k, v) for k, v in named.options.items() if k in kind.options
        }
        kind(folder, **options).download()
