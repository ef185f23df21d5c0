"""Writes that a crash cannot tear and a second writer cannot overwrite."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


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
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if path.exists():
            return False
        if error.errno not in _NO_LINKS:
            raise
        os.rename(
            temporary, path
        )  # a file system without hard links; the lease still keeps a second writer away
    finally:
        Path(temporary).unlink(missing_ok=True)
    _sync_folder(path.parent)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity are refused, since they are not JSON."""
    write_atomic(path, to_json(value))


def to_json(value: Any, indent: int | None = 1) -> bytes:
    """``value`` as JSON with a final newline; ``indent=None`` for tables of numbers, one line in all."""
    return (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value stored in a JSON file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON.
    """
    return json.loads(path.read_bytes())


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
#: What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}


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
