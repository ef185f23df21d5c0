"""Failed runs become pending again; nothing is deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.record import ATTEMPTS, FAILURE, State, state_of
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
    runs = folder / "runs"
    known = sorted(path.name for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []
    for key in keys or ():
        if key not in known:
            raise UserError(f"{folder} has no run {key!r}{did_you_mean(key, known)}")
    chosen = known if keys is None else list(dict.fromkeys(keys))
    return [
        key for key in chosen if state_of(runs / key) is State.FAILED and _set_aside(runs / key)
    ]


def _set_aside(folder: Path) -> bool:
    try:
        number = int(read_json(folder / FAILURE)["attempt"])
    except FileNotFoundError:
        return False  # somebody else was faster
    except (ValueError, KeyError, TypeError):  # torn or edited by hand: keep it with the newest try
        number = max(attempts.numbers(folder), default=1)
    home = folder / ATTEMPTS / str(number)
    home.mkdir(parents=True, exist_ok=True)
    # a second failure of one try can only come from a hand that moved files, but it is not overwritten either
    names = (FAILURE, *(f"failure.{i}.json" for i in range(2, 1000)))
    target = next(home / name for name in names if not (home / name).exists())
    try:
        os.rename(folder / FAILURE, target)
    except FileNotFoundError:
        return False
    return True
