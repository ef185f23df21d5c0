"""Make failed runs pending again. Nothing is deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.failure import read_failure
from benchmark.core.layout import RunFolder, State, SweepFolder, state_of
from benchmark.core.registry import did_you_mean
from benchmark.launch import attempts


def retry(folder: Path, keys: Sequence[str] | None = None) -> list[str]:
    """Make failed runs pending by moving each failure.json into the folder of its attempt.

    Args:
        folder: the sweep folder.
        keys: the runs to retry, or None for all. Runs that did not fail are left alone.

    Returns:
        The keys of the runs that are pending now.

    Raises:
        UserError: the sweep does not have one of the keys.
    """
    sweep = SweepFolder(folder)
    known = dict.fromkeys(sweep.run_names())
    for key in keys or ():
        if key not in known:
            raise UserError(f"{folder} has no run {key!r}{did_you_mean(key, known)}")
    selected = known if keys is None else dict.fromkeys(keys)
    return [
        key
        for key in selected
        if state_of(sweep.run(key).path) is State.FAILED and _set_aside(sweep.run(key))
    ]


def _set_aside(run: RunFolder) -> bool:
    """Move the failure of a run to its attempt; return False if another process has done so."""
    try:
        number = read_failure(run.path).attempt
    except FileNotFoundError:
        return False
    except (OSError, UserError):  # damaged, or of another run
        number = 0
    number = number or max(attempts.numbers(run.path), default=1)
    attempt = run.attempt(number)
    attempt.path.mkdir(parents=True, exist_ok=True)
    try:
        # A second failure of one attempt, which comes from files that a user moved, is kept too.
        os.rename(run.failure, attempt.unused_failure())
    except FileNotFoundError:
        return False
    return True
