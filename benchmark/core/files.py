"""Writes that a crash cannot tear and a second writer cannot overwrite."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmark.core.errors import DamagedError, UserError, shown

#: Bytes of a path and of a name in it, where the file system does not say; bytes that files below a folder add.
_LONGEST_PATH, _LONGEST_NAME, _BELOW = 4096, 255, 256
#: Bytes that the name of a temporary file adds to that of the file that it becomes.
_ADDED = 16
#: Bytes that a JSON file may have: more than any table of counts needs, and no more than memory holds.
JSON_BYTES = 1 << 28


def write_atomic(path: Path, write: bytes | Callable[[IO[bytes]], None]) -> None:
    """Replace ``path`` by new content: temporary file in the same folder, fsync, rename.

    Args:
        path: the final name.
        write: the bytes, or a function that writes them to an open binary file.

    Raises:
        OSError: the old content is untouched and the temporary file is gone.
    """
    temporary = _write_temporary(path, write)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def commit_once(path: Path, content: bytes) -> bool:
    """Create ``path`` with all of its content, or leave it alone if it exists: the first writer wins.

    Returns:
        True if this call created it.
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
    """Raise a UserError unless ``path`` is a folder or could be made as one; nothing is written.

    Args:
        option: the option that names the folder, for the message.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise UserError(f"{name!r} holds a zero character; choose another folder with {option}.")
    whole = Path(os.path.abspath(name))
    there = whole
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        what = "a link that leads nowhere" if there.is_symlink() else "a file"
        raise UserError(f"{there} is {what}; choose a folder with {option}.")
    longest = _longest(there, "PC_NAME_MAX", _LONGEST_NAME)
    long = [part for part in whole.parts if len(os.fsencode(part)) > longest]
    if long:
        raise UserError(
            f"the name {long[0][:40]}… has {len(os.fsencode(long[0]))} bytes, and {there} takes at most {longest}; "
            f"choose a shorter one with {option}."
        )
    room = _longest(there, "PC_PATH_MAX", _LONGEST_PATH) - _BELOW
    if len(os.fsencode(whole)) > room:
        raise UserError(
            f"the path {name[:40]}… has {len(os.fsencode(whole))} bytes, expected at most {room}; choose a shorter one "
            f"with {option}."
        )


def check_file(path: Path, option: str = "--output") -> None:
    """Raise a UserError unless a file could be written at ``path``; nothing is written.

    Args:
        option: the option that names the file, for the message.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; choose a file with {option}.")
    check_folder(path.parent, option)
    longest = _longest(path.parent, "PC_NAME_MAX", _LONGEST_NAME) - _ADDED
    if len(os.fsencode(path.name)) > longest:
        raise UserError(
            f"the name {path.name[:40]}… has {len(os.fsencode(path.name))} bytes, expected at most {longest}; choose a "
            f"shorter one with {option}."
        )


def _longest(folder: Path, name: str, usual: int) -> int:
    """A limit of the file system that ``folder`` is on, or the usual one where it does not say."""
    try:
        return os.pathconf(folder, name)
    except (OSError, ValueError, AttributeError):
        return usual


class StagedFiles:
    """Files of one result, written completely under temporary names and then renamed together.

    Use it as a context. What has not been published at its end is removed, so that an interrupted
    result leaves nothing and replaces nothing.
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
        """Write the content of ``path`` to a temporary file beside it.

        Args:
            path: the final name.
            write: the bytes, or a function that writes them to an open binary file.

        Raises:
            OSError: it cannot be written; its temporary file is gone.
        """
        self._waiting.append((_write_temporary(path, write), path))

    def checksums(self) -> dict[str, str]:
        """The sha256 of every file that waits, by its final name.

        Raises:
            OSError: a file cannot be read.
        """
        return {path.name: sha256_of(Path(temporary)) for temporary, path in self._waiting}

    def publish(self) -> None:
        """Give every file its final name, replacing what is there; nothing slow happens in between.

        Raises:
            OSError: a file cannot be renamed; those after it keep their old content.
        """
        folders = {path.parent for _, path in self._waiting}
        while self._waiting:
            os.replace(*self._waiting[0])
            del self._waiting[0]
        for folder in folders:
            _sync_folder(folder)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity are refused, since they are not JSON."""
    write_atomic(path, to_json(value))


def to_json(value: Any, indent: int | None = 1) -> bytes:
    """``value`` as JSON with a final newline; ``indent=None`` for tables of numbers, one line in all.

    Lone surrogates, as in file names that are not valid text, are kept, as escapes of JSON.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(value, indent=indent, allow_nan=False)}\n".encode()


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The value stored in a JSON file.

    Args:
        path: the file.
        most: bytes that the file may have.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not a file, too large, not JSON, nested too deeply, or repeats a name within a table.
    """
    return parse_json(read_bytes(path, most), str(path))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file.

    Args:
        path: the file; a pipe or a device is refused, since reading it might never end.
        most: bytes that the file may have.

    Raises:
        FileNotFoundError: there is none.
        PermissionError: it may not be read.
        DamagedError: it is not a regular file, is larger than ``most``, or cannot be read.
    """
    require_file(path, most)
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error}).") from None


def require_file(path: Path, most: int) -> None:
    """Raise unless ``path`` is a regular file of at most ``most`` bytes; as ``read_bytes``."""
    try:
        found = path.stat()
    except (FileNotFoundError, PermissionError):
        raise
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    except (OSError, ValueError) as error:  # a circle of links, a name with a null character
        raise DamagedError(f"{path} cannot be read ({error}).") from None
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError(f"{path} is not a file.")
    if found.st_size > most:
        raise DamagedError(f"{path} has {found.st_size:,} bytes, expected at most {most:,}.")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_json(content: str | bytes, where: str = "the text") -> Any:
    """The value of a JSON text.

    Args:
        content: the text, or its UTF-8.
        where: its file, for messages.

    Raises:
        DamagedError: it is not JSON, is nested too deeply, or repeats a name within a table.
    """
    try:
        return json.loads(content, object_pairs_hook=_table)
    except RecursionError:
        raise DamagedError(
            f"{where} is not JSON that can be read (it is nested too deeply)."
        ) from None
    except ValueError as error:
        raise DamagedError(f"{where} is not JSON ({error}).") from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise ValueError(f"the name {shown(twice)} stands twice in one table")
    return table


def is_temporary(name: str, of: str | None = None) -> bool:
    """Whether a file name is that of a temporary file of ``write_atomic`` or ``commit_once``.

    Args:
        name: the name of a file, without its folder.
        of: only of writes to the file with this name; by default of any.
    """
    match = _TEMPORARY.fullmatch(name)
    return match is not None and of in (None, match[1])


def remove_abandoned(folder: Path, seconds: float) -> None:
    """Remove temporary files that a killed process left in a folder.

    Args:
        folder: it need not exist; folders in it are not visited.
        seconds: how long ago a file must have been written, so that one in use is never removed.
    """
    try:
        names = [name for name in os.listdir(folder) if is_temporary(name)]
    except OSError:
        return
    for name in names:
        path = folder / name
        try:
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()
        except OSError:  # another process removed or renamed it
            continue


#: Temporary files: a dot, the final name, random characters, and this ending.
_TEMPORARY = re.compile(r"\.(.+)\.[^.]+\.tmp", re.DOTALL)
#: What file systems without hard links answer; Windows says EINVAL.
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
    """Give a file its final name as well, as a hard link.

    Returns:
        False where the system or the file system has no hard links.

    Raises:
        FileExistsError: another writer was first.
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
    """Rename a file unless its new name exists, on a file system without hard links.

    The folder is locked meanwhile, so that of several writers on one machine the first wins. File
    systems that know no locks either leave it to the lease to keep a second writer away.

    Returns:
        True if this call created ``path``.
    """
    with _locked(path.parent):
        if path.exists():
            return False
        try:
            os.rename(temporary, path)
        except FileExistsError:  # Windows never replaces a file by renaming
            return False
        return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder where the system and the file system have one."""
    try:
        import fcntl
    except ImportError:  # Windows, where renaming is enough
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
    """Make a rename durable; some file systems cannot, and then there is nothing to do."""
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
