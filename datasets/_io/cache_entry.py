"""One entry of the cache: .npy files that are written once and verified before reading."""

from __future__ import annotations

import errno
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.dataset import Progress
from benchmark.core.files import parse_json, read_json, write_atomic, write_json

VERSION = 1
#: The number of bytes that are written and verified at a time.
CHUNK_BYTES = 8 << 20
ENTRY_FILE = "entry.json"
VERIFIED_FILE = "verified.json"
JOURNAL_FILE = "progress.jsonl"
#: Errors of a full disk.
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: Computes the rows from ``start`` to ``stop`` of every array.
ComputeRows = Callable[[int, int], Mapping[str, np.ndarray]]


class DamagedEntryError(Exception):
    """An entry exists but differs from what was written."""


@dataclass(frozen=True)
class CacheColumn:
    """The description of one array of an entry.

    Args:
        shape: The shape of a row.
        dtype: The type of the numbers.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"

    @property
    def row_bytes(self) -> int:
        """The size of a row in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def header(self, rows: int) -> bytes:
        """Return the header of the .npy file."""
        out = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(self.dtype))
        np.lib.format.write_array_header_1_0(
            out, {"descr": descr, "fortran_order": False, "shape": (rows, *self.shape)}
        )
        return out.getvalue()


@dataclass(frozen=True)
class CacheEntry:
    """An entry: ``folder/<column>.npy``, and ``folder/entry.json``, which is written last.

    Args:
        folder: The folder of the entry.
        rows: The length of every array.
        columns: The arrays by name.
        chunk_bytes: The number of bytes that are written and verified at a time.
    """

    folder: Path
    rows: int
    columns: Mapping[str, CacheColumn]
    chunk_bytes: int = CHUNK_BYTES

    @property
    def bytes(self) -> int:
        """The size of the complete entry in bytes, without headers."""
        return self.rows * self._row_bytes

    @property
    def chunk(self) -> int:
        """The number of rows per chunk."""
        return max(1, self.chunk_bytes // max(1, self._row_bytes))

    @property
    def _row_bytes(self) -> int:
        return sum(column.row_bytes for column in self.columns.values())

    def reusable_bytes(self) -> int:
        """Return the size of an incomplete or damaged entry, which will be overwritten."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy*"))

    def chunks(self) -> list[tuple[int, int]]:
        """Return the first row of each chunk and the row after its last."""
        starts = range(0, self.rows, self.chunk)
        return [(start, min(start + self.chunk, self.rows)) for start in starts]

    def open(self, *, checksums: bool = True, force: bool = False) -> dict[str, np.ndarray] | None:
        """Map the arrays into memory, read-only.

        Args:
            checksums: Compare checksums unless that was done since the files last changed.
            force: Compare checksums in any case.

        Returns:
            The arrays by name, or None if there is no complete entry.

        Raises:
            DamagedEntryError: If the files differ from what was written.
        """
        try:
            entry = read_json(self.folder / ENTRY_FILE)
            sums = {name: entry["arrays"][name] for name in self.columns}
            layout = (entry["version"], entry["rows"], entry["chunk"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedEntryError(f"{ENTRY_FILE} cannot be read: {error}") from None
        if layout != (VERSION, self.rows, self.chunk):
            raise DamagedEntryError(f"{ENTRY_FILE} has another version or size")
        arrays = {name: self._map(name) for name in self.columns}
        stamps = self._stamps()
        if force or (checksums and stamps != self._verified_stamps()):
            for name, array in arrays.items():
                if list(_checksums(array, self.chunks())) != sums[name]:
                    raise DamagedEntryError(f"{name}.npy differs from what was written")
            self._save_verified(stamps)
        return arrays

    def build(self, compute: ComputeRows, progress: Progress) -> None:
        """Write all arrays, then the entry file.

        Chunks of an interrupted build are kept if their checksums match.

        Raises:
            OSError: If the folder cannot be written to, or the disk is full. In the latter case
                the files are removed.
        """
        (self.folder / ENTRY_FILE).unlink(missing_ok=True)
        parts = {name: self.folder / f"{name}.npy.part" for name in self.columns}
        try:
            lines = self._resume(parts)
            self._write(parts, lines, compute, progress)
        except OSError as error:
            if error.errno in DISK_FULL:
                for path in (*parts.values(), self.folder / JOURNAL_FILE):
                    path.unlink(missing_ok=True)
            raise
        for name, path in parts.items():
            os.replace(path, self._file(name))
        sums = {name: [line[name] for line in lines] for name in self.columns}
        entry = {"version": VERSION, "rows": self.rows, "chunk": self.chunk, "arrays": sums}
        write_atomic(self.folder / ENTRY_FILE, json.dumps(entry).encode())
        self._save_verified(self._stamps())
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)
        progress(self.rows, self.rows)

    def _write(
        self,
        parts: Mapping[str, Path],
        lines: list[dict[str, int]],
        compute: ComputeRows,
        progress: Progress,
    ) -> None:
        """Append the missing chunks, and their checksums to ``lines`` and to the journal."""
        mode = "r+b" if lines else "wb"
        files = {name: path.open(mode, buffering=0) for name, path in parts.items()}
        try:
            with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as journal:
                for name, file in files.items():
                    _write_at(file, self.columns[name].header(self.rows), 0)
                for start, stop in self.chunks()[len(lines) :]:
                    progress(start, self.rows)
                    computed = compute(start, stop)
                    line = {}
                    for name, file in files.items():
                        data = self._to_bytes(name, computed[name], stop - start)
                        _write_at(file, data, self._offset(name, start))
                        line[name] = zlib.crc32(data.data)
                    lines.append(line)
                    journal.write(json.dumps(line) + "\n")
                    journal.flush()
            for file in files.values():
                os.fsync(file.fileno())
        finally:
            for file in files.values():
                file.close()

    def _resume(self, parts: Mapping[str, Path]) -> list[dict[str, int]]:
        """Return the checksums of the finished chunks that match the files, and truncate the rest.

        Only the journal is truncated; the files are overwritten from there on.
        """
        lines: list[dict[str, int]] = []
        try:
            journal = (self.folder / JOURNAL_FILE).read_text(encoding="utf-8")
            recorded = [parse_json(line) for line in journal.splitlines()]
            for (start, stop), line in zip(self.chunks(), recorded, strict=False):
                for name, path in parts.items():
                    with path.open("rb") as file:
                        file.seek(self._offset(name, start))
                        data = file.read((stop - start) * self.columns[name].row_bytes)
                    if zlib.crc32(data) != line[name]:
                        raise ValueError
                lines.append({name: line[name] for name in parts})
        except (OSError, ValueError, KeyError, TypeError):
            pass  # The journal ends here, or does not match the files from here on.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / JOURNAL_FILE).write_text(text, encoding="utf-8")
        return lines

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _offset(self, name: str, row: int) -> int:
        column = self.columns[name]
        return len(column.header(self.rows)) + row * column.row_bytes

    def _to_bytes(self, name: str, array: np.ndarray, rows: int) -> np.ndarray:
        column = self.columns[name]
        if array.shape != (rows, *column.shape) or array.dtype != np.dtype(column.dtype):
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)}, expected {rows} rows of {column}"
            )
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def _map(self, name: str) -> np.ndarray:
        column = self.columns[name]
        path = self._file(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise DamagedEntryError(f"{name}.npy cannot be mapped: {error}") from None
        if array.shape != (self.rows, *column.shape) or array.dtype != np.dtype(column.dtype):
            raise DamagedEntryError(f"{name}.npy is {array.dtype}{list(array.shape)}")
        expected = self._offset(name, self.rows)
        if size != expected:
            raise DamagedEntryError(f"{name}.npy has {size} bytes, expected {expected}")
        return array  # type: ignore[no-any-return]

    def _stamps(self) -> dict[str, list[int]]:
        """Return values that change with a file even if its modification time is set back."""
        stats = {name: self._file(name).stat() for name in self.columns}
        return {
            name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()
        }

    def _verified_stamps(self) -> Any:
        try:
            return read_json(self.folder / VERIFIED_FILE)
        except (OSError, ValueError):
            return None

    def _save_verified(self, stamps: Mapping[str, Any]) -> None:
        try:
            write_json(self.folder / VERIFIED_FILE, stamps)
        except OSError:  # A read-only cache is verified by every process.
            pass


def _write_at(file: Any, data: Any, offset: int) -> None:
    """Write all data; an unbuffered file may accept them in pieces."""
    view = memoryview(data)
    file.seek(offset)
    while len(view):
        view = view[file.write(view) :]


def _checksums(array: np.ndarray, chunks: list[tuple[int, int]]) -> Iterator[int]:
    for start, stop in chunks:
        yield zlib.crc32(np.ascontiguousarray(array[start:stop]).reshape(-1).view(np.uint8).data)
