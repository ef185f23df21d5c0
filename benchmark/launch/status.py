"""How a sweep stands and how far its runs are, read from the folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.decode import decode
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.failure import read_failure
from benchmark.core.files import JSON_BYTES, parse_json, require_file
from benchmark.core.layout import RunFolder, State, SweepFolder, state_of
from benchmark.core.log_line import LogProgress
from benchmark.core.run_states import WITHOUT_RESULT, blocked_runs
from benchmark.core.spec import read_spec, read_upstream
from benchmark.launch.attempts import numbers

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
    """Return the state of every run of a sweep, by key.

    A run that waits for a failed one, directly or not, is blocked. A run whose spec.json is
    damaged is unreadable. One whose spec.json is missing is pending, since planning writes the
    list of runs first; see ``problem_of``.

    Args:
        folder: Folder of the sweep.
        keys: Keys of the runs.
    """
    runs = SweepFolder(folder).runs
    states: dict[str, State] = {}
    upstream: dict[str, tuple[str, ...]] = {}
    unread = list(keys)
    while unread:
        key = unread.pop()
        if key in states:
            continue
        states[key] = state_of(runs / key)
        if states[key] in (State.PENDING, State.LOST):
            needed = _upstream(runs / key)
            if needed is None:
                states[key] = State.UNREADABLE
            else:
                upstream[key] = needed
                unread.extend(needed)
    without_result = {key for key, state in states.items() if state in WITHOUT_RESULT}
    states.update(dict.fromkeys(blocked_runs(upstream, upstream, without_result), State.BLOCKED))
    return {key: states[key] for key in keys}


def problem_of(folder: Path) -> str:
    """What is wrong with the spec.json of a run that is not done, in a sentence; empty where nothing is."""
    try:
        read_spec(folder)
    except FileNotFoundError:
        return f"{RunFolder(folder).spec} is missing; launch the sweep again, which writes it"
    except (OSError, UserError) as error:
        return str(error).removesuffix(".")
    return ""


#: Upstream keys by folder of a run: its name, the key, is the hash of a spec, so the answer never changes, and
#: ``status`` asks every second.
_known_upstream: dict[Path, tuple[str, ...]] = {}


def _upstream(folder: Path) -> tuple[str, ...] | None:
    """The keys of the runs that a run needs; None where its spec is damaged, nothing where it is missing."""
    known = _known_upstream.get(folder)
    if known is None:
        try:
            known = read_upstream(folder)
        except FileNotFoundError:
            return ()
        except (OSError, UserError):
            return None
        _known_upstream[folder] = known
    return known


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
    before = lines[-2] if len(lines) > 1 else LogProgress(0)
    moved, spent = last.step - before.step, last.seconds - before.seconds
    left = None
    if moved > 0 and spent >= 0:
        left = max(0, last.steps - last.step) * spent / moved
    return Progress(
        last.step, last.steps, last.images_per_second, last.seconds, left, attempt, reason
    )


def failure_reason(folder: Path) -> str:
    """The sentence in a run's failure.json; where that is damaged, what is wrong with it."""
    try:
        return read_failure(folder).message
    except FileNotFoundError:
        return ""
    except (OSError, UserError) as error:
        return str(error).removesuffix(".")


def _last_lines(path: Path) -> list[LogProgress]:
    """The last two whole lines of a log."""
    try:
        require_file(path, JSON_BYTES)
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            rows = file.read().split(b"\n")
    except (OSError, UserError):
        return []
    found: list[LogProgress] = []
    for row in reversed(rows[:-1]):  # what follows the last newline is torn or empty
        with suppress(DamagedError):
            found.insert(0, decode(LogProgress, parse_json(row, path.name), path.name))
        if len(found) == 2:
            break
    return found
