"""checkpoint.pt: what a run resumes from."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from benchmark.core.files import write_atomic
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA


def save_checkpoint(folder: Path, key: str, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a run, atomically."""
    write_atomic(
        RunFolder(folder).checkpoint,
        lambda file: _save({"schema": SCHEMA, "key": key, **state}, file),
    )


def load_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint of a run, on the CPU, or None if there is none that can be used.

    A damaged checkpoint costs work and nothing else: the run starts anew, and its output says so.
    """
    path = RunFolder(folder).checkpoint
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            if archive.testzip() is not None:
                raise ValueError("a checksum is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # damaged bytes raise nearly everything, from UnpicklingError to IndexError
        print(f"{path.name} cannot be read ({error}); the run starts anew.", file=sys.stderr)
        return None
    if not isinstance(saved, dict) or saved.get("schema") != SCHEMA or saved.get("key") != key:
        print(
            f"{path.name} is of another run or schema version; the run starts anew.",
            file=sys.stderr,
        )
        return None
    return saved


def save_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a state_dict, atomically."""
    write_atomic(path, lambda file: write_weights(weights, file))


def write_weights(weights: Mapping[str, torch.Tensor], file: IO[bytes]) -> None:
    """Write a state_dict to an open binary file."""
    _save(dict(weights), file)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state_dict written by ``save_weights``, on the CPU."""
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


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
