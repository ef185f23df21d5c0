"""Comparison of every method with one reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.registry import did_you_mean
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.tables.metric import Metric
from benchmark.report.tables.numbers import DASH, bounds, percent
from benchmark.report.tables.pairwise import (
    ALPHA,
    MARGIN,
    Comparison,
    Entry,
    add_holm,
    compare_column,
)
from benchmark.report.tables.report_table import (
    REPORT_TABLES,
    Report,
    ReportOptions,
    ReportTable,
)
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread

#: Sentence on P(better) of small differences, from the topic "comparisons" of docs/coverage.md.
SMALL_DIFFERENCES = (
    "For methods whose true difference is below half a point, P(better) is overconfident: a value "
    "of 0.9 is right in about 70 % of the cases."
)


@dataclass(frozen=True)
class ReferenceComparison:
    """The comparisons of one column.

    Attributes:
        table: The table.
        column: The column.
        reference: The method that the others are compared with.
        rows: The other methods.
        found: Each of ``rows`` minus the reference.
    """

    table: Table
    column: Metric
    reference: Row
    rows: tuple[Row, ...]
    found: tuple[Comparison, ...]


@REPORT_TABLES.register
class ComparisonTable(ReportTable):
    """Comparisons of every method with the reference."""

    name = "comparisons"
    position = 10
    json_key = "comparisons"

    def is_shown(self, options: ReportOptions) -> bool:
        return options.reference is not None

    def sheets(self, report: Report) -> list[Sheet]:
        """Compare the methods, which fills ``report.comparisons``, and return the sheets."""
        if report.options.reference is not None:
            report.comparisons = compare_all(report.tables, report.options.reference, report.store)
        shown = report.comparisons
        if not report.options.upstream:
            shown = [family for family in map(_requested, shown) if family.rows]
        return comparison_sheets(shown, report.spread)

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        return json_comparisons(report.comparisons)


def compare_all(
    tables: Sequence[Table], reference: str, store: PredictionStore
) -> list[ReferenceComparison]:
    """Compare every method with the reference; Holm's family is one column of one table.

    Raises:
        UserError: If no table has a result of the reference.
    """
    families = []
    for table in tables:
        base = next(
            (row for row in table.rows if row.method == reference and row.selected_runs), None
        )
        if base is not None:
            families += _compare_table(table, base, store)
    known = {row.method for table in tables for row in table.rows if row.selected_runs}
    if not families and reference not in known:
        raise UserError(
            f"no finished run of the reference {reference!r}{did_you_mean(reference, known)}"
        )
    return families


def _compare_table(
    table: Table, reference: Row, store: PredictionStore
) -> list[ReferenceComparison]:
    families = []
    for i, column in enumerate(table.columns):
        if reference.values[i].estimate.value is None:
            continue
        others = [
            row
            for row in table.rows
            if row is not reference and row.values[i].estimate.value is not None
        ]
        if others:
            entries = [Entry(row.selected_runs, row.values[i]) for row in others]
            base = Entry(reference.selected_runs, reference.values[i])
            found = add_holm(compare_column(column, entries, base, store))
            family = ReferenceComparison(table, column, reference, tuple(others), tuple(found))
            families.append(family)
    return families


def _requested(family: ReferenceComparison) -> ReferenceComparison:
    """Return the comparisons without methods that only serve others."""
    pairs = [
        (row, one) for row, one in zip(family.rows, family.found, strict=True) if row.requested
    ]
    return replace(
        family, rows=tuple(row for row, _ in pairs), found=tuple(one for _, one in pairs)
    )


def comparison_sheets(
    families: Sequence[ReferenceComparison], spread: str = Spread.SD
) -> list[Sheet]:
    """Return one sheet per data set.

    Args:
        families: The comparisons.
        spread: ``credible`` prints posteriors of Δ; anything else Δ ± standard error.
    """
    by_table: dict[int, list[ReferenceComparison]] = {}
    for family in families:
        by_table.setdefault(id(family.table), []).append(family)
    return [_sheet(group, credible=spread == Spread.CREDIBLE) for group in by_table.values()]


def _sheet(families: Sequence[ReferenceComparison], *, credible: bool) -> Sheet:
    first = families[0]
    rows: list[list[str]] = []
    for family in families:
        rows.append([" ".join(family.column.title)])
        rows += [
            _cells(row.marked_label, c, credible=credible)
            for row, c in zip(family.rows, family.found, strict=True)
        ]
    notes = list(
        dict.fromkeys(
            f"{row.marked_label}, {' '.join(family.column.title)}: {c.difference.note}"
            for family in families
            for row, c in zip(family.rows, family.found, strict=True)
            if c.difference.note
        )
    )
    delta = "Δ, posterior" if credible else "Δ ± se"
    heads = [("method",), (delta,), ("P(better)",), ("P(equal)",), ("p (Holm)",), ("trials",)]
    caption = _caption(families, credible=credible)
    return Sheet(
        f"{first.table.title}, against {first.reference.marked_label}",
        caption,
        heads,
        rows,
        notes=notes,
    )


def _caption(families: Sequence[ReferenceComparison], *, credible: bool) -> list[str]:
    reference = families[0].reference.marked_label
    found = [comparison for family in families for comparison in family.found]
    kinds = dict.fromkeys(c.difference.kind for c in found if c.difference.kind != "none")
    beside = f"± standard error ({'; '.join(kinds) or 'none'})"
    if credible:
        beside = (
            "posterior mean ± posterior sd [95 % credible interval] under the model of P(better), "
            f"with standard errors from {'; '.join(kinds) or 'nothing'}"
        )
        without = dict.fromkeys(
            " ".join(family.column.title)
            for family in families
            for c in family.found
            if c.posterior is None and c.difference.sd is not None
        )
        beside += f" ({', '.join(without)}: ± standard error and 95 % interval)" if without else ""
    directions = dict.fromkeys(_direction(f.column) for f in families if f.column.smaller_is_better)
    trials = {comparison.trials for comparison in found}
    equal = f"P(equal): that it is within {MARGIN * 100:g} point. " if trials != {1} else ""
    caption = [
        f"Δ: method minus {reference} in points.",
        f"Beside Δ: {beside}.",
        *directions,
        f"P(better): posterior probability that the true Δ favours the method. {equal}"
        "The prior: methods of a table are normally distributed about a common mean, with a "
        f"standard deviation of about {_prior_sds(families)} points that the table updates.",
        "p: two-sided, adjusted by Holm's method within each metric; not distinguishable where "
        f"p ≥ {ALPHA:g}.",
    ]
    if trials != {1}:
        caption.append(SMALL_DIFFERENCES)
    if 1 in trials:
        caption.append(
            "P(equal) is left out with 1 trial, which does not show how much networks differ by "
            "their seeds."
        )
    if trials == {1}:
        caption.append("With 1 trial, all of this is about these networks, not the methods.")
    return caption


def _prior_sds(families: Sequence[ReferenceComparison]) -> str:
    """Return the prior standard deviations between methods in points, with the columns' names."""
    columns: dict[float, list[str]] = {}
    for family in families:
        columns.setdefault(family.column.method_sd, []).append(" ".join(family.column.title))
    (usual, _), *others = sorted(columns.items(), key=lambda item: -len(item[1]))
    exceptions = "; ".join(f"{', '.join(titles)}: {100 * sd:g}" for sd, titles in others)
    return f"{100 * usual:g}" + (f" ({exceptions})" if exceptions else "")


def _direction(column: Metric) -> str:
    """Return a sentence about the direction of a metric of which smaller is better."""
    name = column.name.replace("_", " ")
    if column.compares_magnitude:
        return f"Of the {name} its absolute value is compared, and smaller is better."
    return f"Of the {name} smaller is better."


def _cells(method: str, comparison: Comparison, *, credible: bool) -> list[str]:
    estimate = comparison.difference
    if credible and comparison.posterior is not None:
        estimate = comparison.posterior
    if estimate.value is None:
        return [method, DASH, DASH, DASH, DASH, str(comparison.trials)]
    delta = f"{'+' if estimate.value > 0 else ''}{percent(estimate.value, 1)}"
    delta += f" ± {percent(estimate.sd, 1)}" if estimate.sd is not None else ""
    edges = bounds(estimate, 1) if credible else None
    delta += f" [{edges[0]}, {edges[1]}]" if edges else ""
    numbers = [
        _sure(comparison.p_better),
        _sure(comparison.p_equivalent),
        probability(comparison.p_holm),
    ]
    return [method, delta, *numbers, str(comparison.trials)]


def _sure(p: float | None) -> str:
    """Return a posterior probability, which is never quite 0 or 1."""
    return probability(p if p is None else min(p, 0.9999))


def probability(p: float | None) -> str:
    """Return two digits, three near 0 and 1, and never a false 0 or 1; a dash for None."""
    if p is None:
        return DASH
    if p < 0.001:
        return "<0.001"
    if 0.999 < p < 1.0:
        return ">0.999"
    return f"{p:.3f}" if p < 0.1 or p > 0.9 else f"{p:.2f}"


def json_comparisons(families: Sequence[ReferenceComparison]) -> list[dict[str, Any]]:
    """Return one flat record per comparison; differences are fractions."""
    return [
        {
            "dataset": family.table.dataset,
            "metric": family.column.name,
            "method": row.code_label,
            "reference": family.reference.method,
            "difference": c.difference.value,
            "se": c.difference.sd,
            "low": c.difference.low,
            "high": c.difference.high,
            "how": c.difference.kind,
            "note": c.difference.note,
            "p": c.p,
            "p_holm": c.p_holm,
            "p_better": c.p_better,
            "p_equivalent": c.p_equivalent,
            "posterior": None
            if c.posterior is None
            else {
                "mean": c.posterior.value,
                "sd": c.posterior.sd,
                "low": c.posterior.low,
                "high": c.posterior.high,
            },
            "trials": c.trials,
        }
        for family in families
        for row, c in zip(family.rows, family.found, strict=True)
    ]
