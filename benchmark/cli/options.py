"""Options that several command lines share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmark.core.errors import shown
from benchmark.core.files import check_folder
from benchmark.core.named_options import NamedOptions
from benchmark.core.registry import DATASETS
from benchmark.core.terminal import say
from benchmark.launch.gpus import VISIBLE, find_gpus, require_gpus
from benchmark.launch.slots import Placement, Slot

#: Where data sets are looked for when --data-dir is not given.
DATA_VARIABLE = "SHORTCUTBED_DATA"


#: Seconds between two checkpoints at most: a week.
LONGEST_CHECKPOINT = 7 * 24 * 3600


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """An argparse type: a number of that kind from ``low`` to ``high``."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(low) - 1
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not {what} from {low:,.0f} to {high:,.0f}"
            )
        return value

    return read


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Where data are, and where and how to run."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"downloaded data sets; default: ${DATA_VARIABLE}, else data",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch missing data sets that may be fetched; never done unasked",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=number(float, 0, LONGEST_CHECKPOINT),
        default=60.0,
        metavar="S",
        help="work that a kill may cost; default: 60",
    )


def data_dir(given: argparse.Namespace) -> Path:
    """The folder of downloaded data: the option, else the environment, else ``data``; it need not exist.

    Raises:
        UserError: it is a file, or a link that leads nowhere.
    """
    folder: Path = given.data_dir or Path(os.environ.get(DATA_VARIABLE) or "data")
    check_folder(folder, "--data-dir")
    return folder


def pick_device(wanted: str) -> str:
    """``cpu`` or ``cuda``, for a run in this process; no CUDA context is made here.

    Where a GPU cannot be used, CUDA_VISIBLE_DEVICES is set to the first one that can.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    found = require_gpus() if wanted == "cuda" else find_gpus()
    if found.note:
        say(f"note: {found.note}", error=True)
    if found.usable and found.problems:
        os.environ[VISIBLE] = found.usable[0]
    return "cuda" if found.usable else "cpu"


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
    """Fetch those of the data sets that know how.

    Raises:
        UserError: a data set has no files to fetch in an unattended way, or the fetching failed.
    """
    for named in datasets:
        kind = DATASETS.get(named.name)
        options = {
            k: kind.options[k].parse(k, v) for k, v in named.options.items() if k in kind.options
        }
        kind(folder, **options).download()
