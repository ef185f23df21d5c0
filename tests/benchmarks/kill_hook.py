"""Kill this process before or after a random file operation on a sweep folder.

``kill_sweep.py`` preloads this module.

A launcher imports it, and so does its fork server, whose children inherit the patched functions of
``os``. Every process draws one operation (``open``, ``fsync``, ``link``, ``replace`` or
``unlink``), the number of its call, and whether it dies before or after that call. ``KILL_FOLDER``
names the sweep folder, ``KILL_LOG`` the file in which every kill is noted, ``KILL_LIMIT`` how many
there may be, ``KILL_SHARE`` how many of the processes are to die.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

#: Largest number of the call that is drawn, by operation: about as many as a run makes.
CALLS = {"open": 60, "fsync": 10, "link": 1, "replace": 10, "unlink": 6, "mkdir": 2}
#: Kills of one run that are allowed: a run that dies once more has failed.
MOST_PER_RUN = 3

_folder = os.environ.get("KILL_FOLDER", "")
_log = os.environ.get("KILL_LOG", "")
_limit = int(os.environ.get("KILL_LIMIT", "0"))
_share = float(os.environ.get("KILL_SHARE", "0.8"))
_open, _write, _close, _read_link = os.open, os.write, os.close, os.readlink
_plain_open = io.open
_lock = threading.Lock()


class Fate:
    """The random point at which a process is killed."""

    def __init__(self) -> None:
        self.process = os.getpid()
        chance = random.Random(os.urandom(8))
        kind = chance.choices(list(CALLS), [4, 4, 8, 4, 4, 1])[
            0
        ]  # every run makes its folders first
        self.kind = kind if chance.random() < _share else ""
        self.number = chance.randint(1, CALLS.get(self.kind, 1))
        self.after = chance.random() < 0.5
        self.calls: Counter[str] = Counter()


_fate: Fate | None = None


def run_of(path: str) -> str:
    """The key of the run that a path belongs to, or an empty text for the sweep's own files."""
    parts = os.path.relpath(path, os.path.join(_folder, "runs")).split(os.sep)
    return "" if parts[0] == os.pardir else parts[0]


def note(log: str, **what: Any) -> None:
    """Append a line about a kill; one write, so that two processes do not mix theirs."""
    handle = _open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _write(handle, (json.dumps(what) + "\n").encode())
    _close(handle)


def noted(log: str) -> list[dict[str, Any]]:
    """All kills so far."""
    try:
        with _plain_open(log) as file:
            return [json.loads(line) for line in file.read().splitlines()]
    except FileNotFoundError:
        return []


def _is_due(kind: str, target: Any) -> str | None:
    """The path of this operation if it is the one that was drawn, else None."""
    global _fate
    try:
        path = (
            _read_link(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
        )
        path = os.path.abspath(os.fsdecode(path))
    except (OSError, TypeError, ValueError):
        return None
    if not path.startswith(_folder + os.sep):
        return None
    with _lock:
        if _fate is None or _fate.process != os.getpid():
            _fate = Fate()
        _fate.calls[kind] += 1
        if kind != _fate.kind or _fate.calls[kind] != _fate.number:
            return None
    before = noted(_log)
    mine = sum(kill["key"] == run_of(path) for kill in before) if run_of(path) else 0
    enough = sum(kill["what"] == "self" for kill in before) >= _limit
    return None if enough or mine >= MOST_PER_RUN else path


def _die(kind: str, path: str, when: str) -> None:
    name = os.path.basename(path)
    note(_log, what="self", key=run_of(path), operation=kind, when=when, file=name)
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


def _patched(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(target: Any, *args: Any, **named: Any) -> Any:
        path = _is_due(kind, target)
        if path is not None and _fate is not None and not _fate.after:
            _die(kind, path, "before")
        try:
            return real(target, *args, **named)
        finally:
            if path is not None:
                _die(kind, path, "after")

    return call


if _folder and _log and _limit:
    for _kind, _names in {
        "open": ("open",),
        "fsync": ("fsync",),
        "link": ("link",),
        "mkdir": ("mkdir",),
        "replace": ("replace", "rename"),
        "unlink": ("unlink", "remove"),
    }.items():
        for _name in _names:
            setattr(os, _name, _patched(_kind, getattr(os, _name)))
    builtins.open = io.open = _patched("open", io.open)  # type: ignore[assignment]
