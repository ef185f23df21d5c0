"""Decoded images, kept: decoded and resized once, then mapped into memory by every run.

An entry of the cache is a folder ``<cache>/<name>-<key>/``. The key names the content (which files, their sizes and
times of change, and how they are decoded), so that another content is another entry. Nothing is read unless its size is
right and its checksums were compared since the file last changed; what fails is rebuilt.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from datasets._io.cache_entry import FULL, CacheColumn, Damaged, Entry, Fill, Progress

#: Where the cache is when it is not in the data folder.
VARIABLE = "SHORTCUTBED_CACHE"
#: Share of the machine's memory that the copy of one split may take; a larger one becomes a file of its own.
SHARE = 1 / 8
#: Rows that are made at a time.
BLOCK = 512
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def cache_folder(data_dir: Path | None) -> Path:
    """The environment's SHORTCUTBED_CACHE, else ``.cache`` in the data folder."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else Path(data_dir or "data") / ".cache"


class Cache:
    """The entries of one folder, which is made when the first entry is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(
        self,
        name: str,
        key: str,
        rows: int,
        columns: Mapping[str, CacheColumn],
        fill: Fill,
        progress: Progress | None = None,
    ) -> dict[str, np.ndarray]:
        """The arrays of an entry, mapped into memory and read-only; built first where they are not there.

        Two processes that ask at once build it once: the second waits. One that is killed leaves its finished part,
        which the next one checks and goes on from.

        Args:
            name, key: what it is, for people, and what identifies it.
            rows: length of every array.
            columns: the arrays, by name.
            fill: makes the rows from ``start`` to ``stop`` of every array.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        entry = self._entry(name, key, rows, columns)
        try:
            found = entry.open()
            if found is not None:
                return found
        except Damaged:
            pass  # judged again once nobody else is writing
        with self._clear_errors(entry), self._lock(entry):
            try:
                found = entry.open()
            except Damaged as why:
                print(
                    f"the cache {entry.folder} is damaged ({why}); it is rebuilt.",
                    file=sys.stderr,
                )
                found = None
            if found is None:
                if shutil.disk_usage(self.folder).free + entry.bytes_there() < entry.bytes:
                    raise self._full(entry)
                entry.build(fill, progress or (lambda done, total: None))
                found = entry.open()
                assert found is not None
            return found

    def has(self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]) -> bool:
        """Whether an entry is there and whole, as far as sizes tell."""
        try:
            return self._entry(name, key, rows, columns).open(checksums=False) is not None
        except Damaged:
            return False

    def verify(
        self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]
    ) -> str | None:
        """What is wrong with an entry, all of its bytes read again, or None; one that is not there is not wrong."""
        try:
            self._entry(name, key, rows, columns).open(again=True)
        except Damaged as why:
            return str(why)
        return None

    def check_writable(self) -> None:
        """Raise a UserError unless entries can be made here."""
        there = self.folder.absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise self._closed()

    def take(self, name: str, key: str, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Some rows of an entry's array: a view where they follow one another, else a copy.

        A copy that would take more than an eighth of the machine's memory becomes an entry too, mapped like the array
        that it is from.

        Args:
            name, key: of the entry that ``array`` is from.
            array: uint8 or bool[N,…].
            rows: int64[n].
        """
        if len(rows) and (np.diff(rows) == 1).all():
            return array[int(rows[0]) : int(rows[-1]) + 1]
        column = CacheColumn(tuple(array.shape[1:]), str(array.dtype))
        if len(rows) * column.row_bytes <= memory_limit():
            return np.asarray(array[rows])
        own = f"{key}-{hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()[:16]}{array.dtype.kind}"
        return self.get(
            f"{name}-rows",
            own,
            len(rows),
            {"rows": column},
            lambda start, stop: {"rows": array[rows[start:stop]]},
        )["rows"]

    def make(
        self,
        name: str,
        what: Sequence[object],
        rows: int,
        columns: Mapping[str, CacheColumn],
        fill: Fill,
    ) -> dict[str, np.ndarray]:
        """Arrays that are made and not decoded: in memory, or as an entry where they are large.

        Args:
            what: all that they depend on, JSON.
        """
        if rows * sum(column.row_bytes for column in columns.values()) > memory_limit():
            key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
            return self.get(f"{name}-made", key, rows, columns, fill)
        out = {
            key: np.empty((rows, *column.shape), column.dtype) for key, column in columns.items()
        }
        for start in range(0, rows, BLOCK):
            for key, made in fill(start, min(start + BLOCK, rows)).items():
                out[key][start : start + BLOCK] = made
        return out

    def _entry(self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]) -> Entry:
        return Entry(self.folder / f"{name}-{key}", rows, columns)

    @contextmanager
    def _lock(self, entry: Entry) -> Iterator[None]:
        from filelock import FileLock

        try:
            entry.folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # a file system that makes no folders
            raise self._closed() from None
        with FileLock(f"{entry.folder}.lock"):
            yield

    @contextmanager
    def _clear_errors(self, entry: Entry) -> Iterator[None]:
        """A full disk and a folder that cannot be written to become sentences."""
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise self._full(entry) from None
            if error.errno in _CLOSED:
                raise self._closed() from None
            raise

    def _full(self, entry: Entry) -> UserError:
        return UserError(
            f"there is no room for the decoded images in {self.folder} ({entry.bytes / 1e6:,.0f} MB are needed); make "
            f"room, or choose another place with --cache-dir or {VARIABLE}."
        )

    def _closed(self) -> UserError:
        return UserError(
            f"the decoded images cannot be kept in {self.folder}, which cannot be written to; choose another place "
            f"with --cache-dir or {VARIABLE}."
        )


def memory_limit() -> int:
    """Bytes that the copy of one split may take."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * SHARE)
