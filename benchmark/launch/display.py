"""The output of a launch and of ``status``: a live table on a terminal, otherwise plain lines."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from benchmark.core.layout import State, SweepFolder
from benchmark.core.run_states import WITHOUT_RESULT
from benchmark.core.text import one_line
from benchmark.launch.events import Event, EventKind, duration
from benchmark.launch.progress_counter import ProgressCounter
from benchmark.launch.status import Progress, SweepStates, problem_of, progress, sweep_states

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from benchmark.plan.sweep_folder import StoredSweep

#: The number of runs of one state that ``status`` lists; the others are only counted.
_MAX_LISTED = 20
_STOPPING = "stopping: waiting for the runs to save; press Ctrl-C again to kill them"
#: The colours of the events that a live table prints above itself.
_STYLES = {
    EventKind.FAILED: "red",
    EventKind.BLOCKED: "red",
    EventKind.RETRY: "yellow",
    EventKind.INTERRUPTED: "yellow",
}
#: The alignment of the columns of a live table.
_COLUMNS: tuple[Literal["left", "right"], ...] = (
    "right",
    "left",
    "left",
    "right",
    "right",
    "right",
)


def make_display(
    folder: Path, labels: Mapping[str, str], stream: TextIO | None = None
) -> AbstractContextManager[Callable[[Event], None]]:
    """Return a context whose value is the ``on_event`` of a launch.

    Args:
        folder: the sweep folder.
        labels: the name of each run in messages, by key.
        stream: where to print, by default standard output; a live table if it is a terminal.
    """
    stream = stream or sys.stdout
    counter = ProgressCounter(len(labels))
    if _can_redraw(stream):
        return _live(folder, counter, _console(stream))
    return _plain(counter, stream)


def show_status(
    stored: StoredSweep, watch: bool = True, stream: TextIO | None = None, every: float = 1.0
) -> int:
    """Print the state of a sweep; on a terminal, watch it until nothing runs or Ctrl-C.

    Args:
        stored: the sweep.
        watch: False to print once.
        stream: where to print, by default standard output.
        every: seconds between two updates.

    Returns:
        1 if a run failed, is blocked or cannot be read, otherwise 0.
    """
    stream = stream or sys.stdout
    states = _states(stored)
    if not (watch and _can_redraw(stream)):
        for line in status_lines(stored, states):
            print(line, file=stream)
        return _exit_code(states)
    from rich.live import Live

    with Live(console=_console(stream), auto_refresh=False) as live:
        try:
            while True:
                live.update(_status_table(stored, states), refresh=True)
                if State.RUNNING not in states.by_key.values():
                    break
                time.sleep(every)
                states = _states(stored)
        except KeyboardInterrupt:  # ends the watching, not the runs
            pass
    return _exit_code(states)


def _states(stored: StoredSweep) -> SweepStates:
    """Return the states of all runs; a run whose entry in the plan is damaged is unreadable."""
    states = sweep_states(stored.folder, list(stored.runs), stored.runs)
    damaged = dict.fromkeys(stored.damaged, State.UNREADABLE)
    return SweepStates({**states.by_key, **damaged}, states.without_spec - stored.damaged.keys())


def status_lines(stored: StoredSweep, states: SweepStates) -> list[str]:
    """Return the state of a sweep as plain text: the counts, then the runs that need attention."""
    lines = [_counts(stored, states)]
    by_state: dict[State, list[str]] = {}
    for key, state in states.by_key.items():
        by_state.setdefault(state, []).append(key)
    without_spec = [key for key in states.by_key if key in states.without_spec]
    for state in (State.RUNNING, State.LOST, State.FAILED, State.BLOCKED, State.UNREADABLE):
        lines += _run_lines(stored, state, by_state.get(state, []))
    lines += _run_lines(stored, State.PENDING, without_spec)
    return [*lines, *(f"note: {one_line(problem)}" for problem in stored.problems)]


def _run_lines(stored: StoredSweep, state: State, keys: Sequence[str]) -> list[str]:
    """Return a line for each run of a state, up to a limit."""
    lines = []
    for key in keys[:_MAX_LISTED]:
        details = _details(stored, state, key)
        lines.append(f"{state:<8} {key}  {_name(stored, key)}{': ' if details else ''}{details}")
    if len(keys) > _MAX_LISTED:
        lines.append(f"{state:<8} … and {len(keys) - _MAX_LISTED} more")
    return lines


@contextmanager
def _plain(counter: ProgressCounter, stream: TextIO) -> Iterator[Callable[[Event], None]]:
    started = False

    def on_event(event: Event) -> None:
        nonlocal started
        counter.add(event)
        if event.kind is EventKind.ALREADY:
            return
        if counter.already and not started:
            print(f"{counter.already} of {counter.total} runs are already done", file=stream)
        started = True
        print(_event_line(event, counter), file=stream, flush=True)

    yield on_event


def _event_line(event: Event, counter: ProgressCounter) -> str:
    if event.kind is EventKind.STOPPING:
        return _STOPPING
    width = len(str(counter.total))
    finished = f"[{counter.finished:>{width}}/{counter.total}]"
    line = f"{event.kind:<11} {finished} {event.key} {one_line(event.label)}"
    if event.kind is EventKind.START:
        return line + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    if event.seconds:
        line += f", {duration(event.seconds)}"
    return f"{line}: {one_line(event.reason)}" if event.reason else line


@contextmanager
def _live(
    folder: Path, counter: ProgressCounter, console: Console
) -> Iterator[Callable[[Event], None]]:
    from rich.live import Live
    from rich.text import Text

    stopping = False

    def on_event(event: Event) -> None:
        nonlocal stopping
        counter.add(event)
        if event.kind is EventKind.STOPPING:
            stopping = True
        elif event.kind in _STYLES:
            live.console.print(Text(_event_line(event, counter), style=_STYLES[event.kind]))

    with Live(
        console=console,
        refresh_per_second=2,
        get_renderable=lambda: _launch_table(folder, counter, stopping),
    ) as live:
        yield on_event


def _launch_table(folder: Path, counter: ProgressCounter, stopping: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _make_table()
    seconds_left: dict[str, float | None] = {}
    for run in counter.by_slot():
        logged = progress(SweepFolder(folder).run(run.key).path)
        # The log of an earlier attempt says nothing about this one.
        seconds_left[run.key] = logged.seconds_left if logged.attempt >= run.attempt else None
        _add_row(table, str(run.slot), run.label, logged, seconds_left[run.key])
    rest = counter.seconds_left(seconds_left)
    parts = [
        f"{counter.finished} of {counter.total} done",
        f"{len(counter.active)} running",
        f"{counter.pending} pending",
    ]
    if counter.failed:
        parts.append(f"{counter.failed} failed")
    if counter.blocked:
        parts.append(f"{counter.blocked} blocked")
    if rest is not None and counter.finished < counter.total:
        parts.append(f"about {duration(rest)} left")
    line = Text(", ".join(parts), style="bold")
    return Group(table, line, Text(_STOPPING, style="yellow")) if stopping else Group(table, line)


def _status_table(stored: StoredSweep, states: SweepStates) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _make_table()
    for key in [key for key, state in states.by_key.items() if state is State.RUNNING]:
        logged = progress(stored.run_folder(key))
        _add_row(table, key, _name(stored, key), logged, logged.seconds_left)
    others = [
        line for line in status_lines(stored, states)[1:] if not line.startswith(State.RUNNING)
    ]
    title = Text(_counts(stored, states), style="bold")
    return Group(title, table, *(Text(line) for line in others))


def _make_table() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for justify in _COLUMNS:
        table.add_column(justify=justify, no_wrap=justify == "right")
    return table


def _add_row(
    table: Table, first: str, label: str, logged: Progress, seconds_left: float | None
) -> None:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    cells: list[Any] = [
        Text(first),
        Text(one_line(label)),
        ProgressBar(1.0, logged.fraction, width=20),
    ]
    if logged.steps:
        cells.append(Text(f"{logged.step}/{logged.steps}"))
        cells.append(Text(f"{logged.images_per_second:.0f} images/s"))
        cells.append(Text("" if seconds_left is None else f"{duration(seconds_left)} left"))
    else:
        cells += [Text("starting"), Text(""), Text("")]
    table.add_row(*cells)


def _counts(stored: StoredSweep, states: SweepStates) -> str:
    counts = Counter(states.by_key.values())
    counts[State.REFUSED] = len(stored.refused)
    listed = [f"{counts[s]} {s}" for s in State if counts[s] or s is State.DONE]
    title = one_line(stored.title or stored.name)
    return f"{title} in {one_line(stored.folder)}: {len(states.by_key)} runs, {', '.join(listed)}"


def _details(stored: StoredSweep, state: State, key: str) -> str:
    """Return the progress of a run, or why it failed or cannot be read."""
    if state in (State.UNREADABLE, State.PENDING):
        return one_line(stored.damaged.get(key) or problem_of(stored.run_folder(key)))
    logged = progress(stored.run_folder(key))
    if state is State.FAILED:
        return one_line(logged.reason)
    if state is not State.RUNNING or not logged.steps:
        return ""
    text = f"step {logged.step} of {logged.steps}, {logged.images_per_second:.0f} images/s"
    return text if logged.seconds_left is None else f"{text}, {duration(logged.seconds_left)} left"


def _name(stored: StoredSweep, key: str) -> str:
    run = stored.runs[key]
    if key in stored.damaged:
        return "an unknown run"
    draw = f", draw {run.draw}" if run.draw else ""
    return one_line(f"{run.label}, trial {run.trial}{draw}")


def _exit_code(states: SweepStates) -> int:
    return 0 if WITHOUT_RESULT.isdisjoint(states.by_key.values()) else 1


def _can_redraw(stream: TextIO) -> bool:
    """Return True on a terminal with a cursor that can be moved (Emacs' shell has none)."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
