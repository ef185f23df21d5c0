"""Archives from elsewhere, unpacked with suspicion: nothing outside the target, no links, no bombs."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from benchmark.core.errors import UserError, shown
from benchmark.core.files import check_folder

#: An archive may unpack to so many times its own size, and always to FREE bytes; more is a bomb, or no data set.
RATIO, FREE = 100, 200_000_000
MEMBERS = 5_000_000
#: Bytes of a name in a path, and of the whole path below the target.
NAME, PATH = 255, 3_500
#: Bytes that are read at a time; a tar's header, such as a long name, is read at once and must not be longer.
BLOCK = 1 << 20
#: How each kind of compressed tar begins, and what opens it.
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
#: Ways of compressing a member of a zip that Python can undo.
_KNOWN_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
#: What some systems add to archives; it is no data.
_CLUTTER = ("__MACOSX", ".DS_Store")
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    NotImplementedError,
)

#: Called with bytes unpacked and bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive; ``open`` gives its bytes, and is None for a folder."""

    name: str
    size: int
    kind: str  # file, folder, or what else it claims to be
    open: Callable[[], IO[bytes]] | None


def unpack(archive: Path, target: Path, progress: Progress | None = None) -> int:
    """Unpack a .zip or a .tar (compressed or not) below ``target``; returns the number of files.

    Everything is judged before the first byte is written. Each file replaces one of its name at once, when it is whole.

    Raises:
        UserError: it is no archive or a damaged one, or holds a path outside the target, a link or a device, a file
            without a name, one name twice, a name that is too long, too many members, more bytes than a hundred times
            its own size, or more than the disk has room for.
    """
    if not archive.is_file():
        what = "is a folder" if archive.is_dir() else "is not there"
        raise UserError(f"{archive} {what}; give the path of an archive, .zip or .tar.")
    try:
        with _opened(archive) as (members, total):
            _judge(archive, target, members, total)
            target.mkdir(parents=True, exist_ok=True)
            done = files = 0
            for member in members:
                path = target / _inside(archive, member.name)
                if member.open is None:
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source:
                    _write(archive, path, source, member)
                done, files = done + member.size, files + 1
                if progress is not None:
                    progress(done, total)
            return files
    except UserError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EACCES,
            errno.EROFS,
            errno.EDQUOT,
        ):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{archive} cannot be unpacked ({why}); fetch it again.") from None


class _opened:  # noqa: N801 - reads like a function
    """The members of an archive, and the bytes that they promise, while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = ExitStack()

    def __enter__(self) -> tuple[list[Member], int]:
        try:
            if zipfile.is_zipfile(self.path):
                members = self._listed(
                    _zipped(self.files.enter_context(zipfile.ZipFile(self.path)))
                )
            else:
                members = self._tar()
        except BaseException:
            self.files.close()
            raise
        return members, sum(member.size for member in members)

    def __exit__(self, *_: object) -> None:
        self.files.close()

    def _tar(self) -> list[Member]:
        with self.path.open("rb") as file:
            start = file.read(6)
        opener = next((o for magic, o in _OPENERS.items() if start.startswith(magic)), None)
        plain = self.files.enter_context((opener or _open)(self.path))
        try:
            opened = tarfile.open(fileobj=_Bounded(plain), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        except tarfile.TarError:
            raise UserError(
                f"{self.path} is neither a .zip nor a .tar archive; unpack it by hand."
            ) from None
        members = self._listed(_tarred(self.files.enter_context(opened)))
        _read_to_end(self.path, plain, compressed=opener is not None)
        return members

    def _listed(self, members: Iterator[Member]) -> list[Member]:
        """The members, judged one by one: to go on to the next member of a tar is to decompress this one."""
        kept: list[Member] = []
        total, bound = 0, _most_bytes(self.path)
        for member in members:
            if len(kept) >= MEMBERS:
                raise UserError(
                    f"{self.path} holds more than the {MEMBERS:,} files that are allowed."
                )
            total += member.size
            if total > bound:
                raise UserError(
                    f"{self.path} would unpack to {total / 1e9:,.1f} GB or more, more than {RATIO} times its own size."
                )
            if not _clutter(member.name):
                kept.append(member)
        return kept


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


class _Bounded:
    """A file that refuses to read more than a block at a time: a tar says itself how long its headers are."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= BLOCK:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _most_bytes(archive: Path) -> int:
    return RATIO * archive.stat().st_size + FREE


def _zipped(archive: zipfile.ZipFile) -> Iterator[Member]:
    for item in archive.infolist():
        mode = item.external_attr >> 16
        folder = item.filename.endswith("/")  # `is_dir` fails where there is no name
        kind = "folder" if folder else "link" if stat.S_ISLNK(mode) else "file"
        if item.flag_bits & 1:
            kind = "encrypted file"
        elif item.compress_type not in _KNOWN_METHODS:
            kind = f"file of an unknown kind of compression ({item.compress_type})"
        yield Member(
            item.filename, item.file_size, kind, None if folder else partial(archive.open, item)
        )


def _tarred(archive: tarfile.TarFile) -> Iterator[Member]:
    for item in archive:
        link = item.issym() or item.islnk()
        kind = (
            "folder" if item.isdir() else "file" if item.isreg() else "link" if link else "device"
        )
        yield Member(
            item.name, item.size, kind, None if item.isdir() else partial(_extract, archive, item)
        )


def _read_to_end(path: Path, file: IO[bytes], *, compressed: bool) -> None:
    """Raise an error where the end is cut off: tarfile takes that for the end of the archive."""
    bound = _most_bytes(path)
    while file.read(BLOCK):  # a compressed file's checksum is compared at its end
        if file.tell() > bound:
            raise UserError(
                f"{path} would unpack to {file.tell() / 1e9:,.1f} GB or more, more than {RATIO} times its own size."
            )
    if not compressed:
        file.seek(max(0, path.stat().st_size - 1024))
        if file.read().strip(b"\0"):
            raise EOFError("its end is missing")


def _extract(archive: tarfile.TarFile, item: tarfile.TarInfo) -> IO[bytes]:
    found = archive.extractfile(item)
    assert found is not None  # only plain files come here
    return found


def _clutter(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part in _CLUTTER or part.startswith("._") for part in parts)


def _judge(archive: Path, target: Path, members: list[Member], total: int) -> None:
    kinds: dict[str, str] = {}  # path -> file or folder
    for member in members:
        path = _inside(archive, member.name)
        if member.kind not in ("file", "folder"):
            raise UserError(
                f"{archive} holds the {member.kind} {shown(member.name)}; only plain files are unpacked."
            )
        if member.kind == "file" and path == ".":
            raise UserError(f"{archive} holds a file without a name; remove it from there.")
        if member.kind == "file" and kinds.get(path) == "file":
            raise UserError(f"{archive} holds {shown(path)} twice; remove one of them.")
        if kinds.setdefault(path, member.kind) != member.kind:
            raise _both(archive, path)
    for path in [path for path, kind in kinds.items() if kind == "file"]:
        while "/" in path:
            path = path.rpartition("/")[0]
            if kinds.setdefault(path, "folder") == "file":
                raise _both(archive, path)
    _judge_target(archive, target, kinds)
    there = next(
        parent for parent in (target.absolute(), *target.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(there).free
    if total > free:
        raise UserError(
            f"{archive} unpacks to {total / 1e6:,.0f} MB and {there} has room for {free / 1e6:,.0f} MB; make room."
        )


def _both(archive: Path, path: str) -> UserError:
    return UserError(
        f"{archive} holds {shown(path)} as a file and as a folder; remove one of them."
    )


def _judge_target(archive: Path, target: Path, kinds: dict[str, str]) -> None:
    """Raise a UserError where what is there already has another kind than what would be unpacked to its place."""
    check_folder(target, "--data-dir")
    if not target.is_dir():
        return
    for path, kind in kinds.items():
        place = target / path
        if kind == "folder" and os.path.lexists(place) and not place.is_dir():
            raise UserError(f"{place} is no folder, as in {archive}; move it away.")
        if kind == "file" and place.is_dir():
            raise UserError(f"{place} is a folder, and a file in {archive}; move it away.")


def _inside(archive: Path, name: str) -> str:
    """A member's name as a relative path that stays where it is put, with ``/`` between its parts."""
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or (path.parts and path.parts[0].endswith(":"))
        or "\0" in name
    ):
        raise UserError(
            f"{archive} holds the path {shown(name)}, which leads outside the folder that it is unpacked to."
        )
    sizes = [len(os.fsencode(part)) for part in path.parts]
    if any(size > NAME for size in sizes) or sum(sizes) + len(sizes) > PATH:
        raise UserError(
            f"{archive} holds the path {shown(name)}, which is too long; expected names of at most {NAME} bytes."
        )
    return path.as_posix()


def _write(archive: Path, path: Path, source: IO[bytes], member: Member) -> None:
    """Write one file next to its place, then move it there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unpack-")
    left = member.size
    try:
        with os.fdopen(handle, "wb") as out:
            while block := source.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise UserError(
                        f"{archive}: {member.name!r} is longer than the archive says; fetch it again."
                    )
                out.write(block)
        if left:
            raise UserError(f"{archive}: {member.name!r} is cut off; fetch it again.")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
