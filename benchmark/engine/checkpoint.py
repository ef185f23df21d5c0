"""checkpoint.pt: what a run resumes from."""

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

#: Bytes that a file of weights may have.
_MOST_BYTES = 1 << 40


def save_checkpoint(folder: Path, key: str, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a run, atomically."""
    write_atomic(
        RunFolder(folder).checkpoint,
        lambda file: _save({"schema": SCHEMA, "key": key, **state}, file),
    )


def load_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint of a run, on the CPU, or None if there is none that can be used.

    A damaged checkpoint costs work and nothing else: the run starts from the beginning, and its output says so.
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
            f"{path.name} is of another run or schema version; the run starts from the beginning.",
            file=sys.stderr,
        )
        return None
    return saved


def save_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a state_dict, atomically."""
    write_atomic(path, lambda file: write_weights(weights, file))


def conditions_of(saved: Mapping[str, Any] | None) -> Conditions | None:
    """The conditions that a checkpoint was made under, or None where there is none, or it does not tell."""
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
    """A state_dict written by ``save_weights``, on the CPU.

    Args:
        path: the file.
        checksum: hexadecimal sha256 of the file; None where it is not known.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is damaged, not the file that the checksum was made of, or holds anything but tensors.
    """
    require_file(path, _MOST_BYTES)
    if checksum is not None and sha256_of(path) != checksum:
        raise DamagedError(f"{path.name} was changed or is of another run (its checksum is wrong).")
    weights = _load(path)
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise DamagedError(f"{path.name} is damaged (it holds something else than weights).")
    return weights


def _load(path: Path) -> Any:
    """What ``torch.save`` wrote, without running any code that the file may name.

    Raises:
        DamagedError: it is damaged, compressed, or holds other objects than tensors and plain values.
    """
    require_file(path, _MOST_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")  # as torch never does, and could be any size
            if archive.testzip() is not None:
                raise ValueError("a checksum is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly everything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DamagedError(f"{path.name} cannot be read ({reason}).") from None


class _Watched:
    """A file that remembers why it could not be written: torch.save turns a full disk into a RuntimeError."""

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
    watched = _Watched(file)
    try:
        torch.save(value, watched)  # type: ignore[arg-type]
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise
