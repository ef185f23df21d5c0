"""Writes that a crash cannot tear and a second writer cannot overwrite."""

from __future__ import annotations

import errno
import json
import os
import tempfile
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
