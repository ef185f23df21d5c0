"""Archives from elsewhere, unpacked with suspicion: nothing outside the target, no links, no bombs."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from benchmark.core.errors import UserError

#: An archive may unpack to so many times its own size, and always to FREE bytes; more is a bomb, or no data set.
RATIO, FREE = 100, 200_000_000
MEMBERS = 5_000_000
#: What some systems add to archives; it is no data.
_CLUTTER = ("__MACOSX", ".DS_Store")
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
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
        UserError: it is no archive or a damaged one, or holds a path outside the target, a link or a device, too many
            members, more bytes than a hundred times its own size, or more than the disk has room for.
    """
    if not archive.is_file():
        raise UserError(f"{archive} is not there; give the path of an archive, .zip or .tar.")
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

    def __enter__(self) -> tuple[list[Member], int]:
        if zipfile.is_zipfile(self.path):
            self.archive: zipfile.ZipFile | tarfile.TarFile = zipfile.ZipFile(self.path)
            members = list(_zipped(self.archive))
        elif tarfile.is_tarfile(self.path):
            self.archive = tarfile.open(self.path)
            members = list(_tarred(self.archive))
            _read_to_end(self.path, self.archive)
        else:
            raise UserError(f"{self.path} is neither a .zip nor a .tar archive; unpack it by hand.")
        members = [m for m in members if not _clutter(m.name)]
        return members, sum(member.size for member in members)

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "archive"):
            self.archive.close()


def _zipped(archive: zipfile.ZipFile) -> Iterator[Member]:
    for item in archive.infolist():
        mode = item.external_attr >> 16
        kind = "folder" if item.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
        if item.flag_bits & 1:
            kind = "encrypted file"
        yield Member(
            item.filename,
            item.file_size,
            kind,
            None if item.is_dir() else partial(archive.open, item),
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


def _read_to_end(path: Path, archive: tarfile.TarFile) -> None:
    """Raise an error where the end is cut off: tarfile takes that for the end of the archive."""
    assert archive.fileobj is not None
    while archive.fileobj.read(1 << 20):  # a compressed file's checksum is compared at its end
        pass
    if type(archive.fileobj) is io.BufferedReader:
        with path.open("rb") as file:
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
    if len(members) > MEMBERS:
        raise UserError(
            f"{archive} holds {len(members):,} files, more than the {MEMBERS:,} that are allowed."
        )
    for member in members:
        _inside(archive, member.name)
        if member.kind not in ("file", "folder"):
            raise UserError(
                f"{archive} holds the {member.kind} {member.name!r}; only plain files are unpacked."
            )
    bound = RATIO * archive.stat().st_size + FREE
    if total > bound:
        raise UserError(
            f"{archive} would unpack to {total / 1e9:,.1f} GB, more than {RATIO} times its own size."
        )
    there = next(
        parent for parent in (target.absolute(), *target.absolute().parents) if parent.exists()
    )
    free = shutil.disk_usage(there).free
    if total > free:
        raise UserError(
            f"{archive} unpacks to {total / 1e6:,.0f} MB and {there} has room for {free / 1e6:,.0f} MB; make room."
        )


def _inside(archive: Path, name: str) -> Path:
    """A member's name as a relative path that stays where it is put."""
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or (path.parts and path.parts[0].endswith(":"))
        or "\0" in name
    ):
        raise UserError(
            f"{archive} holds the path {name!r}, which leads outside the folder that it is unpacked to."
        )
    return Path(*path.parts)


def _write(archive: Path, path: Path, source: IO[bytes], member: Member) -> None:
    """Write one file next to its place, then move it there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unpack-")
    left = member.size
    try:
        with os.fdopen(handle, "wb") as out:
            while block := source.read(1 << 20):
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
