"""How a sweep stands and how far its runs are, read from the folder alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.files import parse_json, read_json
from benchmark.core.layout import RunFolder, State, SweepFolder, state_of
from benchmark.launch.attempts import numbers
from benchmark.launch.run_queue import read_node

#: How much of a log is read from its end, bytes; one line is a few kilobytes at most.
_TAIL = 1 << 16


@dataclass(frozen=True)
class Progress:
    """How far a run is, or why it failed.

    Args:
        step, steps: steps made and budgeted; both 0 where nothing has been logged.
        images_per_second: of training, at the last line of the log.
        seconds: spent so far, over all attempts that counted.
        seconds_left: for the steps that are left, at the pace of the last line; None where it cannot be told.
        attempt: number of the newest try, or 0.
        reason: why the run failed, or an empty text.
    """

    step: int = 0
    steps: int = 0
    images_per_second: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    attempt: int = 0
    reason: str = ""

    @property
    def fraction(self) -> float:
        return min(1.0, self.step / self.steps) if self.steps else 0.0


def sweep_states(folder: Path, keys: Sequence[str]) -> dict[str, State]:
    """The state of every run of a sweep; a run that waits for a failed one, however indirectly, is blocked.

    Raises:
        UserError: the spec.json of a run that is not done is missing or damaged.
    """
    known: dict[str, State] = {}

    def state(key: str) -> State:
        if key not in known:
            found = state_of(SweepFolder(folder).run(key).path)
            known[key] = found  # before looking further: a circle ends here
            if found in (State.PENDING, State.LOST):
                needed = [state(upstream) for upstream in _upstream(folder, key)]
                if State.FAILED in needed or State.BLOCKED in needed:
                    known[key] = State.BLOCKED
        return known[key]

    return {key: state(key) for key in keys}


@functools.cache  # a run's key is the hash of its spec: the answer never changes, and `status` asks every second
def _upstream(folder: Path, key: str) -> tuple[str, ...]:
    return read_node(folder, key).upstream


def progress(folder: Path) -> Progress:
    """How far a run is, from its newest log; a torn last line counts as not written."""
    tries = numbers(folder)
    attempt = tries[-1] if tries else 0
    run = RunFolder(folder)
    lines = _last_lines(run.attempt(attempt).log) or _last_lines(run.log)
    reason = failure_reason(folder) if run.failure.exists() else ""
    if not lines:
        return Progress(attempt=attempt, reason=reason)
    last = lines[-1]
    step, steps, seconds = (
        int(last["step"]),
        int(last.get("steps", 0)),
        float(last.get("seconds", 0.0)),
    )
    before = lines[-2] if len(lines) > 1 else {"step": 0, "seconds": 0.0}
    moved, spent = step - int(before["step"]), seconds - float(before.get("seconds", 0.0))
    left = None
    if moved > 0 and spent >= 0:
        left = max(0, steps - step) * spent / moved
    return Progress(
        step, steps, float(last.get("images_per_second", 0.0)), seconds, left, attempt, reason
    )


def failure_reason(folder: Path) -> str:
    """The sentence in a run's failure.json."""
    path = RunFolder(folder).failure
    try:
        return str(read_json(path)["message"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        return f"{path} is damaged"


def _last_lines(path: Path) -> list[dict[str, Any]]:
    """The last two whole lines of a log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            rows = file.read().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: list[dict[str, Any]] = []
    for row in reversed(rows[:-1]):  # what follows the last newline is torn or empty
        try:
            line = parse_json(row)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            found.insert(0, line)
        if len(found) == 2:
            break
    return found
