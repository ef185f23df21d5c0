"""Tables as an HTML fragment, to be pasted into a page of one's own."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.grid import Cell, Grid, grid_of_sheet, grids_of
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.sheet import Sheet


@REPORT_FORMATS.register
class HtmlFragment(ReportFormat):
    """Tables with captions, without styles, scripts or a document around them."""

    name = "html"
    file_name = "tables.html"

    def report(self, report: Report) -> str:
        notes = "".join(f"<p>Note: {_text(note)}</p>\n" for note in report.sweep.notes)
        return "".join(map(html_grid, grids_of(report))) + notes

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return "".join(html_grid(grid_of_sheet(sheet)) for sheet in sheets)


def html_grid(grid: Grid) -> str:
    """Return a figure with the table, its caption, and its notes below."""
    heads = "".join(f'<th scope="col">{_text(" ".join(head))}</th>' for head in grid.heads)
    rows = []
    for row in grid.rows:
        if len(row) == 1:
            heading = f'<th colspan="{len(grid.heads)}" scope="colgroup">{_text(row[0].text)}</th>'
            rows.append(f"<tr>{heading}</tr>")
        else:
            cells = [_cell(cell, is_name=i == 0) for i, cell in enumerate(row)]
            rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = [f"{_sup(letter)} {_text(note)}" for letter, note in grid.footnotes]
    notes += map(_text, grid.remarks)
    body = "\n".join(rows)
    return (
        f"<figure>\n<table>\n<caption>{_text(grid.caption)}{_sup(grid.caption_marks)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f"{''.join(f'<p><small>{note}</small></p>{chr(10)}' for note in notes)}</figure>\n"
    )


def _cell(cell: Cell, *, is_name: bool) -> str:
    text = _text(cell.text)
    text = f"<b>{text}</b>" if cell.is_best else text
    text += cell.mark + _sup(cell.footnotes)
    return f'<th scope="row">{text}</th>' if is_name else f"<td>{text}</td>"


def _text(text: str) -> str:
    return html.escape(one_line(text), quote=True)


def _sup(marks: str) -> str:
    return f"<sup>{marks}</sup>" if marks else ""
