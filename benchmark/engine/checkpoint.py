"""Reads and writes checkpoints, from which runs resume, and weights."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from benchmark.core.conditions import Conditions
from benchmark.core.decode import decode
from benchmark.core.errors import DamagedError
from benchmark.core.files import require_file, sha256_of, write_atomic
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA

#: The largest size of a file of weights.
_MAX_BYTES = 1 << 40


def save_checkpoint(folder: Path, key: str, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a run atomically."""
    write_atomic(
        RunFolder(folder).checkpoint,
        lambda file: _save({"schema": SCHEMA, "key": key, **state}, file),
    )


def load_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """Load the checkpoint of a run to the CPU.

    If the checkpoint is damaged, the run starts from the beginning, and its output says so.

    Returns:
        The checkpoint, or None if there is none that can be used.
    """
    path = RunFolder(folder).checkpoint
    if not path.exists():
        return None
    try:
        saved = _load(path)
    except DamagedError as error:
        reason = str(error).removesuffix(".")
        print(f"{reason}; the run starts from the beginning.", file=sys.stderr)
        return None
    if not isinstance(saved, dict) or saved.get("schema") != SCHEMA or saved.get("key") != key:
        print(
            f"{path.name} belongs to another run or schema version; the run starts from the "
            "beginning.",
            file=sys.stderr,
        )
        return None
    return saved


def save_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a state_dict to a file atomically."""
    write_atomic(path, lambda file: write_weights(weights, file))


def conditions_of(saved: Mapping[str, Any] | None) -> Conditions | None:
    """Return the conditions under which a checkpoint was saved, or None if they are unknown."""
    if saved is None or "conditions" not in saved:
        return None
    try:
        found = decode(Conditions, saved["conditions"], "the checkpoint", "conditions")
    except DamagedError:
        return None
    return None if found.threads is None else found


def write_weights(weights: Mapping[str, torch.Tensor], file: IO[bytes]) -> None:
    """Write a state_dict to an open binary file."""
    _save(dict(weights), file)


def load_weights(path: Path, checksum: str | None = None) -> dict[str, torch.Tensor]:
    """Load a state_dict written by ``save_weights`` to the CPU.

    Args:
        path: the file.
        checksum: the hexadecimal sha256 of the file, or None if it is unknown.

    Raises:
        FileNotFoundError: the file does not exist.
        DamagedError: it is damaged, its checksum differs, or it holds anything but tensors.
    """
    require_file(path, _MAX_BYTES)
    if checksum is not None and sha256_of(path) != checksum:
        raise DamagedError(
            f"{path.name} was changed or belongs to another run (its checksum is wrong)."
        )
    weights = _load(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise DamagedError(f"{path.name} is damaged (it does not contain weights).")
    return weights


def _load(path: Path) -> Any:
    """Load what ``torch.save`` wrote, without running any code that the file may contain.

    Raises:
        DamagedError: it is damaged, compressed, or holds anything but tensors and plain values.
    """
    require_file(path, _MAX_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not verify the checksums
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")  # torch never compresses; it may be huge
            if archive.testzip() is not None:
                raise ValueError("a checksum is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly any exception
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DamagedError(f"{path.name} cannot be read ({reason}).") from None


class _ErrorKeepingFile:
    """A file that keeps the error of a failed write, which torch.save turns into a RuntimeError."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(value: Mapping[str, Any], file: IO[bytes]) -> None:
    target = _ErrorKeepingFile(file)
    try:
        torch.save(value, target)  # type: ignore[arg-type]
    except RuntimeError:
        if target.error is not None:
            raise target.error from None
        raise
