"""Make the report of a sweep: load its runs, select one per method and trial, and tabulate them."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.report.records.model_selection import choose_criterion
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.tables.metric import METRICS, check_columns
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.report_table import (
    REPORT_TABLES,
    Report,
    ReportOptions,
    ReportTable,
    report_tables,
)
from benchmark.report.tables.results_table import tables_of
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread


def make_report(
    folder: Path,
    selection: str | None = None,
    spread: str = "sd",
    options: ReportOptions | None = None,
) -> Report:
    """Load a sweep and build its tables.

    Args:
        folder: The folder of the sweep.
        selection: Selection criterion of all rows, or None for the first of each method's own.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.
        options: What is shown beside the results; by default, nothing that must be requested.

    Raises:
        UserError: If there is no sweep, if it has another schema or plans nothing, or if the
            criterion, the reference or a requested column is unknown.
    """
    sweep = load_sweep(folder, keep=selection)
    if not sweep.runs and not sweep.refused:
        raise UserError(
            f"{folder} plans no run; launch a sweep into it first: "
            "`python -m benchmark.sweep launch`."
        )
    criterion = choose_criterion(sweep, selection)
    store = PredictionStore()
    options = options or ReportOptions()
    posteriors = Posteriors(options.engine, credible=spread == Spread.CREDIBLE)
    tables = tables_of(
        sweep,
        criterion,
        store,
        posteriors,
        own=selection is None,
        requested=options.columns,
        methods=options.rows,
    )
    check_columns(options.columns, [table.columns for table in tables])
    for results in tables:
        results.decimals = options.decimals
    sweep.notes += [
        f"the metric {origin} cannot be used: {reason}" for origin, reason in METRICS.broken.items()
    ]
    report = Report(sweep, criterion, tables, store, spread, options, posteriors=posteriors)
    for table in report_tables():
        if table.is_shown(report.options):
            sheets = _sheets_of(table, report)
            (report.appendix if table.in_appendix else report.sheets).extend(sheets)
    sweep.notes += [
        f"the table {origin} cannot be used: {reason}"
        for origin, reason in REPORT_TABLES.broken.items()
    ]
    return report


def _sheets_of(table: ReportTable, report: Report) -> list[Sheet]:
    """Return the sheets of a table; a table of another package that fails is left out."""
    try:
        return table.sheets(report)
    except UserError:
        raise
    except Exception as error:
        REPORT_TABLES.withdraw(table.name, error)
        return []
