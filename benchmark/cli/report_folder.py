"""The folder of a report, so that a call with other options leaves an earlier report alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import read_json, to_json, write_atomic
from benchmark.core.layout import SweepFolder

#: What made a report.
OPTIONS = "options.json"
#: Most characters of the name of a folder.
_LONGEST = 60


def report_folder(sweep: SweepFolder, options: Mapping[str, Any]) -> Path:
    """Return the folder for a report with these options.

    It is ``report/``, unless that holds a report with other options. Then it is a folder inside,
    with a name made of the options.

    Args:
        sweep: The sweep.
        options: Options that differ from their defaults and change what a report shows.
    """
    made = _options_of(sweep.report)
    if made is None or made == dict(options):
        return sweep.report
    return sweep.report / folder_name(options)


def folder_name(options: Mapping[str, Any]) -> str:
    """Return a name such as ``spread-interval_reference-erm``; ``default`` without options."""
    parts = []
    for name, value in options.items():
        if value is True:
            parts.append(name)
        else:
            values = value if isinstance(value, list) else [value]
            parts.append("-".join(map(str, [name, *values])))
    text = "_".join(parts)
    safe = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip(".-")
    if not safe:
        return "default"
    if len(safe) > _LONGEST or safe != text:
        safe = f"{safe[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return safe


def write_options(folder: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write which command and options made the report in a folder."""
    write_atomic(folder / OPTIONS, to_json({"command": command, "options": dict(options)}))


def _options_of(folder: Path) -> dict[str, Any] | None:
    """Return the options of the report in a folder; None without a report that says so."""
    try:
        found = read_json(folder / OPTIONS)
    except (OSError, UserError):
        return None
    options = found.get("options") if isinstance(found, dict) else None
    return options if isinstance(options, dict) else None
