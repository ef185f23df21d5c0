"""Tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.grid import (
    Cell,
    Grid,
    grid_of_sheet,
    grid_of_table,
    grids_of,
)
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
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
        parts += map(markdown_grid, grids_of(report))
        parts += [f"Note: {escape(note)}\n" for note in sweep.notes]
        return "\n".join(parts)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return "\n".join(map(markdown_sheet, sheets))


def markdown_table(table: Table, spread: str = "sd") -> str:
    """Return the results of one data set as a pipe table."""
    return markdown_grid(grid_of_table(table, spread))


def markdown_sheet(sheet: Sheet) -> str:
    """Return a sheet as a pipe table."""
    return markdown_grid(grid_of_sheet(sheet))


def markdown_grid(grid: Grid) -> str:
    """Return a pipe table with its caption above, and footnotes and remarks below."""
    lines = ["| " + " | ".join(escape(" ".join(head)) for head in grid.heads) + " |"]
    numbers = len(grid.heads) - grid.stub
    lines.append("|" + "---|" * grid.stub + "---:|" * numbers)
    for row in grid.rows:
        cells = list(map(_cell, row))
        if len(row) == 1:  # a heading over the rows below it
            cells = [f"**{cells[0]}**", *[""] * (len(grid.heads) - 1)]
        lines.append("| " + " | ".join(cells) + " |")
    listed = [f"{_sup(letter)} {escape(note)}  " for letter, note in grid.footnotes]
    remarks = [paragraph(remark) + "  " for remark in grid.remarks]
    caption = paragraph(grid.caption) + _sup(grid.caption_marks)
    parts = [f"### {escape(grid.title)}", "", caption, "", *lines, "", *listed, *remarks]
    return "\n".join(parts) + "\n"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    bold = f"**{text}**" if cell.is_best and text else text
    return bold + cell.mark + _sup(cell.footnotes)


def escape(text: str) -> str:
    """Escape a text, so that Markdown shows it on one line without markup, HTML or formulas."""
    return re.sub(r"([\\`*_{}\[\]<>|#~&$])", r"\\\1", one_line(text))


def paragraph(text: str) -> str:
    """Escape a text that begins a line, so that it is no list, rule or quotation either."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escape(text))


def _sup(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""
