"""Why a run ended without a result: failure.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.decode import (
    Count,
    Name,
    Text,
    decode,
)
from benchmark.core.files import read_json
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA, check_key

#: Characters that are kept of a message or traceback.
_MESSAGE = 100_000


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a result.

    Attributes:
        message: one sentence.
        kind: ``non_finite``, ``exception``, ``user_error``, ``out_of_memory``, ``signal`` or ``timeout``; empty where
            the file does not tell.
        key: of the run; empty where the file does not tell.
        attempt: number of the try, or 0 where the file does not tell.
        traceback: of a programming error, or empty.
    """

    message: Text
    kind: Name = ""
    key: Name = ""
    attempt: Count = 0
    traceback: Text = ""


def read_failure(folder: Path) -> Failure:
    """Why the run in a folder failed.

    Raises:
        FileNotFoundError: it did not fail.
        DamagedError: failure.json is damaged, or of another run.
    """
    run = RunFolder(folder)
    failure = decode(Failure, read_json(run.failure), str(run.failure))
    if failure.key:
        check_key(failure.key, run.failure)
    return failure


def failure_json(key: str, attempt: int, kind: str, message: str, **more: Any) -> dict[str, Any]:
    """The content of failure.json: why a run ended without a result.

    Texts are shortened, and halves of characters, as file names may hold, are escaped.

    Args:
        key: of the run.
        attempt: number of the try, from 1.
        kind: ``non_finite``, ``exception``, ``user_error``, ``out_of_memory``, ``signal`` or ``timeout``.
        message: one sentence.
        more: ``traceback``, ``step``, ``term``, ``signal``.
    """
    about = {"schema": SCHEMA, "key": key, "attempt": attempt, "kind": kind, "message": message}
    return {
        name: _storable(value) if isinstance(value, str) else value
        for name, value in {**about, **more}.items()
    }


def _storable(text: str) -> str:
    """A text that UTF-8 can hold and that ``read_failure`` accepts; the end of a long one is kept."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= _MESSAGE else f"…{whole[-_MESSAGE:]}"
