"""Options and checks that several command lines share."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.core.errors import shown
from benchmark.core.files import check_folder

#: The environment variable with the folder of downloaded data, for when --data-dir is not given.
DATA_VARIABLE = "SHORTCUTBED_DATA"

#: What ``sweep list`` can list; ``listing.LISTS`` has a function for each.
LISTED = (
    "algorithms",
    "datasets",
    "backbones",
    "explainers",
    "launchers",
    "trackers",
    "sweeps",
    "criteria",
)

#: The largest number of seconds between two checkpoints: a week.
MAX_CHECKPOINT_SECONDS = 7 * 24 * 3600


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    """Return an argparse type: a number of a kind from ``low`` to ``high``, both included."""

    def read(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(low) - 1
        if not low <= value <= high:
            expected = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not {expected} from {low:,.0f} to {high:,.0f}"
            )
        return value

    return read


def time_span(text: str) -> float:
    """Return the seconds of ``90``, ``12:00:00`` or ``2-12:00:00``; an argparse type."""
    match = re.fullmatch(r"(?:(?:(\d{1,3})-)?(\d{1,3}):([0-5]\d):([0-5]\d)|(\d{1,8}))", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not a time; expected seconds or [DAYS-]HH:MM:SS"
        )
    days, hours, minutes, seconds, only = (int(part or 0) for part in match.groups())
    return float(only or ((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder of downloaded data."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"read data sets from this folder; default: ${DATA_VARIABLE}, or data if it is unset",
    )


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Add the options for data, device and checkpoints."""
    add_data_dir(parser)
    parser.add_argument(
        "--download",
        action="store_true",
        help="download missing data sets whose licence allows it",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device to use; auto: the GPUs if there are any, otherwise the CPU; default: auto",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=number(float, 0, MAX_CHECKPOINT_SECONDS),
        default=60.0,
        metavar="SECONDS",
        help="save a checkpoint at this interval; default: 60",
    )


def add_log(parser: argparse.ArgumentParser) -> None:
    """Add the option that names trackers."""
    parser.add_argument(
        "--log",
        nargs="+",
        default=[],
        metavar="TRACKER",
        help="also log the runs to tensorboard, wandb or mlflow; see `sweep list trackers`",
    )


def data_dir(given: argparse.Namespace) -> Path:
    """Return the folder of downloaded data, which need not exist.

    The option comes first, then the environment variable, then ``data``.

    Raises:
        UserError: it is a file or a dangling link.
    """
    folder: Path = given.data_dir or Path(os.environ.get(DATA_VARIABLE) or "data")
    check_folder(folder, "--data-dir")
    return folder
