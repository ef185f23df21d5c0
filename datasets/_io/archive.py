"""Safe unpacking of archives: nothing outside the target, no links, no decompression bombs."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from benchmark.core.dataset import Progress
from benchmark.core.errors import UserError, shown
from benchmark.core.files import check_folder
from datasets._io.archive_members import BLOCK_BYTES, Limits, Member, open_archive

#: The largest number of bytes of a name in a path.
_MAX_NAME_BYTES = 255
#: The largest number of bytes of a path below the target.
_MAX_PATH_BYTES = 3_500
#: Exceptions that are raised on damaged archives.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    NotImplementedError,
)
#: Errors of the target, which do not mean that the archive is damaged.
_TARGET_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT}


def unpack(
    archive: Path, target: Path, progress: Progress | None = None, limits: Limits | None = None
) -> int:
    """Unpack a .zip or a .tar archive, compressed or not.

    All members are checked before anything is written. Existing files are replaced atomically.

    Args:
        archive: The archive.
        target: The folder to unpack to; it is created if necessary.
        progress: Called with the number of bytes unpacked and the total.
        limits: Limits on the size and number of files.

    Returns:
        The number of files.

    Raises:
        UserError: If the file is not an archive or is damaged, or if it contains a path outside the
            target, a link, a device, a file without a name, a name twice, a name that is too long,
            or more files or bytes than the limits or the disk allow.
    """
    if not archive.is_file():
        state = "is a folder" if archive.is_dir() else "does not exist"
        raise UserError(f"{archive} {state}; give the path of an archive, .zip or .tar.")
    try:
        with open_archive(archive, limits or Limits()) as members:
            _check_members(archive, target, members)
            target.mkdir(parents=True, exist_ok=True)
            return _write_members(archive, target, members, progress)
    except UserError:
        raise
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno in _TARGET_ERRORS:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{archive} cannot be unpacked ({reason}); fetch it again.") from None


def _write_members(
    archive: Path, target: Path, members: list[Member], progress: Progress | None
) -> int:
    """Write all members and return the number of files."""
    total = sum(member.size for member in members)
    done = 0
    files = 0
    for member in members:
        path = target / _relative_path(archive, member.name)
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source:
            _write_file(archive, path, source, member)
        done += member.size
        files += 1
        if progress is not None:
            progress(done, total)
    return files


def _check_members(archive: Path, target: Path, members: list[Member]) -> None:
    """Check that all members can be unpacked below the target."""
    is_folder: dict[str, bool] = {}
    for member in members:
        path = _relative_path(archive, member.name)
        if member.unsupported:
            raise UserError(
                f"{archive} holds the {member.unsupported} {shown(member.name)}; only plain files "
                "are unpacked."
            )
        if not member.is_folder and path == ".":
            raise UserError(f"{archive} holds a file without a name; remove it from the archive.")
        if not member.is_folder and is_folder.get(path) is False:
            raise UserError(f"{archive} holds {shown(path)} twice; remove one of them.")
        if is_folder.setdefault(path, member.is_folder) != member.is_folder:
            raise _file_and_folder(archive, path)
    for path in [path for path, folder in is_folder.items() if not folder]:
        while "/" in path:
            path = path.rpartition("/")[0]
            if not is_folder.setdefault(path, True):
                raise _file_and_folder(archive, path)
    _check_target(archive, target, is_folder)
    _check_space(archive, target, sum(member.size for member in members))


def _file_and_folder(archive: Path, path: str) -> UserError:
    return UserError(
        f"{archive} holds {shown(path)} as a file and as a folder; remove one of them."
    )


def _check_target(archive: Path, target: Path, is_folder: dict[str, bool]) -> None:
    """Check that no existing file would be replaced by a folder, or the reverse."""
    check_folder(target, "--data-dir")
    if not target.is_dir():
        return
    for path, folder in is_folder.items():
        existing = target / path
        if folder and os.path.lexists(existing) and not existing.is_dir():
            raise UserError(f"{existing} is not a folder, but it is in {archive}; move it away.")
        if not folder and existing.is_dir():
            raise UserError(f"{existing} is a folder, but a file in {archive}; move it away.")


def _check_space(archive: Path, target: Path, size: int) -> None:
    """Check that the disk has room for ``size`` bytes."""
    folders = (target.absolute(), *target.absolute().parents)
    existing = next(folder for folder in folders if folder.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise UserError(
            f"{archive} unpacks to {size / 1e6:,.0f} MB, but {existing} has only "
            f"{free / 1e6:,.0f} MB left; free some space."
        )


def _relative_path(archive: Path, name: str) -> str:
    """Return a member's name as a path below the target, with ``/`` between its parts."""
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = bool(path.parts) and path.parts[0].endswith(":")
    if path.is_absolute() or ".." in path.parts or has_drive or "\0" in name:
        raise UserError(
            f"{archive} holds the path {shown(name)}, which leads outside the folder that it is "
            "unpacked to."
        )
    sizes = [len(os.fsencode(part)) for part in path.parts]
    if max(sizes, default=0) > _MAX_NAME_BYTES or sum(sizes) + len(sizes) > _MAX_PATH_BYTES:
        raise UserError(
            f"{archive} holds the path {shown(name)}, which is too long; expected names of at most "
            f"{_MAX_NAME_BYTES} bytes."
        )
    return path.as_posix()


def _write_file(archive: Path, path: Path, source: IO[bytes], member: Member) -> None:
    """Write a temporary file in the same folder, then move it into place."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".unpack-")
    left = member.size
    try:
        with os.fdopen(handle, "wb") as out:
            while block := source.read(BLOCK_BYTES):
                left -= len(block)
                if left < 0:
                    raise UserError(
                        f"{archive}: {member.name!r} is longer than the archive declares; fetch it "
                        "again."
                    )
                out.write(block)
        if left:
            raise UserError(f"{archive}: {member.name!r} is truncated; fetch it again.")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
