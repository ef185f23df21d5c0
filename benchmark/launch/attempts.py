"""The numbered tries of a run, and how each ended.

``attempts/<n>/ended.json`` says why a try ended that left neither a record nor a failure:
``{"reason": "signal" | "exit" | "timeout" | "out_of_memory" | "interrupted" | "lease lost", …}``.
A try without one was lost with its launcher or its machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.core.files import read_json, to_json
from benchmark.core.record import ATTEMPTS, FAILURE

ENDED = "ended.json"

#: How often a run is tried again after a signal, a time limit or an exit code that nobody asked for.
RETRIES = 3
#: Ends of a try that count towards RETRIES; what a launcher does on purpose does not, nor a try that was lost with it.
COUNTED = frozenset({"signal", "exit", "timeout"})


def numbers(folder: Path) -> list[int]:
    """The numbers of all tries of a run, ascending."""
    try:
        names = os.listdir(folder / ATTEMPTS)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def begin(folder: Path) -> int:
    """Make the folder of the next try, which nobody else has, and return its number, from 1."""
    (folder / ATTEMPTS).mkdir(exist_ok=True)
    number = max(numbers(folder), default=0) + 1
    while True:
        try:
            (folder / ATTEMPTS / str(number)).mkdir()
            return number
        except FileExistsError:
            number += 1


def end(folder: Path, number: int, reason: str, **more: Any) -> None:
    """Note why a try ended; the first note stands.

    Written in one piece rather than atomically: a torn note counts as none, and a kill leaves no temporary file.
    """
    with (
        suppress(FileExistsError),
        (folder / ATTEMPTS / str(number) / ENDED).open("xb", buffering=0) as file,
    ):
        file.write(to_json({"reason": reason, **more}))


def reason_of(folder: Path, number: int) -> str | None:
    """Why a try ended, or None if it is under way, committed, failed or lost."""
    try:
        return str(read_json(folder / ATTEMPTS / str(number) / ENDED)["reason"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def count(folder: Path, reasons: Collection[str]) -> int:
    """How many tries ended for one of ``reasons`` since the run last failed; ``retry`` starts the count anew."""
    found = 0
    for number in reversed(numbers(folder)):
        if (folder / ATTEMPTS / str(number) / FAILURE).exists():
            break
        found += reason_of(folder, number) in reasons
    return found
