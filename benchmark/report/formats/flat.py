"""Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import csv_cell, one_line
from benchmark.report.tables.numbers import Footnotes, notes_of, printer
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import NO_VALUE, Value

#: Version of tables.json.
SCHEMA = 1
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
    "trials",
    "n",
    "criterion",
    "before_switch",
    "notes",
)


def markdown_table(table: Table, spread: str = "sd") -> str:
    """A pipe table with its caption above and its footnotes below."""
    notes = Footnotes()
    general = notes.marks(table.notes)
    show = printer(table, spread)
    heads = ["method", "needs", *(" ".join(column.title) for column in table.columns)]
    lines = [
        "| " + " | ".join(map(escape, heads)) + " |",
        "|---|---|" + "---:|" * len(table.columns),
    ]
    for row in table.rows:
        cells = [
            escape(show(value)) + _sup(notes.marks(notes_of(value, spread))) for value in row.values
        ]
        label = escape(show.label(row)) + _sup(notes.marks(row.notes))
        lines.append("| " + " | ".join([label, escape(show.needs(row)), *cells]) + " |")
    caption = paragraph(" ".join(table.full_caption(spread))) + _sup(general)
    listed = [f"{_sup(letter)} {escape(note)}  " for letter, note in notes.listed()]
    return "\n".join([f"### {escape(table.title)}", "", caption, "", *lines, "", *listed]) + "\n"


def markdown_sheet(sheet: Sheet) -> str:
    """A pipe table of texts."""
    lines = ["| " + " | ".join(escape(" ".join(head)) for head in sheet.heads) + " |"]
    lines.append(
        "|" + "".join("---|" if i < sheet.stub else "---:|" for i in range(len(sheet.heads)))
    )
    for row in sheet.rows:
        cells = [f"**{escape(row[0])}**", *[""] * (len(sheet.heads) - 1)] if len(row) == 1 else row
        shown = cells if len(row) == 1 else [escape(cell) for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    notes = [paragraph(note) + "  " for note in sheet.notes]
    caption = paragraph(" ".join(sheet.caption))
    return "\n".join([f"### {escape(sheet.title)}", "", caption, "", *lines, "", *notes]) + "\n"


def escape(text: str) -> str:
    """A text on one line that Markdown shows as it is: neither markup, nor HTML, nor a formula."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", one_line(text))


def paragraph(text: str) -> str:
    """As ``escape``, for the beginning of a line: neither a list, nor a rule, nor a quotation."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escape(text))


def _sup(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""


def records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """One flat record per data set, method and metric; values are fractions, and None where there is nothing."""
    found = []
    for table in tables:
        for row in table.rows:
            for column, value in zip(table.columns, row.values, strict=True):
                for metric in (column.name, *column.aliases):
                    found.append(_record(table, row, metric, column.splits, value))
            if not table.columns:
                found.append(_record(table, row, "", (), NO_VALUE))
    return found


def _record(
    table: Table, row: Row, metric: str, splits: Sequence[str], value: Value
) -> dict[str, Any]:
    estimate = value.estimate
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
        "trials": value.trials,
        "n": min((table.sizes[split] for split in splits if split in table.sizes), default=0),
        "criterion": row.criterion,
        "before_switch": " ".join(str(w.trial) for w in row.before_switch),
        "notes": "; ".join([*row.notes, *value.notes]),
    }


def csv_text(
    tables: Sequence[Table],
    notes: Sequence[str] = (),
    more: Sequence[dict[str, Any]] = (),
) -> str:
    """The flat records as CSV; values are fractions in full precision, empty where there is nothing.

    Footnotes of a whole table, and notes of the sweep, are rows of their own whose metric is ``note``. No cell begins
    like a formula.

    Args:
        tables: Results of the sweep.
        notes: Notes of the sweep as a whole.
        more: Rows of other tables, between the results and the notes.
    """
    rows = [*records(tables), *more]
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
    """Sheets as CSV of their printed cells; the first two columns name the sheet and the heading above the row.

    A sheet's notes follow its rows, with the heading ``note``. No cell begins like a formula.
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


def json_tables(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables with their captions, per-trial values and footnotes, for programs."""
    return [
        {
            "dataset": table.dataset,
            "title": table.title,
            "stand_in": table.stand_in,
            "criterion": table.criterion,
            "caption": table.caption,
            "notes": table.notes,
            "n": dict(table.sizes),
            "rows": [_json_row(table, row) for row in table.rows],
        }
        for table in tables
    ]


def _json_row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "method": row.method,
        "label": row.label,
        "requested": row.requested,
        "needs": None if row.needs is None else list(row.needs),
        "criterion": row.criterion,
        "notes": row.notes,
        "runs": {str(w.trial): w.run.key for w in row.selected_runs},
        "before_switch": [w.trial for w in row.before_switch],
        "values": {
            column.name: {
                "value": value.estimate.value,
                "sd": value.estimate.sd,
                "low": value.estimate.low,
                "high": value.estimate.high,
                "interval": value.estimate.kind,
                "trials": value.trials,
                "per_trial": {
                    str(trial): number for trial, number in (value.per_trial or {}).items()
                },
                "splits": list(column.splits),
                "also": list(column.aliases),
                "not_distinguishable_from_best": value.best,
                "notes": list(value.notes),
            }
            for column, value in zip(table.columns, row.values, strict=True)
        },
    }
