"""Failed runs become pending again; nothing is deleted."""

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
    """Make failed runs pending: their failure.json moves to the try that it is about.

    Args:
        folder: the sweep folder.
        keys: the runs, or None for every run that failed; runs that did not fail are left alone.

    Returns:
        The keys of the runs that will be tried again.

    Raises:
        UserError: a key that the sweep does not have.
    """
    sweep = SweepFolder(folder)
    known = dict.fromkeys(sweep.run_names())
    for key in keys or ():
        if key not in known:
            raise UserError(f"{folder} has no run {key!r}{did_you_mean(key, known)}")
    chosen = list(known if keys is None else dict.fromkeys(keys))
    return [
        key
        for key in chosen
        if state_of(sweep.run(key).path) is State.FAILED and _set_aside(sweep.run(key))
    ]


def _set_aside(run: RunFolder) -> bool:
    try:
        number = read_failure(run.path).attempt
    except FileNotFoundError:
        return False  # another process was faster
    except (OSError, UserError):  # damaged, or of another run
        number = 0
    number = number or max(attempts.numbers(run.path), default=1)
    home = run.attempt(number)
    home.path.mkdir(parents=True, exist_ok=True)
    try:
        # a second failure of one try can only come from files that a user moved; it is kept too
        os.rename(run.failure, home.unused_failure())
    except FileNotFoundError:
        return False
    return True
