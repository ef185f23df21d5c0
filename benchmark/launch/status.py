"""The states of the runs of a sweep and their progress, read from the sweep folder alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.decode import decode
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.failure import read_failure
from benchmark.core.files import JSON_BYTES, parse_json, require_file
from benchmark.core.layout import (
    SPEC_NAME,
    RunFolder,
    State,
    SweepFolder,
    names_in,
    state_from_names,
)
from benchmark.core.log_progress import LogProgress
from benchmark.core.run_states import WITHOUT_RESULT, blocked_runs
from benchmark.core.spec import is_unchanged, read_spec, read_upstream
from benchmark.core.sweep_plan import PlannedEntry
from benchmark.launch.attempts import latest

#: Bytes that are read from the end of a log; a line has a few kilobytes at most.
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Progress:
    """The progress of a run, or the reason why it failed.

    Args:
        step: the number of steps made; 0 if nothing has been logged.
        steps: the number of steps in the budget; 0 if nothing has been logged.
        images_per_second: the training speed in the last line of the log.
        seconds_left: the time for the remaining steps at the current pace; None if unknown.
        attempt: the number of the latest attempt, or 0.
        reason: why the run failed; empty if it did not.
    """

    step: int = 0
    steps: int = 0
    images_per_second: float = 0.0
    seconds_left: float | None = None
    attempt: int = 0
    reason: str = ""

    @property
    def fraction(self) -> float:
        """Return the share of the steps that are made, from 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


@dataclass(frozen=True)
class SweepStates:
    """The states of the runs of a sweep.

    Args:
        by_key: the state of every run.
        without_spec: the pending runs whose spec.json is missing.
    """

    by_key: Mapping[str, State]
    without_spec: frozenset[str]


def sweep_states(
    folder: Path, keys: Sequence[str], entries: Mapping[str, PlannedEntry] | None = None
) -> SweepStates:
    """Return the states of the runs of a sweep.

    A run that waits for a failed one, directly or not, is blocked. A run whose spec.json is
    damaged is unreadable. One whose spec.json is missing is pending, since planning writes the
    list of runs first; see ``problem_of``.

    Args:
        folder: Folder of the sweep.
        keys: Keys of the runs.
        entries: Entries of runs in the plan of the sweep, by key. A spec.json that is unchanged
            since planning then need not be parsed.
    """
    runs = os.fspath(SweepFolder(folder).runs)
    states: dict[str, State] = {}
    without_spec: set[str] = set()
    upstream: dict[str, tuple[str, ...]] = {}
    unread = list(keys)
    entries = {} if entries is None else entries
    while unread:
        key = unread.pop()
        if key in states:
            continue
        path = f"{runs}{os.sep}{key}"  # several times as fast as os.path.join
        names = names_in(path)
        state = states[key] = state_from_names(path, names)
        if state is State.PENDING and SPEC_NAME not in names:
            without_spec.add(key)
        elif state is State.PENDING or state is State.LOST:
            needed = _upstream(path, entries.get(key))
            if needed is None:
                states[key] = State.UNREADABLE
            elif needed:
                upstream[key] = needed
                unread.extend(needed)
    without_result = {key for key, state in states.items() if state in WITHOUT_RESULT}
    states.update(dict.fromkeys(blocked_runs(upstream, upstream, without_result), State.BLOCKED))
    return SweepStates({key: states[key] for key in keys}, frozenset(without_spec))


def problem_of(folder: Path) -> str:
    """Return what is wrong with the spec.json of a run that is not done; empty if nothing is."""
    try:
        read_spec(folder)
    except FileNotFoundError:
        return f"{RunFolder(folder).spec} is missing; launch the sweep again, which writes it"
    except (OSError, UserError) as error:
        return str(error).removesuffix(".")
    return ""


#: Upstream keys by folder of a run. They never change, since the name of the folder is a hash of
#: the spec, and ``status`` asks for them every second.
_known_upstream: dict[str, tuple[str, ...]] = {}


def _upstream(folder: str, entry: PlannedEntry | None) -> tuple[str, ...] | None:
    """Return the keys of the runs that a run needs.

    Args:
        folder: Folder of the run.
        entry: Its entry in the plan, or None.

    Returns:
        The keys; an empty tuple if the spec is missing, None if it is damaged.
    """
    known = _known_upstream.get(folder)
    if known is None:
        try:
            known = _planned_upstream(folder, entry)
            if known is None:
                known = read_upstream(folder)
        except FileNotFoundError:
            return ()
        except (OSError, UserError):
            return None
        _known_upstream[folder] = known
    return known


def _planned_upstream(folder: str, entry: PlannedEntry | None) -> tuple[str, ...] | None:
    """Return what the plan says of the upstream runs if spec.json is as planning wrote it."""
    if entry is None or entry.upstream is None or entry.spec_digest is None:
        return None
    return entry.upstream if is_unchanged(folder, entry.spec_digest) else None


def progress(folder: Path) -> Progress:
    """Read the progress of a run from its latest log; a torn last line is ignored."""
    run = RunFolder(folder)
    attempt = latest(folder)
    reason = failure_reason(folder) if run.failure.exists() else ""
    lines = _last_lines(run.attempt(attempt).log) or _last_lines(run.log)
    if not lines:
        return Progress(attempt=attempt, reason=reason)
    last = lines[-1]
    previous = lines[-2] if len(lines) > 1 else LogProgress(0)
    steps = last.step - previous.step
    seconds = last.seconds - previous.seconds
    seconds_left = None
    if steps > 0 and seconds >= 0:
        seconds_left = max(0, last.steps - last.step) * seconds / steps
    return Progress(
        step=last.step,
        steps=last.steps,
        images_per_second=last.images_per_second,
        seconds_left=seconds_left,
        attempt=attempt,
        reason=reason,
    )


def failure_reason(folder: Path) -> str:
    """Return the message of a run's failure.json, or what is wrong with that file."""
    try:
        return read_failure(folder).message
    except FileNotFoundError:
        return ""
    except (OSError, UserError) as error:
        return str(error).removesuffix(".")


def _last_lines(path: Path) -> list[LogProgress]:
    """Return the last two complete lines of a log."""
    try:
        require_file(path, JSON_BYTES)
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            rows = file.read().split(b"\n")
    except (OSError, UserError):
        return []
    lines: list[LogProgress] = []
    for row in reversed(rows[:-1]):  # what follows the last newline is torn or empty
        with suppress(DamagedError):
            lines.insert(0, decode(LogProgress, parse_json(row, path.name), path.name))
        if len(lines) == 2:
            break
    return lines
