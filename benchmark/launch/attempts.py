"""The numbered tries of a run, and how each ended.

``attempts/<n>/ended.json`` says why a try ended that left neither a record nor a failure:
``{"reason": "signal" | "exit" | "timeout" | "out_of_memory" | "interrupted" | "lease lost", …}``.
A try without one was lost with its launcher or its machine.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.core.files import read_json, to_json
from benchmark.core.layout import RunFolder

#: How often a run is tried again after a signal, a time limit or an exit code that nobody asked for.
RETRIES = 3
#: Ends of a try that count towards RETRIES; what a launcher does on purpose does not, nor a try that was lost with it.
COUNTED = frozenset({"signal", "exit", "timeout"})


def numbers(folder: Path) -> list[int]:
    """The numbers of all tries of a run, ascending."""
    return RunFolder(folder).attempt_numbers()


def begin(folder: Path) -> int:
    """Make the folder of the next try, which nobody else has, and return its number, from 1."""
    run = RunFolder(folder)
    run.attempts.mkdir(exist_ok=True)
    number = max(numbers(folder), default=0) + 1
    while True:
        try:
            run.attempt(number).path.mkdir()
            return number
        except FileExistsError:
            number += 1


def end(folder: Path, number: int, reason: str, **more: Any) -> None:
    """Note why a try ended; the first note stands.

    Written in one piece rather than atomically: a torn note counts as none, and a kill leaves no temporary file.
    """
    path = RunFolder(folder).attempt(number).ended
    with suppress(FileExistsError), path.open("xb", buffering=0) as file:
        file.write(to_json({"reason": reason, **more}))


def reason_of(folder: Path, number: int) -> str | None:
    """Why a try ended, or None if it is under way, committed, failed or lost."""
    try:
        return str(read_json(RunFolder(folder).attempt(number).ended)["reason"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def count(folder: Path, reasons: Collection[str]) -> int:
    """How many tries ended for one of ``reasons`` since the run last failed; ``retry`` starts the count anew."""
    found = 0
    for number in reversed(numbers(folder)):
        if RunFolder(folder).attempt(number).failure.exists():
            break
        found += reason_of(folder, number) in reasons
    return found
