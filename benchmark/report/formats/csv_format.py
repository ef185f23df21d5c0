"""The numbers of the tables as CSV, for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.text import csv_cell
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.statistics.estimate import NO_ESTIMATE
from benchmark.report.tables.report_table import Report, report_tables
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import NO_VALUE, Value

#: Columns of ``tables.csv``.
FIELDS = (
    "dataset",
    "stand_in",
    "method",
    "requested",
    "needs",
    "metric",
    "split",
    "value",
    "sd",
    "low",
    "high",
    "interval",
    "posterior_mean",
    "posterior_sd",
    "credible_low",
    "credible_high",
    "trials",
    "n",
    "criterion",
    "before_switch",
    "notes",
)


@REPORT_FORMATS.register
class Csv(ReportFormat):
    """One row per data set, method and metric."""

    name = "csv"
    file_name = "tables.csv"

    def report(self, report: Report) -> str:
        more = [
            _known(record, table.name)
            for table in report_tables()
            if table.is_shown(report.options)
            for record in table.csv_records(report)
        ]
        return csv_text(report.tables, more, report.sweep.notes)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return sheets_csv(sheets)


def _known(record: dict[str, Any], table: str) -> dict[str, Any]:
    """Return a record of another table if its keys are columns of ``tables.csv``.

    Raises:
        UserError: If they are not.
    """
    unknown = sorted(str(name) for name in record if name not in FIELDS)
    if unknown:
        raise UserError(
            f"csv_records of the report table {table} has the unknown columns "
            f"{', '.join(unknown)}, expected some of {', '.join(FIELDS)}."
        )
    return record


def flat_records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return one record per data set, method and metric.

    Values are fractions, or None if there is none.
    """
    records = []
    for table in tables:
        for row in table.rows:
            for column, value in zip(table.columns, row.values, strict=True):
                for metric in (column.name, *column.aliases):
                    records.append(_record(table, row, metric, column.splits, value))
            if not table.columns:
                records.append(_record(table, row, "", (), NO_VALUE))
    return records


def _record(
    table: Table, row: Row, metric: str, splits: Sequence[str], value: Value
) -> dict[str, Any]:
    estimate = value.estimate
    posterior = value.posterior or NO_ESTIMATE
    return {
        "dataset": table.dataset,
        "stand_in": table.stand_in,
        "method": row.method,
        "requested": row.requested,
        "needs": " ".join(row.needs or ()),
        "metric": metric,
        "split": " - ".join(splits),
        "value": estimate.value,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
        "interval": estimate.kind if estimate.low is not None else "",
        "posterior_mean": posterior.value,
        "posterior_sd": posterior.sd,
        "credible_low": posterior.low,
        "credible_high": posterior.high,
        "trials": value.trials,
        "n": min((table.sizes[split] for split in splits if split in table.sizes), default=0),
        "criterion": row.criterion,
        "before_switch": " ".join(str(w.trial) for w in row.before_switch),
        "notes": "; ".join([*row.notes, *value.notes]),
    }


def csv_text(
    tables: Sequence[Table],
    more: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return flat records as CSV; no cell begins like a formula.

    Values are fractions in full precision, and empty if there is none. Notes of a table and of the
    sweep are rows of their own whose metric is ``note``.

    Args:
        tables: Results of the sweep.
        more: Rows of other tables, between the results and the notes.
        notes: Notes of the sweep as a whole.
    """
    rows = [*flat_records(tables), *more]
    rows += [
        {"dataset": table.dataset, "metric": "note", "notes": note}
        for table in tables
        for note in table.notes
    ]
    rows += [{"metric": "note", "notes": note} for note in notes]
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def sheets_csv(sheets: Sequence[Sheet]) -> str:
    """Return the printed cells of sheets as CSV; no cell begins like a formula.

    The first two columns are the title of the sheet and the heading above the row. Notes of a sheet
    follow its rows, with the heading ``note``.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for sheet in sheets:
        rows = [["sheet", "part", *(" ".join(head) for head in sheet.heads)]]
        part = ""
        for row in sheet.rows:
            if len(row) == 1:
                part = row[0]
            else:
                rows.append([sheet.title, part, *row])
        rows += [[sheet.title, "note", note] for note in sheet.notes]
        writer.writerows([csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()
