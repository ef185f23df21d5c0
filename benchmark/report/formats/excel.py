"""Tables as a workbook, by pandas and openpyxl."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.text import csv_cell
from benchmark.report.formats.grid import Grid, grids_of, marked_text
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.sheet import Sheet

#: A cell that is one number.
_NUMBER = re.compile(r"[−+]?\d[\d,]*(\.\d+)?")
#: Most characters of the name of a worksheet, and those that it must not contain.
_LONGEST = 31
_FORBIDDEN = re.compile(r"[\[\]:*?/\\']+")


@REPORT_FORMATS.register
class Excel(ReportFormat):
    """A worksheet for each table; written only with ``--format excel``."""

    name = "excel"
    file_name = "tables.xlsx"
    on_request = True

    def report(self, report: Report) -> str:
        raise UserError(f"{self.name} is no text; --format {self.name} writes {self.file_name}.")

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        raise UserError(f"{self.name} is no text; print another format.")

    def content(self, report: Report) -> bytes:
        return workbook(grids_of(report))


def workbook(grids: Sequence[Grid]) -> bytes:
    """Return a workbook with a worksheet for each table, and its caption and notes below it.

    Raises:
        UserError: If openpyxl is not installed.
    """
    if importlib.util.find_spec("openpyxl") is None:
        raise UserError(
            "--format excel needs openpyxl: `pip install openpyxl`, or choose another format."
        )
    import pandas as pd

    buffer = io.BytesIO()
    names: set[str] = set()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for grid in grids:
            frame = pd.DataFrame(_lines(grid))
            frame.to_excel(writer, sheet_name=_sheet_name(grid, names), header=False, index=False)
    return buffer.getvalue()


def _lines(grid: Grid) -> list[list[Any]]:
    lines: list[list[Any]] = [[csv_cell(" ".join(head)) for head in grid.heads]]
    for row in grid.rows:
        lines.append([_value(marked_text(cell)) for cell in row])
    notes = [grid.caption, *(f"[{letter}] {note}" for letter, note in grid.footnotes)]
    lines += [[], *([csv_cell(note)] for note in [*notes, *grid.remarks])]
    return lines


def _value(text: str) -> Any:
    """Return a number as a number, and other text such that no spreadsheet computes it."""
    if _NUMBER.fullmatch(text):
        return float(text.replace("−", "-").replace(",", ""))
    return csv_cell(text)


def _sheet_name(grid: Grid, names: set[str]) -> str:
    base = _FORBIDDEN.sub(" ", grid.name).strip()[:_LONGEST] or "table"
    name = base
    number = 1
    while name.lower() in names:
        number += 1
        end = f" {number}"
        name = base[: _LONGEST - len(end)] + end
    names.add(name.lower())
    return name
