"""Why a run ended without a result: failure.json."""

from __future__ import annotations

import enum
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

#: Largest number of characters that are kept of a message or a traceback.
_MAX_LENGTH = 100_000


class FailureKind(enum.StrEnum):
    """Why a run failed, as failure.json stores it."""

    #: The loss or a gradient was not finite.
    NON_FINITE = "non_finite"
    #: A programming error.
    EXCEPTION = "exception"
    #: A mistake that the user can correct.
    USER_ERROR = "user_error"
    #: The machine or the GPU ran out of memory.
    OUT_OF_MEMORY = "out_of_memory"
    #: The GPU failed more than once.
    DEVICE_ERROR = "device_error"
    #: Signals or unexpected exits ended too many attempts.
    SIGNAL = "signal"
    #: Attempts took too long.
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a result.

    Attributes:
        message: One sentence.
        kind: A FailureKind; empty if the file does not contain it.
        key: Key of the run; empty if the file does not contain it.
        attempt: Number of the attempt; 0 if the file does not contain it.
        traceback: Traceback of a programming error, or empty.
    """

    message: Text
    kind: Name = ""
    key: Name = ""
    attempt: Count = 0
    traceback: Text = ""


def read_failure(folder: Path) -> Failure:
    """Return why the run in a folder failed.

    Raises:
        FileNotFoundError: If it did not fail.
        DamagedError: If failure.json is damaged, or belongs to another run.
    """
    run = RunFolder(folder)
    failure = decode(Failure, read_json(run.failure), str(run.failure))
    if failure.key:
        check_key(failure.key, run.failure)
    return failure


def failure_json(
    key: str, attempt: int, kind: FailureKind, message: str, **more: Any
) -> dict[str, Any]:
    """Return the content of failure.json.

    Long texts are shortened. Lone surrogates, as in file names that are not valid text, are
    escaped.

    Args:
        key: Key of the run.
        attempt: Number of the attempt, from 1.
        kind: Why the run failed.
        message: One sentence.
        more: ``traceback``, ``step``, ``term`` or ``signal``.
    """
    content = {"schema": SCHEMA, "key": key, "attempt": attempt, "kind": kind, "message": message}
    content.update(more)
    return {
        name: _storable(value) if isinstance(value, str) else value
        for name, value in content.items()
    }


def _storable(text: str) -> str:
    """Return a text that ``read_failure`` accepts. The end of a long text is kept."""
    encodable = text.encode("utf-8", "backslashreplace").decode()
    return encodable if len(encodable) <= _MAX_LENGTH else f"…{encodable[-_MAX_LENGTH:]}"
