"""What people see: a live table on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmark.core.layout import RunFolder, State, SweepFolder
from benchmark.core.run_states import WITHOUT_RESULT
from benchmark.core.text import one_line
from benchmark.launch.events import Event, duration
from benchmark.launch.progress_counter import Tally
from benchmark.launch.status import Progress, problem_of, progress, sweep_states

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from benchmark.plan.sweep_folder import StoredSweep

#: How many runs of one state `status` lists before it counts the rest.
_LISTED = 20
_STOPPING = "stopping: the runs save themselves; Ctrl-C again ends them at once"


def make_display(
    folder: Path, labels: Mapping[str, str], stream: TextIO | None = None
) -> AbstractContextManager[Callable[[Event], None]]:
    """A context whose value is the ``on_event`` of a launch.

    Args:
        folder: the sweep folder.
        labels: what people call each run.
        stream: where to print, standard output by default; a live table where that is a terminal.
    """
    stream = stream or sys.stdout
    if _can_redraw(stream):
        return _live(folder, Tally(len(labels)), _console(stream))
    return _plain(Tally(len(labels)), stream)


def show_status(
    stored: StoredSweep, watch: bool = True, stream: TextIO | None = None, every: float = 1.0
) -> int:
    """Print how a sweep stands; on a terminal, watch it until nothing runs or Ctrl-C.

    Returns:
        1 if a run failed, is blocked or cannot be read, else 0.
    """
    stream = stream or sys.stdout
    if not (watch and _can_redraw(stream)):
        states = _states(stored)
        for line in status_lines(stored, states):
            print(line, file=stream)
        return _code(states)
    from rich.live import Live

    console = _console(stream)
    states = _states(stored)
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(_status_table(stored, states), refresh=True)
                if State.RUNNING not in states.values():
                    break
                time.sleep(every)
                states = _states(stored)
        except KeyboardInterrupt:  # to stop watching is no interruption of anything
            pass
    return _code(states)


def _states(stored: StoredSweep) -> dict[str, State]:
    """The states of all runs; a run whose entry in the plan is damaged is unreadable."""
    states = sweep_states(stored.folder, list(stored.runs))
    return {**states, **dict.fromkeys(stored.damaged, State.UNREADABLE)}


def status_lines(stored: StoredSweep, states: Mapping[str, State]) -> list[str]:
    """How a sweep stands, as plain text: the counts, then what runs, what failed and why, what is blocked."""
    lines = [_counts(stored, states)]
    by_state: dict[State, list[str]] = {}
    for key, state in states.items():
        by_state.setdefault(state, []).append(key)
    without_spec = [
        key
        for key in by_state.get(State.PENDING, [])
        if not RunFolder(stored.run_folder(key)).spec.exists()
    ]
    for state in (State.RUNNING, State.LOST, State.FAILED, State.BLOCKED, State.UNREADABLE):
        lines += _listed(stored, state, by_state.get(state, []))
    lines += _listed(stored, State.PENDING, without_spec)
    return [*lines, *(f"note: {one_line(problem)}" for problem in stored.problems)]


def _listed(stored: StoredSweep, state: State, keys: Sequence[str]) -> list[str]:
    """A line for each run of a state, up to a bound."""
    lines = []
    for key in keys[:_LISTED]:
        how = _how(stored, state, key)
        lines.append(f"{state:<8} {key}  {_name(stored, key)}{': ' if how else ''}{how}")
    if len(keys) > _LISTED:
        lines.append(f"{state:<8} … and {len(keys) - _LISTED} more")
    return lines


@contextmanager
def _plain(tally: Tally, stream: TextIO) -> Iterator[Callable[[Event], None]]:
    begun = False

    def on_event(event: Event) -> None:
        nonlocal begun
        tally.add(event)
        if event.kind == "already":
            return
        if tally.already and not begun:
            print(f"{tally.already} of {tally.total} runs are done already", file=stream)
        begun = True
        print(_line(event, tally), file=stream, flush=True)

    yield on_event


def _line(event: Event, tally: Tally) -> str:
    if event.kind == "stopping":
        return _STOPPING
    width = len(str(tally.total))
    line = f"{event.kind:<11} [{tally.finished:>{width}}/{tally.total}] {event.key} {one_line(event.label)}"
    if event.kind == "start":
        return line + (f" (attempt {event.attempt})" if event.attempt > 1 else "")
    if event.seconds:
        line += f", {duration(event.seconds)}"
    return f"{line}: {one_line(event.reason)}" if event.reason else line


@contextmanager
def _live(folder: Path, tally: Tally, console: Console) -> Iterator[Callable[[Event], None]]:
    from rich.live import Live
    from rich.text import Text

    stopping = False

    def on_event(event: Event) -> None:
        nonlocal stopping
        tally.add(event)
        if event.kind == "stopping":
            stopping = True
        elif event.kind in ("failed", "retry", "blocked", "interrupted"):
            style = {"failed": "red", "blocked": "red"}.get(event.kind, "yellow")
            live.console.print(Text(_line(event, tally), style=style))

    with Live(
        console=console,
        refresh_per_second=2,
        get_renderable=lambda: _launch_table(folder, tally, stopping),
    ) as live:
        yield on_event


def _launch_table(folder: Path, tally: Tally, stopping: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _table()
    left: dict[str, float | None] = {}
    for active in tally.by_slot():
        found = progress(SweepFolder(folder).run(active.key).path)
        left[active.key] = found.seconds_left if found.attempt >= active.attempt else None
        _add_row(table, str(active.slot), active.label, found, left[active.key])
    rest = tally.seconds_left(left)
    parts = [
        f"{tally.finished} of {tally.total} done",
        f"{len(tally.active)} running",
        f"{tally.pending} pending",
    ]
    parts += [f"{tally.failed} failed"] if tally.failed else []
    parts += [f"{tally.blocked} blocked"] if tally.blocked else []
    parts += (
        [f"about {duration(rest)} left"]
        if rest is not None and tally.finished < tally.total
        else []
    )
    line = Text(", ".join(parts), style="bold")
    return Group(table, line, Text(_STOPPING, style="yellow")) if stopping else Group(table, line)


def _status_table(stored: StoredSweep, states: Mapping[str, State]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _table()
    for key in [key for key, state in states.items() if state is State.RUNNING]:
        found = progress(stored.run_folder(key))
        _add_row(table, key, _name(stored, key), found, found.seconds_left)
    others = [
        line for line in status_lines(stored, states)[1:] if not line.startswith(State.RUNNING)
    ]
    return Group(
        Text(_counts(stored, states), style="bold"), table, *(Text(line) for line in others)
    )


def _table() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for justify in ("right", "left", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=justify == "right")  # type: ignore[arg-type]
    return table


def _add_row(table: Table, first: str, label: str, found: Progress, left: float | None) -> None:
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    cells: list[Any] = [
        Text(first),
        Text(one_line(label)),
        ProgressBar(1.0, found.fraction, width=20),
    ]
    if not found.steps:
        cells += [Text("starting"), Text(""), Text("")]
    else:
        cells += [
            Text(f"{found.step}/{found.steps}"),
            Text(f"{found.images_per_second:.0f} images/s"),
        ]
        cells.append(Text("" if left is None else f"{duration(left)} left"))
    table.add_row(*cells)


def _counts(stored: StoredSweep, states: Mapping[str, State]) -> str:
    found = {state: sum(s is state for s in states.values()) for state in State}
    found[State.REFUSED] = len(stored.refused)
    shown = [f"{found[s]} {s}" for s in State if found[s] or s is State.DONE]
    return (
        f"{one_line(stored.title or stored.name)} in {one_line(stored.folder)}: {len(states)} runs, "
        + ", ".join(shown)
    )


def _how(stored: StoredSweep, state: State, key: str) -> str:
    if state in (State.UNREADABLE, State.PENDING):
        return one_line(stored.damaged.get(key) or problem_of(stored.run_folder(key)))
    found = progress(stored.run_folder(key))
    if state is State.FAILED:
        return one_line(found.reason)
    if state is not State.RUNNING or not found.steps:
        return ""
    left = "" if found.seconds_left is None else f", {duration(found.seconds_left)} left"
    return f"step {found.step} of {found.steps}, {found.images_per_second:.0f} images/s{left}"


def _name(stored: StoredSweep, key: str) -> str:
    run = stored.runs[key]
    if key in stored.damaged:
        return "an unknown run"
    draw = f", draw {run.draw}" if run.draw else ""
    return one_line(f"{run.method} on {run.dataset}, trial {run.trial}{draw}")


def _code(states: Mapping[str, State]) -> int:
    return 0 if WITHOUT_RESULT.isdisjoint(states.values()) else 1


def _can_redraw(stream: TextIO) -> bool:
    """Whether a table can be drawn over itself: on a terminal, unless it has no cursor to move (Emacs' shell)."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
