"""The list of done runs in which the workers of a sweep folder tell each other what is done.

Without it, every worker would have to look at every run: K workers would read K listings per run.
The list is a file to which a launcher appends the key of each run that it has finished, and of
which every worker reads what is new. It is a hint that saves work and never decides: a run is done
if and only if its record exists. Lines may get lost, for example where two machines append to a
file on NFS at the same time; the run is then looked at as if it had not been listed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from benchmark.core.files import write_atomic
from benchmark.core.layout import SweepFolder

#: Seconds between two reads, at first and at most while nothing new is listed.
_FIRST_INTERVAL = 0.1
_LONGEST_INTERVAL = 2.0

#: What follows the key of a run that was interrupted.
_BEGUN = " begun"


class DoneList:
    """The list of done runs of a sweep, and of those that were begun and interrupted.

    Args:
        folder: the sweep folder.
        keys: the keys of the runs of the launch; other lines are ignored.
    """

    def __init__(self, folder: Path, keys: Collection[str]) -> None:
        self._path = SweepFolder(folder).done
        self._unlisted = set(keys)
        self._position = 0
        self._next_read = 0.0
        self._interval = _FIRST_INTERVAL
        self._begun: set[str] = set()

    def add(self, key: str) -> None:
        """Append a run that is done. A list that cannot be written only costs the others time."""
        self._unlisted.discard(key)
        self._append(key)

    def add_begun(self, key: str) -> None:
        """Append a run that was interrupted and should be finished before others are begun."""
        self._append(key + _BEGUN)

    def _append(self, line: str) -> None:
        with suppress(OSError):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, f"{line}\n".encode())
            finally:
                os.close(handle)

    def replace(self, done: Iterable[str], begun: Iterable[str]) -> None:
        """Replace the list by what a launch has seen in the folders, so that it can be trusted."""
        lines = [*done, *(key + _BEGUN for key in begun)]
        with suppress(OSError):
            write_atomic(self._path, "".join(f"{line}\n" for line in lines).encode())

    def take_begun(self) -> list[str]:
        """Return the interrupted runs that were read since the last call and are not done."""
        begun = sorted(self._begun & self._unlisted)
        self._begun.clear()
        return begun

    def read_new(self) -> list[str]:
        """Return the runs that were listed since the last call.

        Calls shortly after one another, and those while nothing is added, read nothing.
        """
        now = time.monotonic()
        if now < self._next_read:
            return []
        new = self._read()
        self._interval = _FIRST_INTERVAL if new else min(1.5 * self._interval, _LONGEST_INTERVAL)
        self._next_read = now + self._interval
        return new

    def _read(self) -> list[str]:
        try:
            handle = os.open(self._path, os.O_RDONLY)  # opened again, so NFS asks its server
        except OSError:
            return []
        try:
            size = os.fstat(handle).st_size
            if size < self._position:  # it was replaced
                self._position = 0
            content = os.pread(handle, size - self._position, self._position)
        except OSError:
            return []
        finally:
            os.close(handle)
        whole = content[: content.rfind(b"\n") + 1]  # the last line may still be being written
        self._position += len(whole)
        listed = {line.decode("ascii", "replace") for line in whole.split(b"\n")}
        self._begun.update(line.removesuffix(_BEGUN) for line in listed if line.endswith(_BEGUN))
        new = sorted(listed & self._unlisted)
        self._unlisted.difference_update(new)
        return new
