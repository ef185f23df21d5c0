"""The members of .zip and .tar archives, read without trusting the archive.

Listing a compressed tar decompresses it, so size limits are enforced while members are listed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from benchmark.core.errors import UserError

#: The number of bytes that are read at a time. A tar header, such as a long name, is read at once
#: and must not be longer.
BLOCK_BYTES = 1 << 20
#: The first bytes of each kind of compressed tar, and the function that opens it.
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
#: Compression methods of zip members that Python supports.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
#: Files that some systems add to archives. They are ignored.
_SYSTEM_FILES = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True)
class Limits:
    """Limits that reject archives designed to exhaust the disk.

    Args:
        ratio: The contents may have this multiple of the archive's size, plus ``free_bytes``.
        free_bytes: The number of bytes that every archive may unpack to.
        members: The largest number of files and folders.
    """

    ratio: int = 100
    free_bytes: int = 200_000_000
    members: int = 5_000_000

    def max_bytes(self, archive: Path) -> int:
        """Return the number of bytes that an archive may unpack to."""
        return self.ratio * archive.stat().st_size + self.free_bytes

    def too_large(self, archive: Path, size: int) -> UserError:
        """Return the error for an archive that unpacks to at least ``size`` bytes."""
        return UserError(
            f"{archive} would unpack to {size / 1e9:,.1f} GB or more, more than {self.ratio} times "
            "its own size."
        )


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive.

    Args:
        name: The path in the archive.
        size: The declared size in bytes.
        is_folder: True for a folder.
        unsupported: A noun such as ``link`` if the member cannot be unpacked, else empty.
        open: Opens the contents of a file.
    """

    name: str
    size: int
    is_folder: bool
    unsupported: str
    open: Callable[[], IO[bytes]]


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[list[Member]]:
    """Open an archive and list its members, without files that operating systems add.

    Raises:
        UserError: If it is not an archive or exceeds the limits.
    """
    with ExitStack() as files:
        if zipfile.is_zipfile(path):
            archive = files.enter_context(zipfile.ZipFile(path))
            yield _list_members(path, _zip_members(archive), limits)
        else:
            yield _open_tar(path, files, limits)


def _open_tar(path: Path, files: ExitStack, limits: Limits) -> list[Member]:
    with path.open("rb") as file:
        start = file.read(max(map(len, _OPENERS)))
    opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), None)
    stream = files.enter_context(opener(path) if opener else path.open("rb"))
    try:
        archive = tarfile.open(fileobj=_BoundedReader(stream), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    except tarfile.TarError:
        raise UserError(
            f"{path} is neither a .zip nor a .tar archive; unpack it by hand."
        ) from None
    members = _list_members(path, _tar_members(files.enter_context(archive)), limits)
    _read_to_end(path, stream, limits, compressed=opener is not None)
    return members


class _BoundedReader:
    """A file that refuses to read more than a block at a time, since tar headers declare sizes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= BLOCK_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _list_members(path: Path, members: Iterator[Member], limits: Limits) -> list[Member]:
    """List members one by one: advancing in a tar decompresses the current member."""
    listed: list[Member] = []
    total = 0
    max_bytes = limits.max_bytes(path)
    for member in members:
        if len(listed) >= limits.members:
            raise UserError(
                f"{path} holds more than the {limits.members:,} files that are allowed."
            )
        total += member.size
        if total > max_bytes:
            raise limits.too_large(path, total)
        if not _is_system_file(member.name):
            listed.append(member)
    return listed


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for item in archive.infolist():
        is_folder = item.filename.endswith("/")  # `is_dir` fails if the name is empty
        unsupported = ""
        if item.flag_bits & 1:
            unsupported = "encrypted file"
        elif item.compress_type not in _ZIP_METHODS:
            unsupported = f"file of an unknown kind of compression ({item.compress_type})"
        elif not is_folder and stat.S_ISLNK(item.external_attr >> 16):
            unsupported = "link"
        yield Member(
            item.filename, item.file_size, is_folder, unsupported, partial(archive.open, item)
        )


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for item in archive:
        unsupported = ""
        if item.issym() or item.islnk():
            unsupported = "link"
        elif not (item.isdir() or item.isreg()):
            unsupported = "device"
        yield Member(
            item.name, item.size, item.isdir(), unsupported, partial(_extract, archive, item)
        )


def _extract(archive: tarfile.TarFile, item: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(item)
    assert file is not None  # only called for regular files
    return file


def _read_to_end(path: Path, stream: IO[bytes], limits: Limits, *, compressed: bool) -> None:
    """Raise an error if the end of a tar is missing, which tarfile mistakes for its end."""
    max_bytes = limits.max_bytes(path)
    while stream.read(BLOCK_BYTES):  # the checksum of a compressed file is compared at its end
        if stream.tell() > max_bytes:
            raise limits.too_large(path, stream.tell())
    if not compressed:
        stream.seek(max(0, path.stat().st_size - 1024))
        if stream.read().strip(b"\0"):
            raise EOFError("its end is missing")


def _is_system_file(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part in _SYSTEM_FILES or part.startswith("._") for part in parts)
