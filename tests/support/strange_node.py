"""Makes a process see files as a machine of a cluster may see them; active once it is imported.

The environment says how: ``NODE_DELAY`` seconds during which listings and the attributes of files
may be those of a cache, missing files included; ``NODE_CLOCK`` seconds by which the clock is
ahead; ``NODE_LINKS=no`` for a file system without hard links. What a process changes in a folder
itself, it sees at once in that folder, and creating a file exclusively is always exact, as on NFS.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

DELAY = float(os.environ.get("NODE_DELAY", "0"))
AHEAD = float(os.environ.get("NODE_CLOCK", "0"))

_cache: dict[tuple[str, str], tuple[float, Any]] = {}


def _remember(name: str, look: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that answers as ``look`` did within the last ``DELAY`` seconds."""

    def answer(path: Any = ".", *arguments: Any, **options: Any) -> Any:
        if isinstance(path, int) or "/runs/" not in os.fspath(path):
            return look(path, *arguments, **options)
        place = name, os.fspath(path)
        now = time.monotonic()
        known = _cache.get(place)
        if known is None or now - known[0] > DELAY:
            try:
                found = look(path, *arguments, **options)
            except FileNotFoundError as error:
                found = error
            known = _cache[place] = now, found
        if isinstance(known[1], FileNotFoundError):
            raise FileNotFoundError(*known[1].args, os.fspath(path))
        return known[1]

    return answer


def _forget(event: str, arguments: tuple[Any, ...]) -> None:
    """Drop what is known about the folders in which this process changes something."""
    if event == "open":
        changes = bool(arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_APPEND))
        paths = arguments[:1] if changes else ()
    else:
        paths = arguments[:2] if event in _CHANGES else ()
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            folder = os.path.dirname(os.fsdecode(path))
            for place in [place for place in _cache if _is_in(place[1], folder)]:
                del _cache[place]


_CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod"}


def _is_in(path: str, folder: str) -> bool:
    return path == folder or os.path.dirname(path) == folder


def _no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


if DELAY:
    os.listdir = _remember("listdir", os.listdir)  # type: ignore[assignment]
    os.stat = _remember("stat", os.stat)  # type: ignore[assignment]
    os.lstat = _remember("lstat", os.lstat)  # type: ignore[assignment]
    sys.addaudithook(_forget)
if AHEAD:
    _true_time = time.time
    time.time = lambda: _true_time() + AHEAD
if os.environ.get("NODE_LINKS") == "no":
    os.link = _no_links  # type: ignore[assignment]
