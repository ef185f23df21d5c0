"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.numbers import Footnotes, notes_of, printer
from benchmark.report.tables.provenance import provenance
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import Table, summary_line
from benchmark.report.tables.sheet import Sheet


@REPORT_FORMATS.register
class Markdown(ReportFormat):
    """Pipe tables with captions above and footnotes below."""

    name = "markdown"
    file_name = "tables.md"

    def report(self, report: Report) -> str:
        sweep = report.sweep
        origin = "; ".join(f"{name} {escape(value)}" for name, value in provenance(report))
        parts = [f"## {escape(sweep.title)}\n\n{escape(summary_line(sweep))}  \n{origin}\n"]
        parts += [markdown_table(table, report.spread) for table in report.tables]
        parts += [markdown_sheet(sheet) for sheet in [*report.sheets, *report.appendix]]
        parts += [f"Note: {escape(note)}\n" for note in sweep.notes]
        return "\n".join(parts)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return "\n".join(map(markdown_sheet, sheets))


def markdown_table(table: Table, spread: str = "sd") -> str:
    """Return a pipe table with its caption above and its footnotes below."""
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
    """Return a sheet as a pipe table."""
    lines = ["| " + " | ".join(escape(" ".join(head)) for head in sheet.heads) + " |"]
    numbers = len(sheet.heads) - sheet.stub
    lines.append("|" + "---|" * sheet.stub + "---:|" * numbers)
    for row in sheet.rows:
        cells = [escape(cell) for cell in row]
        if len(row) == 1:  # a heading over the rows below it
            cells = [f"**{cells[0]}**", *[""] * (len(sheet.heads) - 1)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [paragraph(note) + "  " for note in sheet.notes]
    caption = paragraph(" ".join(sheet.caption))
    return "\n".join([f"### {escape(sheet.title)}", "", caption, "", *lines, "", *notes]) + "\n"


def escape(text: str) -> str:
    """Escape a text, so that Markdown shows it on one line without markup, HTML or formulas."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", one_line(text))


def paragraph(text: str) -> str:
    """Escape a text that begins a line, so that it is no list, rule or quotation either."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escape(text))


def _sup(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""
