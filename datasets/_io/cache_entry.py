"""One entry of the cache: its arrays in files, written once, and checked before they are read."""

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

from benchmark.core.files import parse_json, read_json, write_atomic, write_json

VERSION = 1
#: Bytes that are written, and checked, at a time.
CHUNK = 8 << 20
ENTRY, VERIFIED, JOURNAL = "entry.json", "verified.json", "progress.jsonl"
#: What a full disk answers.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: Makes the rows from ``start`` to ``stop`` of every array.
Fill = Callable[[int, int], Mapping[str, np.ndarray]]
#: Called with the number of rows done and the number of rows in all.
Progress = Callable[[int, int], None]


class Damaged(Exception):
    """An entry that is there and is not what it should be."""


@dataclass(frozen=True)
class CacheColumn:
    """One array of an entry: the shape of a row, and the type of its numbers."""

    shape: tuple[int, ...]
    dtype: str = "uint8"

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def header(self, rows: int) -> bytes:
        """The first bytes of the .npy file."""
        out = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(self.dtype))
        np.lib.format.write_array_header_1_0(
            out, {"descr": descr, "fortran_order": False, "shape": (rows, *self.shape)}
        )
        return out.getvalue()


@dataclass(frozen=True)
class Entry:
    """Where it is and what it must be: ``folder/<column>.npy`` and ``folder/entry.json``, which is written last."""

    folder: Path
    rows: int
    columns: Mapping[str, CacheColumn]

    @property
    def bytes(self) -> int:
        return self.rows * sum(column.row_bytes for column in self.columns.values())

    def bytes_there(self) -> int:
        """What an interrupted or damaged entry occupies: it will be overwritten."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy*"))

    @property
    def chunk(self) -> int:
        """Rows to a chunk."""
        return max(1, CHUNK // max(1, sum(column.row_bytes for column in self.columns.values())))

    def chunks(self) -> list[tuple[int, int]]:
        return [
            (start, min(start + self.chunk, self.rows)) for start in range(0, self.rows, self.chunk)
        ]

    def open(self, checksums: bool = True, again: bool = False) -> dict[str, np.ndarray] | None:
        """The arrays, mapped into memory and read-only, or None where there is no finished entry.

        Args:
            checksums: compare them, unless that was done since the files last changed; again: in any case.

        Raises:
            Damaged: something is not as it was written.
        """
        try:
            entry = read_json(self.folder / ENTRY)
            sums = {name: entry["arrays"][name] for name in self.columns}
            if (entry["version"], entry["rows"], entry["chunk"]) != (
                VERSION,
                self.rows,
                self.chunk,
            ):
                raise Damaged(f"{ENTRY} is of another kind")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{ENTRY} cannot be read: {error}") from None
        arrays = {name: self._map(name) for name in self.columns}
        stamps = self._stamps()
        if again or (checksums and stamps != self._verified()):
            for name, array in arrays.items():
                if list(_checksums(array, self.chunks())) != sums[name]:
                    raise Damaged(f"{name}.npy has other bytes than were written")
            self._remember(stamps)
        return arrays

    def build(self, fill: Fill, progress: Progress) -> None:
        """Write all arrays, then the entry. The finished part of an earlier try is kept where its checksums agree.

        Raises:
            OSError: the disk is full (then nothing is left behind), or cannot be written to.
        """
        (self.folder / ENTRY).unlink(missing_ok=True)
        parts = {name: self.folder / f"{name}.npy.part" for name in self.columns}
        try:
            lines = self._resume(parts)
            self._write(parts, lines, fill, progress)
        except OSError as error:
            if error.errno in FULL:  # leave no room taken on a full disk
                for path in (*parts.values(), self.folder / JOURNAL):
                    path.unlink(missing_ok=True)
            raise
        for name, path in parts.items():
            os.replace(path, self._file(name))
        sums = {name: [line[name] for line in lines] for name in self.columns}
        entry = {"version": VERSION, "rows": self.rows, "chunk": self.chunk, "arrays": sums}
        write_atomic(self.folder / ENTRY, json.dumps(entry).encode())
        self._remember(self._stamps())
        (self.folder / JOURNAL).unlink(missing_ok=True)
        progress(self.rows, self.rows)

    def _write(
        self, parts: Mapping[str, Path], lines: list[dict[str, int]], fill: Fill, progress: Progress
    ) -> None:
        """Add what is missing to the parts, and a line of checksums per chunk to ``lines`` and to the journal."""
        files = {
            name: path.open("r+b" if lines else "wb", buffering=0) for name, path in parts.items()
        }
        try:
            with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
                for name, file in files.items():
                    _put(file, self.columns[name].header(self.rows), 0)
                for start, stop in self.chunks()[len(lines) :]:
                    progress(start, self.rows)
                    made, line = fill(start, stop), {}
                    for name, file in files.items():
                        data = self._bytes(name, made[name], stop - start)
                        _put(file, data, self._offset(name, start))
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
        """Checksums of the chunks that an earlier try finished, as far as they agree with what is on the disk."""
        lines: list[dict[str, int]] = []
        try:
            journal = (self.folder / JOURNAL).read_text(encoding="utf-8")
            told = [parse_json(line) for line in journal.splitlines()]
            for (start, stop), line in zip(self.chunks(), told, strict=False):
                for name, path in parts.items():
                    with path.open("rb") as file:
                        file.seek(self._offset(name, start))
                        if (
                            zlib.crc32(file.read((stop - start) * self.columns[name].row_bytes))
                            != line[name]
                        ):
                            raise ValueError
                lines.append({name: line[name] for name in parts})
        except (OSError, ValueError, KeyError, TypeError):
            pass  # the journal ends, or stops being true, here
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.folder / JOURNAL).write_text(text, encoding="utf-8")
        return lines

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _offset(self, name: str, row: int) -> int:
        return len(self.columns[name].header(self.rows)) + row * self.columns[name].row_bytes

    def _bytes(self, name: str, made: np.ndarray, rows: int) -> np.ndarray:
        column = self.columns[name]
        if made.shape != (rows, *column.shape) or made.dtype != np.dtype(column.dtype):
            raise ValueError(
                f"{name}: {rows} rows of {column} were made as {made.dtype}{list(made.shape)}"
            )
        return np.ascontiguousarray(made).reshape(-1).view(np.uint8)

    def _map(self, name: str) -> np.ndarray:
        column, path = self.columns[name], self._file(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise Damaged(f"{name}.npy cannot be mapped: {error}") from None
        if array.shape != (self.rows, *column.shape) or array.dtype != np.dtype(column.dtype):
            raise Damaged(f"{name}.npy holds {array.dtype}{list(array.shape)}")
        if size != self._offset(name, self.rows):
            raise Damaged(f"{name}.npy has {size} bytes, expected {self._offset(name, self.rows)}")
        return array  # type: ignore[no-any-return]

    def _stamps(self) -> dict[str, list[int]]:
        """What changes when a file does, even where its time of change is set back."""
        stats = {name: self._file(name).stat() for name in self.columns}
        return {
            name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()
        }

    def _verified(self) -> Any:
        try:
            return read_json(self.folder / VERIFIED)
        except (OSError, ValueError):
            return None

    def _remember(self, stamps: Mapping[str, Any]) -> None:
        try:
            write_json(self.folder / VERIFIED, stamps)
        except OSError:  # a cache that is shared read-only is checked by every process
            pass


def _put(file: Any, data: Any, offset: int) -> None:
    """Write all of ``data``; unbuffered files may take it in pieces."""
    view = memoryview(data)
    file.seek(offset)
    while len(view):
        view = view[file.write(view) :]


def _checksums(array: np.ndarray, chunks: list[tuple[int, int]]) -> Iterator[int]:
    for start, stop in chunks:
        yield zlib.crc32(np.ascontiguousarray(array[start:stop]).reshape(-1).view(np.uint8).data)
