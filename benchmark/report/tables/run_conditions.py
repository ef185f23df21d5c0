"""Footnotes on the threads, devices and versions of runs that differ within one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmark.core.record import RunRecord

#: Number of conditions that a note names.
_NAMED = 6
#: Number of values of each that it names.
_VALUES = 4


def condition_notes(records: Sequence[RunRecord]) -> list[str]:
    """Return notes on conditions that differ between runs, or within a run that was resumed."""
    notes = []
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.machine.flat().items():
            values.setdefault(name, {})[value] = None
    different = {
        name: sorted(found)
        for name, found in values.items()
        if len(found) > 1
        and name != "processor"  # its instruction sets matter, and are a condition
    }
    if different:
        notes.append(
            f"the selected runs were made under different conditions ({_listed(different)}): "
            "results are equal bit for bit only under the same conditions"
        )
    changes: dict[str, None] = {}
    resumed = 0
    for record in records:
        resumed += bool(record.machine.resumed)
        changes.update(dict.fromkeys(record.machine.resumed))
    if resumed:
        notes.append(
            f"{resumed} of {len(records)} selected runs were resumed under other conditions "
            f"({_first(changes, '; ')}): their last digits may differ from those of an "
            "uninterrupted run"
        )
    return notes


def _listed(different: Mapping[str, Sequence[str]]) -> str:
    parts = [
        f"{name} {_first([_short(name, v) for v in values], ' or ')}"
        for name, values in different.items()
    ]
    return _first(parts, "; ", _NAMED)


def _short(name: str, value: str) -> str:
    """Return a value, a commit with its first ten characters."""
    mark = "-dirty" if value.endswith("-dirty") else ""
    return f"{value[:10]}{mark}" if name == "commit" else value


def _first(parts: Iterable[str], separator: str, most: int = _VALUES) -> str:
    parts = list(parts)
    rest = [f"{len(parts) - most} more"] if len(parts) > most else []
    return separator.join([*parts[:most], *rest])
