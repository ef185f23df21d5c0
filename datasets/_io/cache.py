"""The cache of decoded images: decoded and resized once, then mapped into memory by every run.

An entry of the cache is a folder ``<cache>/<name>-<key>/``. The key identifies the content (the
files, their sizes and modification times, and the decoding), so changed content becomes a new
entry. An entry is used only if its size is right and its checksums were verified since its files
last changed. Damaged entries are rebuilt.
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

from benchmark.core.cache_folder import CACHE_VARIABLE
from benchmark.core.dataset import Progress
from benchmark.core.errors import UserError
from datasets._io.cache_entry import (
    CHUNK_BYTES,
    DISK_FULL,
    CacheColumn,
    CacheEntry,
    ComputeRows,
    DamagedEntryError,
)

#: The share of the machine's memory that a copy of one split may take. Larger ones become files.
MEMORY_SHARE = 1 / 8
#: The memory in bytes where the system does not tell it.
ASSUMED_MEMORY = 8 << 30
#: The number of rows that are generated at a time.
BLOCK_ROWS = 512
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


def default_memory_limit() -> int:
    """Return the number of bytes that a copy of one split may take in memory."""
    if not hasattr(os, "sysconf"):  # Windows
        return int(ASSUMED_MEMORY * MEMORY_SHARE)
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * MEMORY_SHARE)


class Cache:
    """A folder of cache entries. It is created with the first entry.

    Args:
        folder: The folder.
        chunk_bytes: The number of bytes that are written and verified at a time.
        memory_limit: Arrays of more bytes become files; the default is an eighth of the machine's
            memory.
    """

    def __init__(
        self, folder: Path, *, chunk_bytes: int = CHUNK_BYTES, memory_limit: int | None = None
    ) -> None:
        self.folder = folder
        self.chunk_bytes = chunk_bytes
        self.memory_limit = default_memory_limit() if memory_limit is None else memory_limit

    def get(
        self,
        name: str,
        key: str,
        rows: int,
        columns: Mapping[str, CacheColumn],
        compute: ComputeRows,
        progress: Progress | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the arrays of an entry, mapped into memory and read-only.

        A missing or damaged entry is built first. If two processes ask for it at once, the second
        one waits. A build that was interrupted is continued after its finished part is verified.

        Args:
            name: A readable name.
            key: The identity of the content.
            rows: The length of every array.
            columns: The arrays by name.
            compute: Computes the rows from ``start`` to ``stop`` of every array.
            progress: Called with the number of rows done and the total.

        Raises:
            UserError: If the disk is full or the folder cannot be written to.
        """
        entry = self._entry(name, key, rows, columns)
        try:
            arrays = entry.open()
            if arrays is not None:
                return arrays
        except DamagedEntryError:
            pass  # Another process may be writing: look again with the lock.
        with self._translate_errors(entry), self._lock(entry):
            try:
                arrays = entry.open()
            except DamagedEntryError as error:
                print(
                    f"the cache {entry.folder} is damaged ({error}); it is rebuilt.",
                    file=sys.stderr,
                )
                arrays = None
            if arrays is None:
                if shutil.disk_usage(self.folder).free + entry.reusable_bytes() < entry.bytes:
                    raise self._disk_full(entry)
                entry.build(compute, progress or (lambda done, total: None))
                arrays = entry.open()
                assert arrays is not None
            return arrays

    def has(self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]) -> bool:
        """Return True if an entry exists and its files have the right sizes."""
        try:
            return self._entry(name, key, rows, columns).open(checksums=False) is not None
        except DamagedEntryError:
            return False

    def verify(
        self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]
    ) -> str | None:
        """Read all bytes of an entry and describe the damage; None if it is whole or missing."""
        try:
            self._entry(name, key, rows, columns).open(force=True)
        except DamagedEntryError as error:
            return str(error)
        return None

    def check_writable(self) -> None:
        """Raise a UserError if entries cannot be created here."""
        existing = self.folder.absolute()
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise self._not_writable()

    def select_rows(self, name: str, key: str, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return rows of an array: a view if they are consecutive, else a copy.

        A copy that exceeds the memory limit becomes an entry of its own and is mapped, too.

        Args:
            name: The name of the entry that the array belongs to.
            key: The key of that entry.
            array: uint8 or bool[N,…].
            rows: int64[n].
        """
        if len(rows) and (np.diff(rows) == 1).all():
            return array[int(rows[0]) : int(rows[-1]) + 1]
        column = CacheColumn(tuple(array.shape[1:]), str(array.dtype))
        if len(rows) * column.row_bytes <= self.memory_limit:
            return np.asarray(array[rows])
        digest = hashlib.sha256(np.asarray(rows, np.int64).tobytes()).hexdigest()[:16]
        arrays = self.get(
            f"{name}-rows",
            f"{key}-{digest}{array.dtype.kind}",
            len(rows),
            {"rows": column},
            lambda start, stop: {"rows": array[rows[start:stop]]},
        )
        return arrays["rows"]

    def generate(
        self,
        name: str,
        identity: Sequence[object],
        rows: int,
        columns: Mapping[str, CacheColumn],
        compute: ComputeRows,
    ) -> dict[str, np.ndarray]:
        """Return computed arrays: in memory, or as an entry if they exceed the memory limit.

        Args:
            name: A readable name.
            identity: Everything that the arrays depend on, as JSON values.
            rows: The length of every array.
            columns: The arrays by name.
            compute: Computes the rows from ``start`` to ``stop`` of every array.
        """
        if rows * sum(column.row_bytes for column in columns.values()) > self.memory_limit:
            key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
            return self.get(f"{name}-made", key, rows, columns, compute)
        arrays = {
            key: np.empty((rows, *column.shape), column.dtype) for key, column in columns.items()
        }
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            for key, block in compute(start, stop).items():
                arrays[key][start:stop] = block
        return arrays

    def _entry(
        self, name: str, key: str, rows: int, columns: Mapping[str, CacheColumn]
    ) -> CacheEntry:
        return CacheEntry(self.folder / f"{name}-{key}", rows, columns, self.chunk_bytes)

    @contextmanager
    def _lock(self, entry: CacheEntry) -> Iterator[None]:
        from filelock import FileLock

        try:
            entry.folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # a file system without folders
            raise self._not_writable() from None
        with FileLock(f"{entry.folder}.lock"):
            yield

    @contextmanager
    def _translate_errors(self, entry: CacheEntry) -> Iterator[None]:
        """Turn errors of a full disk or a read-only folder into a UserError."""
        try:
            yield
        except OSError as error:
            if error.errno in DISK_FULL:
                raise self._disk_full(entry) from None
            if error.errno in _NOT_WRITABLE:
                raise self._not_writable() from None
            raise

    def _disk_full(self, entry: CacheEntry) -> UserError:
        return UserError(
            f"there is no room for the decoded images in {self.folder} "
            f"({entry.bytes / 1e6:,.0f} MB are needed); free some space, or choose another folder "
            f"with --cache-dir or {CACHE_VARIABLE}."
        )

    def _not_writable(self) -> UserError:
        return UserError(
            f"the decoded images cannot be stored in {self.folder}, which cannot be written to; "
            f"choose another folder with --cache-dir or {CACHE_VARIABLE}."
        )
