"""The finding of a table: one sentence that answers the question of the sweep from its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmark.core.text import one_line
from benchmark.report.statistics.estimate import listed
from benchmark.report.tables.metric import Metric
from benchmark.report.tables.numbers import bounds, percent
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.value import Value

#: The metrics that a finding can be about, the most informative first.
_METRICS = ("gap", "worst_group_accuracy", "average_accuracy")
#: After methods of which the tests of the table do not say which one is the best.
_INDISTINCT = "with no clear best among them"


@dataclass(frozen=True)
class Competitor:
    """A method in the column that a finding is about.

    Attributes:
        row: Its row.
        value: Its number in the column.
    """

    row: Row
    value: Value

    @property
    def name(self) -> str:
        """The name of the method."""
        return one_line(self.row.marked_label)

    @property
    def number(self) -> float:
        """The value of the metric, a fraction."""
        return float(self.value.estimate.value or 0.0)


def finding(table: Table) -> str:
    """Return what a table shows, in one sentence with 95 % intervals, and what limits it.

    The sentence is about the gap between biased and deceiving images; without these splits about
    the worst group, and without groups about the average. Methods that the tests of the table do
    not distinguish from the best of the column are named together.

    Args:
        table: The results on one data set.

    Returns:
        The finding; empty if no test split was evaluated.
    """
    if not any(row.selected_runs for row in table.rows):
        return "No run has finished, so there is no finding yet."
    at, competitors = _competitors(table)
    if at is None:
        return ""
    column = table.columns[at]
    if column.name == "gap":
        clauses = _gap_clauses(table, column, competitors)
    else:
        clauses = _clauses(column, competitors)
    return " ".join([f"{'; '.join(clauses)}.", *_limits(table, competitors)])


def overall_finding(tables: Sequence[Table]) -> str:
    """Return what several tables show together: how often each method is among the best.

    Args:
        tables: The results on the data sets.

    Returns:
        The finding of the table if there is one, else a count over the data sets on which methods
        were compared.
    """
    if len(tables) == 1:
        return finding(tables[0])
    found = [_competitors(table)[1] for table in tables]
    tested = [group for group in found if any(one.value.best is not None for one in group)]
    if not tested:
        return f"{len(tables)} data sets; the methods were not compared on any of them."
    counts: dict[str, int] = {}
    for group in tested:
        for one in group:
            counts[one.name] = counts.get(one.name, 0) + bool(one.value.best)
    clauses = []
    for count in sorted(set(counts.values()), reverse=True):
        names = listed([name for name, times in counts.items() if times == count])
        clauses.append(f"{names} on {_times(count, len(tested))}")
    clauses[0] += f" data set{'s' if len(tested) > 1 else ''}"
    left = len(tables) - len(tested)
    clauses += [f"not compared on {left} more"] if left else []
    return f"The best, or not distinguishable from it: {'; '.join(clauses)}."


def _times(count: int, total: int) -> str:
    """Return a number of data sets in words that follow "on"."""
    if count == total:
        return f"all {total}" if total > 1 else "the"
    return f"{count} of {total}" if count else f"none of {total}"


def _competitors(table: Table) -> tuple[int | None, list[Competitor]]:
    """Return the column of the finding and the methods that have a value there, the best first.

    Runs that only serve others do not compete unless there are no others.
    """
    names = [column.name for column in table.columns]
    for name in _METRICS:
        if name not in names:
            continue
        at = names.index(name)
        found = [
            Competitor(row, row.values[at])
            for row in table.rows
            if row.values[at].estimate.value is not None
        ]
        found = [one for one in found if one.row.requested] or found
        if found:
            column = table.columns[at]
            sign = 1 if column.smaller_is_better else -1
            return at, sorted(found, key=lambda one: sign * column.comparable(one.number))
    return None, []


def _gap_clauses(table: Table, column: Metric, competitors: Sequence[Competitor]) -> list[str]:
    """Return clauses on how much accuracy methods lose where the shortcut is reversed."""
    if len(competitors) == 1:
        return [_fall(table, column, competitors[0])]
    leaders, others, untested = _partition(competitors)
    clauses = []
    if others:
        clauses.append(_fall(table, column, others[-1]))
    if len(leaders) == 1 and others:
        clauses.append(_loss(leaders, verb="loses least, "))
    elif leaders:
        clauses.append(f"{_loss(leaders)}, {_INDISTINCT}")
    if others[:-1]:
        clauses.append(_loss(others[:-1]))
    if untested:
        clauses.append(f"{_loss(untested)}, not compared by a test")
    less_accurate = [one for one in leaders if _is_less_accurate(table, one.row)]
    if less_accurate:
        names = listed([one.name for one in less_accurate])
        verb = "are" if len(less_accurate) > 1 else "is"
        clauses.append(f"{names} {verb} less accurate on average than the best method")
    if not others:
        biased, deceiving = map(one_line, column.splits)
        clauses[0] = f"From {biased} to {deceiving} images, {clauses[0]}"
    return clauses


def _is_less_accurate(table: Table, row: Row) -> bool:
    """Return whether the average accuracy of a row is distinguishable from the best one."""
    return any(
        column.name == "average_accuracy" and value.best is False
        for column, value in zip(table.columns, row.values, strict=True)
    )


def _fall(table: Table, column: Metric, one: Competitor) -> str:
    """Return how the accuracy of a method changes from the biased to the deceiving split."""
    biased, deceiving = map(one_line, column.splits)
    start, end = (_accuracy(table, split, one.row) for split in column.splits)
    if start is None or end is None or abs(one.number) < 0.005:
        return f"{_loss([one])} from {biased} to {deceiving} images"
    verb = "falls" if one.number > 0 else "rises"
    return (
        f"{one.name} {verb} from {_share(start)} % on {biased} to {_share(end)} % on {deceiving} "
        "images, where the shortcut points to a wrong label: by "
        f"{_points(abs(one.number))} points{_bracket([one], flipped=one.number < 0)}"
    )


def _loss(group: Sequence[Competitor], verb: str = "") -> str:
    """Return ``A and B lose 8 to 18 points (95 % intervals within 3 to 25)``."""
    names = listed([one.name for one in group])
    numbers = [one.number for one in group]
    several = len(group) > 1
    if min(numbers) >= 0.0 or all(_points(number) == "0" for number in numbers):
        verb = verb or ("lose " if several else "loses ")
    else:
        verb = "have gaps of " if several else "has a gap of "
    return f"{names} {verb}{_span(numbers)} points{_bracket(group)}"


def _clauses(column: Metric, competitors: Sequence[Competitor]) -> list[str]:
    """Return clauses on an accuracy: of the worst group, or on average."""
    leaders, others, untested = _partition(competitors)
    where = "in the worst group" if column.name == "worst_group_accuracy" else "on average"
    clauses: list[str] = []
    groups = [group for group in (others[-1:], leaders, others[:-1], untested) if group]
    for group in groups:
        several = len(group) > 1
        names = listed([one.name for one in group])
        shares = _span([one.number for one in group], is_share=True)
        clause = f"{names} {'reach' if several else 'reaches'} {shares} %"
        clause += f"{'' if clauses else f' {where}'}{_bracket(group)}"
        if group is leaders and several:
            clause += f", {_INDISTINCT}"
        elif group is leaders and others:
            clause += ", the best"
        elif group is untested and len(competitors) > 1:
            clause += ", not compared by a test"
        clauses.append(clause)
    return clauses


def _partition(
    competitors: Sequence[Competitor],
) -> tuple[list[Competitor], list[Competitor], list[Competitor]]:
    """Return those that cannot be told from the best, those that can, and those not compared."""
    return (
        [one for one in competitors if one.value.best],
        [one for one in competitors if one.value.best is False],
        [one for one in competitors if one.value.best is None],
    )


def _accuracy(table: Table, split: str, row: Row) -> float | None:
    """Return the accuracy of a row on one split; None if the table has no such column."""
    names = ("average_accuracy", f"{split}_accuracy")
    for column, value in zip(table.columns, row.values, strict=True):
        if column.splits == (split,) and column.name in names:
            return value.estimate.value
    return None


def _limits(table: Table, competitors: Sequence[Competitor]) -> list[str]:
    """Return sentences on what limits a finding."""
    sentences = []
    if table.stand_in:
        sentences.append("The data are stand-in data: generated, not real.")
    if all(one.value.trials == 1 for one in competitors):
        several = len(competitors) > 1
        scope = "these networks, not the methods" if several else "this network, not the method"
        sentences.append(f"With one trial, this describes {scope}.")
    missing = [one_line(row.label) for row in table.rows if row.requested and not row.selected_runs]
    if missing:
        sentences.append(f"No result yet: {listed(missing)}.")
    return sentences


def _bracket(group: Sequence[Competitor], *, flipped: bool = False) -> str:
    """Return `` (95 % interval 3 to 25)``, or nothing if no interval is known.

    Bounds are rounded outwards. Intervals of several methods are given by their common range.

    Args:
        group: The methods.
        flipped: Whether the sign of the numbers is changed.
    """
    known = [one.value.estimate for one in group if one.value.estimate.low is not None]
    if not known:
        return ""
    low = min(estimate.low or 0.0 for estimate in known)
    high = max(estimate.high or 0.0 for estimate in known)
    low, high = (-high, -low) if flipped else (low, high)
    edges = bounds(replace(known[0], low=low, high=high), 0) or ("", "")
    intervals = "95 % intervals within" if len(group) > 1 else "95 % interval"
    return f" ({intervals} {edges[0]} to {edges[1]})"


def _span(numbers: Sequence[float], *, is_share: bool = False) -> str:
    """Return ``8 to 18``, or one number if both are printed alike."""
    show = _share if is_share else _points
    low, high = show(min(numbers)), show(max(numbers))
    return low if low == high else f"{low} to {high}"


def _points(number: float) -> str:
    """Return a difference in whole points, or in tenths if it is below one point."""
    return percent(number, 0 if abs(number) >= 0.0095 else 1).replace("0.0", "0")


def _share(number: float) -> str:
    """Return a share in whole per cent, or in tenths where that would hide the last errors."""
    hides = 0.99 <= number < 1.0 or 0.0 < number < 0.01
    return percent(number, 1 if hides else 0)
