"""Footnotes on the conditions of runs: threads, devices and versions that differ within one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmark.core.record import RunRecord

#: Conditions that a note names, and values of each.
_NAMED, _VALUES = 6, 4


def condition_notes(records: Sequence[RunRecord]) -> list[str]:
    """What differs between the conditions of these runs, and which of them were resumed under other conditions."""
    notes = []
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.machine.flat().items():
            values.setdefault(name, {})[value] = None
    different = {
        name: sorted(found)
        for name, found in values.items()
        if len(found) > 1 and name != "processor"  # what matters of it are its instructions
    }
    if different:
        notes.append(
            f"the chosen runs were made under different conditions ({_listed(different)}): only under the same ones "
            "are results equal bit for bit"
        )
    changes: dict[str, None] = {}
    resumed = 0
    for record in records:
        resumed += bool(record.machine.resumed)
        changes.update(dict.fromkeys(record.machine.resumed))
    if resumed:
        notes.append(
            f"{resumed} of {len(records)} chosen runs were resumed under other conditions ({_first(changes, '; ')}): "
            "their last digits may differ from those of an uninterrupted run"
        )
    return notes


def _listed(different: Mapping[str, Sequence[str]]) -> str:
    parts = [
        f"{name} {_first([_short(name, v) for v in values], ' or ')}"
        for name, values in different.items()
    ]
    return _first(parts, "; ", _NAMED)


def _short(name: str, value: str) -> str:
    """A commit as people write it."""
    mark = "-dirty" if value.endswith("-dirty") else ""
    return f"{value[:10]}{mark}" if name == "commit" else value


def _first(parts: Iterable[str], separator: str, most: int = _VALUES) -> str:
    parts = list(parts)
    rest = [f"{len(parts) - most} more"] if len(parts) > most else []
    return separator.join([*parts[:most], *rest])
