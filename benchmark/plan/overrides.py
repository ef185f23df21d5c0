"""Changes of a sweep file that a command line makes: ``--set budget.steps=100``."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError, shown
from benchmark.plan.sweepfile import SweepConfig, config_from, read_toml


def read_changed_sweep(path: Path, changes: Iterable[str] = ()) -> SweepConfig:
    """Read a sweep from a TOML file and change values of it.

    Args:
        path: The file.
        changes: ``KEY=VALUE``, where the key may name an entry of a table, as in
            ``budget.steps=100``. The value is TOML; a value that is none is a text.

    Raises:
        UserError: If the file or a change is invalid.
        Problems: If the changed content has mistakes; all of them are listed.
    """
    values = copy.deepcopy(read_toml(path))
    changes = list(changes)
    for change in changes:
        _apply(values, change)
    where = f"{path} with --set" if changes else str(path)
    return config_from(values, path.stem, where)


def _apply(values: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    names = [name.strip().strip("\"'") for name in _split_key(key)]
    if not separator or not all(names):
        raise UserError(f"--set {shown(change)} is not KEY=VALUE, such as budget.steps=100.")
    table = values
    for name in names[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(
                f"--set {shown(change)}: {name} is {shown(inner)} in the sweep file, which has no "
                "entries."
            )
        table = inner
    table[names[-1]] = parse_value(text)


def _split_key(key: str) -> list[str]:
    """Split a key at its dots, except within quotes, as in ``override."tea:warmup".lr``."""
    parts = [""]
    quote = ""
    for character in key:
        if character in "\"'" and quote in ("", character):
            quote = "" if quote else character
        if character == "." and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def parse_value(text: str) -> Any:
    """Return the value of a text in TOML; a text that is no TOML value is returned as it is."""
    try:
        parsed: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if list(parsed) == ["value"] else text
