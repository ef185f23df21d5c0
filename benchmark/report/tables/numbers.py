"""Numbers and footnote marks, the same in every format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmark.core.text import one_line
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import MINUS
from benchmark.report.tables.value import Spread, Value

DASH = "–"


def decimals_of(table: Table) -> int:
    """Return the digits after the point of a table.

    By default 1, or 2 if a spread would round to 0.0.
    """
    if table.decimals is not None:
        return table.decimals
    spreads = [value.estimate.sd for row in table.rows for value in row.values if value.estimate.sd]
    return 2 if spreads and min(spreads) < 0.0005 else 1


def percent(fraction: float, decimals: int) -> str:
    """Return a fraction in per cent, rounded, without a minus sign before zero."""
    text = f"{fraction * 100:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text.replace("-", MINUS)


def bounds(estimate: Estimate, decimals: int) -> tuple[str, str] | None:
    """Return both bounds, rounded outwards so that the printed interval covers the computed one."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return None
    scale = 10 ** (decimals + 2)
    outward = math.floor(low * scale + 1e-6) / scale, math.ceil(high * scale - 1e-6) / scale
    return percent(outward[0], decimals), percent(outward[1], decimals)


def plain(value: Value, decimals: int, spread: str = "sd") -> str:
    """Return ``93.2 ± 0.4``, ``93.2 [92.1, 94.3]`` or both, or a dash without a value.

    A value without a standard deviation, and one that always shows its bounds, has them in whole
    per cent.

    Args:
        value: The number.
        decimals: Digits after the point.
        spread: What stands beside the number: ``sd``, ``interval``, or ``credible`` for both.
    """
    estimate = value.shown(spread)
    if estimate.value is None:
        return DASH
    text = percent(estimate.value, decimals)
    with_bounds = shows_bounds(spread)
    edges = bounds(estimate, decimals if with_bounds else 0)
    bracket = ""
    if edges and (with_bounds or estimate.sd is None or value.shows_bounds):
        bracket = f" [{edges[0]}, {edges[1]}]"
    if estimate.sd is not None and (spread == Spread.CREDIBLE or not bracket):
        text += f" ± {percent(estimate.sd, decimals)}"
    return text + bracket


def shows_bounds(spread: str) -> bool:
    """Return whether bounds are printed beside every value that has them."""
    return spread in (Spread.INTERVAL, Spread.CREDIBLE)


def mark(number: int) -> str:
    """Return the footnote mark of a number: a, b, … z, aa, ab, …"""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


@dataclass
class Footnotes:
    """Footnotes with marks in the order of their first use; the same sentence keeps its mark."""

    texts: dict[str, str] = field(default_factory=dict)

    def marks(self, notes: Iterable[str]) -> str:
        """Return the marks of these notes, such as ``a,c``."""
        return ",".join(
            self.texts.setdefault(one_line(note), mark(len(self.texts))) for note in notes
        )

    def listed(self) -> list[tuple[str, str]]:
        """Return pairs of mark and sentence."""
        return [(letter, note) for note, letter in self.texts.items()]


@dataclass(frozen=True)
class Printer:
    """A printer of the values of one table, all with the same number of digits."""

    decimals: int
    spread: str

    def __call__(self, value: Value) -> str:
        return plain(value, self.decimals, self.spread) + value.mark

    def label(self, row: Row) -> str:
        """Return the label of a row in one line."""
        return one_line(row.marked_label)

    def needs(self, row: Row) -> str:
        """Return the annotations that the method needs beyond images and labels."""
        return DASH if row.needs is None else one_line(", ".join(row.needs) or "none")


def printer(table: Table, spread: str) -> Printer:
    return Printer(decimals_of(table), spread)


def notes_of(value: Value, spread: str) -> list[str]:
    """Return the footnotes of a cell.

    Why an interval is missing matters only if intervals are printed.
    """
    notes = list(value.notes)
    estimate = value.shown(spread)
    if shows_bounds(spread) and estimate.low is None and estimate.value is not None:
        notes.append(estimate.note)
    if value.not_compared:
        notes.append(f"not compared with the best of its column: {value.not_compared}")
    return [note for note in dict.fromkeys(notes) if note]


def head_line(head: Sequence[str], level: int, tall: int) -> str:
    """Return line ``level`` of ``tall`` of a column's title; short titles are at the bottom."""
    at = level - tall + len(head)
    return one_line(head[at]) if at >= 0 else ""
