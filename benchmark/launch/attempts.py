"""The numbered attempts at a run, and why each ended.

``attempts/<n>/ended.json`` holds ``{"reason": …}`` for an attempt that left neither a record nor a
failure; the reason is one of ``AttemptEnd``. An attempt without this file is still under way, or
was lost together with its launcher or its machine.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.core.files import read_json, to_json
from benchmark.core.layout import RunFolder
from benchmark.core.run_states import AttemptEnd

#: How often a run is tried again after one of ``COUNTED_ENDS``.
MAX_RETRIES = 3
#: Ends that count towards ``MAX_RETRIES``. Requests to stop and attempts that were lost together
#: with their launcher do not count.
COUNTED_ENDS = frozenset({AttemptEnd.SIGNAL, AttemptEnd.EXIT, AttemptEnd.TIMEOUT})
#: Ends after which a run is tried once more, while no other run uses its device.
RETRIED_ALONE = frozenset({AttemptEnd.OUT_OF_MEMORY, AttemptEnd.DEVICE_ERROR})


def numbers(folder: Path) -> list[int]:
    """Return the numbers of all attempts at a run in ascending order."""
    return RunFolder(folder).attempt_numbers()


def latest(folder: Path) -> int:
    """Return the number of the latest attempt at a run, or 0 if there was none."""
    return max(numbers(folder), default=0)


def begin(folder: Path) -> int:
    """Create the folder of the next attempt and return its number, starting from 1."""
    run = RunFolder(folder)
    try:
        run.attempts.mkdir()
        number = 1
    except FileExistsError:
        number = latest(folder) + 1
    while True:
        try:
            run.attempt(number).path.mkdir()
            return number
        except FileExistsError:
            number += 1


def end(folder: Path, number: int, reason: AttemptEnd, **details: Any) -> None:
    """Record why an attempt ended, unless a reason is already recorded.

    The file is not written atomically: a torn file counts as missing, and a process that is killed
    here leaves no temporary file behind.
    """
    path = RunFolder(folder).attempt(number).ended
    with suppress(FileExistsError), path.open("xb", buffering=0) as file:
        file.write(to_json({"reason": reason, **details}))


def reason_of(folder: Path, number: int) -> AttemptEnd | None:
    """Return why an attempt ended, or None if nothing (valid) is recorded."""
    try:
        return AttemptEnd(read_json(RunFolder(folder).attempt(number).ended)["reason"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def count(folder: Path, reasons: Collection[AttemptEnd]) -> int:
    """Count the attempts that ended for one of ``reasons`` since the run last failed.

    ``retry`` moves a failure into the folder of its attempt, where the count restarts.
    """
    total = 0
    for number in reversed(numbers(folder)):
        if RunFolder(folder).attempt(number).failure.exists():
            break
        total += reason_of(folder, number) in reasons
    return total
