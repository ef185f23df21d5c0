"""Reading and writing files: atomic writes, and reads with a limited size."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmark.core.errors import DamagedError, UserError, shown

#: Largest length of a path in bytes, if the file system does not tell.
_MAX_PATH = 4096
#: Largest length of a file name in bytes, if the file system does not tell.
_MAX_NAME = 255
#: Length in bytes of the paths of files inside a folder of results.
_INNER_PATH = 256
#: Seconds for which a comparison of two clocks holds.
_CLOCK_SECONDS = 600.0
#: Length in bytes that a temporary file adds to the name of the final file.
_TEMPORARY_SUFFIX = 16
#: Largest size of a JSON file in bytes: more than any table of counts needs.
JSON_BYTES = 1 << 28
#: Flags of ``os.open`` that read a file unchanged; Windows otherwise translates line ends.
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
#: Bytes that are read at a time of a file that has grown since its size was asked for.
_BUFFER_BYTES = 1 << 16


def write_atomic(path: Path, write: bytes | Callable[[IO[bytes]], None]) -> None:
    """Replace the content of a file: write a temporary file in the same folder, sync it, rename it.

    Args:
        path: The file.
        write: The content, or a function that writes it to an open binary file.

    Raises:
        OSError: If it cannot be written. The old content is then unchanged and the temporary file
            is removed.
    """
    temporary = _write_temporary(path, write)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def commit_once(path: Path, content: bytes) -> bool:
    """Create a file with all of its content unless it exists: the first writer wins.

    Returns:
        True if this call created the file.
    """
    temporary = _write_temporary(path, content)
    try:
        if not _link_once(temporary, path) and not _rename_once(temporary, path):
            return False
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def check_folder(path: Path, option: str = "--output") -> None:
    """Check that a path is a folder or can become one. Nothing is written.

    Args:
        path: The path.
        option: The command-line option that names the folder, for messages.

    Raises:
        UserError: If the path is a file or a broken link, or if a name or the path is too long.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise UserError(f"{name!r} has a null character; choose another folder with {option}.")
    whole = Path(os.path.abspath(name))
    existing = whole
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        kind = "a broken link" if existing.is_symlink() else "a file"
        raise UserError(f"{existing} is {kind}; choose a folder with {option}.")
    max_name = _path_limit(existing, "PC_NAME_MAX", _MAX_NAME)
    for part in whole.parts:
        length = len(os.fsencode(part))
        if length > max_name:
            raise UserError(
                f"the name {part[:40]}… has {length} bytes, expected at most {max_name}; "
                f"choose a shorter one with {option}."
            )
    max_path = _path_limit(existing, "PC_PATH_MAX", _MAX_PATH) - _INNER_PATH
    length = len(os.fsencode(whole))
    if length > max_path:
        raise UserError(
            f"the path {name[:40]}… has {length} bytes, expected at most {max_path}; "
            f"choose a shorter one with {option}."
        )


def check_file(path: Path, option: str = "--output") -> None:
    """Check that a file can be written at a path. Nothing is written.

    Args:
        path: The path.
        option: The command-line option that names the file, for messages.

    Raises:
        UserError: If the path is a folder, or if its name is too long.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; choose a file with {option}.")
    check_folder(path.parent, option)
    max_name = _path_limit(path.parent, "PC_NAME_MAX", _MAX_NAME) - _TEMPORARY_SUFFIX
    length = len(os.fsencode(path.name))
    if length > max_name:
        raise UserError(
            f"the name {path.name[:40]}… has {length} bytes, expected at most {max_name}; "
            f"choose a shorter one with {option}."
        )


def _path_limit(folder: Path, name: str, default: int) -> int:
    """Return a limit of the file system that contains a folder."""
    try:
        return os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):
        return default


class StagedFiles:
    """Files of one result that are written under temporary names and then renamed together.

    Use it in a ``with`` statement. Files that are not published at its end are removed, so that an
    interrupted result leaves nothing and replaces nothing.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Path]] = []

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for temporary, _path in self._waiting:
            Path(temporary).unlink(missing_ok=True)
        self._waiting.clear()

    def add(self, path: Path, write: bytes | Callable[[IO[bytes]], None]) -> None:
        """Write the content of a file to a temporary file in the same folder.

        Args:
            path: The final path.
            write: The content, or a function that writes it to an open binary file.

        Raises:
            OSError: If it cannot be written. The temporary file is then removed.
        """
        self._waiting.append((_write_temporary(path, write), path))

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every staged file, by its final name.

        Raises:
            OSError: If a file cannot be read.
        """
        return {path.name: sha256_of(Path(temporary)) for temporary, path in self._waiting}

    def publish(self) -> None:
        """Rename all files to their final names, replacing existing files.

        Raises:
            OSError: If a file cannot be renamed. The files after it keep their old content.
        """
        folders = {path.parent for _, path in self._waiting}
        while self._waiting:
            os.replace(*self._waiting[0])
            del self._waiting[0]
        for folder in folders:
            _sync_folder(folder)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically. NaN and infinity are errors, since they are not JSON."""
    write_atomic(path, to_json(value))


def to_json(value: Any, indent: int | None = 1) -> bytes:
    """Return a value as JSON with a final newline.

    Lone surrogates, as in file names that are not valid text, are written as JSON escapes.

    Args:
        value: The value.
        indent: Indentation, or None to write everything on one line.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(value, indent=indent, allow_nan=False)}\n".encode()


def read_json(path: Path, max_bytes: int = JSON_BYTES) -> Any:
    """Return the value stored in a JSON file.

    Args:
        path: The file.
        max_bytes: Largest size of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        DamagedError: If it is not a regular file, too large, not JSON, nested too deeply, or
            repeats a name within a table.
    """
    return parse_json(read_bytes(path, max_bytes), str(path))


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the content of a file.

    Args:
        path: The file. Pipes and devices are refused, since reading them might never end.
        max_bytes: Largest size of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        PermissionError: If it may not be read.
        DamagedError: If it is not a regular file, too large, or cannot be read.
    """
    size = require_file(path, max_bytes)
    try:
        # System calls alone: ``status`` reads thousands of files, and ``open`` makes more of them.
        descriptor = os.open(path, _READ_ONLY)
        try:
            content = os.read(descriptor, size + 1)
            while more := os.read(descriptor, _BUFFER_BYTES):
                content += more
            return content
        finally:
            os.close(descriptor)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error}).") from None


def require_file(path: str | os.PathLike[str], max_bytes: int) -> int:
    """Check that a path is a regular file of at most ``max_bytes`` bytes.

    Returns:
        Its size in bytes.

    Raises:
        FileNotFoundError: As in ``read_bytes``.
        PermissionError: As in ``read_bytes``.
        DamagedError: As in ``read_bytes``.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except (OSError, ValueError) as error:  # A loop of links, or a name with a null character.
        raise DamagedError(f"{path} cannot be read ({error}).") from None
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is not a file.")
    if status.st_size > max_bytes:
        raise DamagedError(f"{path} has {status.st_size:,} bytes, expected at most {max_bytes:,}.")
    return status.st_size


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(content: str | bytes, where: str = "the text") -> Any:
    """Return the value of a JSON text.

    Args:
        content: The text, or its UTF-8 encoding.
        where: Name of the file, for messages.

    Raises:
        DamagedError: If it is not JSON, nested too deeply, or repeats a name within a table.
    """
    try:
        return json.loads(content, object_pairs_hook=_table)
    except RecursionError:
        raise DamagedError(f"{where} cannot be read as JSON (it is nested too deeply).") from None
    except ValueError as error:
        raise DamagedError(f"{where} is not JSON ({error}).") from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the name {shown(repeated)} appears twice in one table")
    return table


def is_temporary(name: str, of: str | None = None) -> bool:
    """Return True if a file name is that of a temporary file of this module.

    Args:
        name: Name of a file, without its folder.
        of: Name of the final file; by default, any.
    """
    match = _TEMPORARY.fullmatch(name)
    return match is not None and of in (None, match[1])


def remove_abandoned(folder: Path, seconds: float, names: Iterable[str] | None = None) -> None:
    """Remove temporary files that a killed process left in a folder.

    Args:
        folder: The folder, which need not exist. Its subfolders are not visited.
        seconds: Minimum age of the removed files, so that files in use are kept.
        names: The names in the folder, if they are known already.
    """
    if names is None:
        try:
            names = os.listdir(folder)
        except OSError:
            return
    for name in filter(is_temporary, names):
        path = folder / name
        try:
            if file_system_time(folder) - path.stat().st_mtime > seconds:
                path.unlink()
        except OSError:  # Another process removed or renamed it.
            continue


#: The seconds by which the clock of a file system is ahead, and when this was measured, by folder.
_clock_offsets: dict[str, tuple[float, float]] = {}


def file_system_time(folder: str | os.PathLike[str]) -> float:
    """Return the current time by the clock that dates the files in a folder.

    On a network file system this is the clock of its server, from which that of this machine may
    differ. It is read off a new file that vanishes at once, at most every ten minutes.

    Args:
        folder: An existing folder. If it cannot be written, the local clock is taken.

    Returns:
        Seconds since 1970.
    """
    name = os.fspath(folder)
    now = time.monotonic()
    known = _clock_offsets.get(name)
    if known is None or now - known[1] > _CLOCK_SECONDS:
        try:
            with tempfile.TemporaryFile(dir=name, prefix=".clock.", suffix=".tmp") as file:
                offset = os.fstat(file.fileno()).st_mtime - time.time()
        except OSError:
            offset = 0.0
        known = _clock_offsets[name] = offset, now
    return time.time() + known[0]


#: Temporary files: a dot, the final name, random characters, and ``.tmp``.
_TEMPORARY = re.compile(r"\.(.+)\.[^.]+\.tmp", re.DOTALL)
#: Arguments of ``renameat2``: paths relative to the working folder; fail if the new name exists.
_WORKING_FOLDER = -100
_RENAME_NOREPLACE = 1
#: Errors of file systems without hard links; Windows reports EINVAL.
_NO_LINKS = {
    getattr(errno, name)
    for name in ("EPERM", "EOPNOTSUPP", "ENOTSUP", "EMLINK", "ENOSYS", "EINVAL")
    if hasattr(errno, name)
}


def _write_temporary(path: Path, write: bytes | Callable[[IO[bytes]], None]) -> str:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(write, bytes):
                file.write(write)
            else:
                write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _link_once(temporary: str, path: Path) -> bool:
    """Give a file its final name as a hard link.

    Returns:
        False if the system or the file system has no hard links.

    Raises:
        FileExistsError: If another writer was first.
    """
    if not hasattr(os, "link"):
        return False
    try:
        os.link(temporary, path)
    except OSError as error:
        if path.exists():
            raise FileExistsError(error.errno, "it exists", str(path)) from None
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _rename_once(temporary: str, path: Path) -> bool:
    """Rename a file unless the new name exists, on a file system without hard links.

    Linux does so in one step on most file systems. Elsewhere the folder is locked meanwhile, so
    that the first of several writers on one machine wins. If the file system has no locks either,
    only the lease keeps a second writer away.

    Returns:
        True if this call created ``path``.
    """
    renamed = _rename_in_one_step(temporary, path)
    if renamed is not None:
        return renamed
    with _locked(path.parent):
        if path.exists():
            return False
        try:
            os.rename(temporary, path)
        except FileExistsError:  # On Windows, renaming never replaces a file.
            return False
        return True


def _rename_in_one_step(temporary: str, path: Path) -> bool | None:
    """Rename a file unless the new name exists, by Linux's ``renameat2``.

    Returns:
        Whether it was renamed, or None if the system or the file system cannot do this.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    names = os.fsencode(temporary), os.fsencode(path)
    if rename(_WORKING_FOLDER, names[0], _WORKING_FOLDER, names[1], _RENAME_NOREPLACE) == 0:
        return True
    return False if ctypes.get_errno() == errno.EEXIST else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder if the system and the file system have locks."""
    try:
        import fcntl
    except ImportError:  # Windows, where renaming is sufficient.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, if the file system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
