"""Follow the logs of a launch and send what is new to trackers, without disturbing the runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmark.core.errors import UserError
from benchmark.core.files import JSON_BYTES, parse_json, read_bytes, read_json, write_json
from benchmark.core.layout import RunFolder, State, SweepFolder, end_of
from benchmark.core.log_line import LogLine
from benchmark.core.record import read_record
from benchmark.core.registry import TRACKERS
from benchmark.core.spec import read_spec
from benchmark.core.terminal import say
from benchmark.launch.attempts import latest
from benchmark.launch.events import Event, EventKind
from benchmark.tracking.base import RunWriter, Tracker
from benchmark.tracking.values import line_values, pictures_of, record_values, tracked_run

#: Seconds between two looks at the logs.
_INTERVAL = 1.0
#: The longest time that the end of a launch waits for a tracker, in seconds.
_PATIENCE = 60.0
#: Events after which a run is followed, and those after which it is read a last time.
_FOLLOWED = {EventKind.START, EventKind.ELSEWHERE}
_ENDED = {EventKind.ALREADY, EventKind.DONE, EventKind.FAILED, EventKind.INTERRUPTED}


@dataclass
class _Followed:
    """A run that is followed.

    Attributes:
        folder: its folder.
        writer: where it is written.
        last_step: step of the last evaluation that was written; −1 for none.
        read: path and size of the log when it was read last.
    """

    folder: RunFolder
    writer: RunWriter
    last_step: int
    read: tuple[Path, int] = (Path(), 0)


class Follower:
    """Sends the runs of a launch to one tracker, from a thread of its own.

    A tracker that fails ends the following with one sentence; the runs go on. What an earlier
    launch has written is not written again: a small file for each run says up to which step that
    is, or that it is complete.

    Args:
        tracker: the tracker.
        sweep: the sweep folder.
        interval: seconds between two looks at the logs.
    """

    def __init__(self, tracker: Tracker, sweep: SweepFolder, interval: float = _INTERVAL) -> None:
        self.tracker = tracker
        self.sweep = sweep
        sweep.tracked(tracker.name).mkdir(parents=True, exist_ok=True)
        self._interval = interval
        self._events: queue.SimpleQueue[tuple[str, EventKind]] = queue.SimpleQueue()
        self._followed: dict[str, _Followed] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"tracker-{tracker.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Note an event of the launch; returns at once."""
        if event.kind in _FOLLOWED | _ENDED:
            self._events.put((event.key, event.kind))

    def finish(self, patience: float = _PATIENCE) -> None:
        """Write what is left, for at most ``patience`` seconds."""
        self._stop.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            say(
                f"{self.tracker.name} did not take everything within {patience:.0f} s; the next "
                "launch with --log writes the rest.",
                error=True,
            )

    def _work(self) -> None:
        try:
            while not self._stop.wait(self._interval):
                self._look()
            self._look()
            for followed in self._followed.values():
                followed.writer.close(ended=False)
        except (Exception, SystemExit) as error:  # a tracker may raise anything
            _say_failed(self.tracker.name, error)

    def _look(self) -> None:
        """Send what is new."""
        ended: dict[str, None] = {}
        while not self._events.empty():
            key, kind = self._events.get()
            if kind in _ENDED:
                ended[key] = None
            else:
                ended.pop(key, None)
            if key not in self._followed:
                self._follow(key)
        for key in list(self._followed):
            self._send_lines(self._followed[key])
            if key in ended:
                self._end(key)

    def _note(self, key: str) -> Path:
        return self.sweep.tracked(self.tracker.name) / f"{key}.json"

    def _follow(self, key: str) -> None:
        folder = self.sweep.run(key)
        try:
            spec = read_spec(folder.path)
            note: dict[str, Any] = read_json(self._note(key))
        except FileNotFoundError:
            note = {}
            if not folder.spec.exists():
                return
            spec = read_spec(folder.path)
        if note.get("complete") or spec.measurement is not None:
            return
        step = int(note.get("step", -1))
        writer = self.tracker.open(tracked_run(folder, spec), step)
        self._followed[key] = _Followed(folder, writer, writer.last_step)

    def _send_lines(self, followed: _Followed) -> None:
        """Send the evaluations after the last one that was sent.

        A resumed run repeats steps that a killed attempt had logged already; they are equal, and
        are not sent again.
        """
        folder = followed.folder
        for path in (folder.log, folder.attempt(latest(folder.path)).log):
            try:
                size = path.stat().st_size
                if (path, size) == followed.read:
                    return
                lines = read_bytes(path, JSON_BYTES).split(b"\n")[:-1]
            except FileNotFoundError:
                continue
            followed.read = path, size
            for text in lines:
                line = LogLine.from_json(parse_json(text, path.name), None, path.name)
                if line.step > followed.last_step:
                    followed.writer.scalars(line.step, line_values(line))
                    followed.last_step = line.step
                    write_json(self._note(folder.key), {"step": line.step, "complete": False})
            return

    def _end(self, key: str) -> None:
        """Send the results of a run that has ended, or leave it to another launch."""
        followed = self._followed.pop(key)
        state = end_of(followed.folder.path)
        if state is State.DONE:
            record = read_record(followed.folder.path)
            followed.writer.results(
                record.steps, record_values(record), pictures_of(followed.folder, record)
            )
        followed.writer.close(ended=state is not None, failed=state is State.FAILED)
        if state is State.DONE:
            write_json(self._note(key), {"step": followed.last_step, "complete": True})


def _made(name: str, folder: Path) -> Tracker | None:
    """Return a tracker, or None with one sentence if it fails.

    Raises:
        UserError: it is not configured.
    """
    try:
        tracker: Tracker = TRACKERS.get(name)(folder)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # likewise
        _say_failed(name, error)
        return None
    return tracker


def _say_failed(name: str, error: BaseException) -> None:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    say(f"{name} failed ({type(error).__name__}: {reason}); the runs go on without it.", error=True)


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers exist and that their packages are installed.

    Raises:
        UserError: one does not, or is not.
    """
    for name in names:
        TRACKERS.get(name).check_available()


@contextmanager
def followed(
    names: Sequence[str], folder: Path, *, alone: bool = True
) -> Iterator[Callable[[Event], None]]:
    """Return a context in which trackers follow a launch; its value receives the events.

    Args:
        names: names of trackers.
        folder: the sweep folder.
        alone: False if others may follow other runs of the folder at the same time.

    Raises:
        UserError: a tracker does not exist, is not installed or is not configured, or another
            launch of this folder uses it.
    """
    check_trackers(names)
    sweep = SweepFolder(folder)
    followers = []
    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            notes = sweep.tracked(name)
            notes.mkdir(parents=True, exist_ok=True)
            try:
                if alone:
                    stack.enter_context(FileLock(notes / "lock", timeout=0))
            except Timeout:
                raise UserError(
                    f"another launch of {folder} writes to {name}; leave out --log {name} here."
                ) from None
            tracker = _made(name, folder)
            if tracker is None:
                continue
            say(f"{name}: {tracker.where()}")
            follower = Follower(tracker, sweep)
            follower.start()
            stack.callback(follower.finish)
            followers.append(follower)

        def on_event(event: Event) -> None:
            for follower in followers:
                follower.on_event(event)

        yield on_event
