"""From a sweep's folder to its report: load, choose, tabulate, and write every format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import remove_abandoned, to_json, write_atomic
from benchmark.core.layout import ABANDONED_SECONDS
from benchmark.core.text import json_text, one_line
from benchmark.report.formats.flat import (
    SCHEMA,
    csv_text,
    escape,
    json_tables,
    markdown_sheet,
    markdown_table,
    sheets_csv,
)
from benchmark.report.formats.latex import latex_document
from benchmark.report.formats.text import text_sheet, text_table
from benchmark.report.tables.report_table import Report, report_tables
from benchmark.report.tables.results_table import summary_line
from benchmark.report.tables.sheet import Sheet

#: Format name -> the file it is written to.
FILES = {
    "text": "tables.txt",
    "latex": "tables.tex",
    "csv": "tables.csv",
    "markdown": "tables.md",
    "json": "tables.json",
}
SPREADS = ("sd", "interval")
PAGE = "report.html"
#: Unasked, figures are drawn of that many data sets, in sweeps of up to that many runs: they cost two seconds each.
FIGURE_TABLES, FIGURE_RUNS = 6, 500


def render(report: Report, form: str, appendix: bool = True) -> str:
    """The report in one of the formats of ``FILES``; terminals are spared the appendix (hyper-parameters)."""
    shown = report if appendix else replace(report, appendix=[])
    return _RENDERERS[form](shown)


def render_sheets(sheets: Sequence[Sheet], form: str) -> str:
    """Sheets that belong to no sweep, in one of the formats."""
    if form == "latex":
        return latex_document([], sheets, "published tables")
    if form == "markdown":
        return "\n".join(map(markdown_sheet, sheets))
    if form == "json":
        return json_text(to_json([asdict(sheet) for sheet in sheets]).decode())
    if form == "csv":
        return sheets_csv(sheets)
    return "\n".join(map(text_sheet, sheets))


def write_sheets(
    sheets: Sequence[Sheet], out: Path, records: Sequence[dict[str, Any]]
) -> list[Path]:
    """Write sheets in every format into ``out``; JSON holds the records behind them."""
    _make_folder(out)
    for form, name in FILES.items():
        text = render_sheets(sheets, form)
        if form == "json":
            notes = [note for sheet in sheets for note in sheet.notes]
            value = {"schema": SCHEMA, "unit": "fraction", "records": list(records), "notes": notes}
            text = json_text(to_json(value).decode())
        write_atomic(out / name, text.encode("utf-8", "replace"))
    return [out / name for name in FILES.values()]


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder to write into.")
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out, ABANDONED_SECONDS)


def write_all(report: Report, out: Path) -> list[Path]:
    """Write every format into ``out``, atomically, and return the files."""
    _make_folder(out)
    for form, name in FILES.items():
        write_atomic(out / name, render(report, form).encode("utf-8", "replace"))
    return [out / name for name in FILES.values()]


def write_page(report: Report, out: Path, figures: str = "auto") -> str:
    """Write ``report.html`` and the figures (``figures/*.pdf``, ``*.png``), and say in words what was written.

    Args:
        figures: ``auto`` (of the first FIGURE_TABLES data sets, unless there are very many runs), ``all`` or ``none``.
    """
    from benchmark.report.figures.summary_plots import draw_all
    from benchmark.report.html.page import page

    few = FIGURE_TABLES if figures == "auto" and len(report.sweep.runs) <= FIGURE_RUNS else 0
    shown = report.tables if figures == "all" else report.tables[:few]
    drawn = draw_all(shown, report.store, out / "figures") if shown else {}
    write_atomic(out / PAGE, page(report, drawn).encode("utf-8", "replace"))
    many = sum(map(len, drawn.values()))
    left = len(report.tables) - len(shown)
    rest = (
        f"; {left} data sets without figures (--figures all draws them)"
        if left and figures == "auto"
        else ""
    )
    return f"{PAGE}, {many} figures in figures/{rest}" if many else f"{PAGE}{rest}"


def _text(report: Report) -> str:
    parts = [f"{one_line(report.sweep.title)}: {summary_line(report.sweep)}\n"]
    parts += [text_table(table, report.spread, report.width) for table in report.tables]
    parts += [text_sheet(sheet, report.width) for sheet in [*report.sheets, *report.appendix]]
    if report.sweep.notes:
        parts.append("".join(f"note: {one_line(note)}\n" for note in report.sweep.notes))
    return "\n".join(parts)


def _markdown(report: Report) -> str:
    parts = [f"## {escape(report.sweep.title)}\n\n{escape(summary_line(report.sweep))}\n"]
    parts += [markdown_table(table, report.spread) for table in report.tables]
    parts += [markdown_sheet(sheet) for sheet in [*report.sheets, *report.appendix]]
    parts += [f"Note: {escape(note)}\n" for note in report.sweep.notes]
    return "\n".join(parts)


def _latex(report: Report) -> str:
    sheets = [*report.sheets, *report.appendix]
    sweep = report.sweep
    return latex_document(report.tables, sheets, sweep.title, report.spread, sweep.notes)


def _csv(report: Report) -> str:
    shown = [table for table in report_tables() if table.is_shown(report.options)]
    more = [record for table in shown for record in table.csv_records(report)]
    return csv_text(report.tables, report.sweep.notes, more)


def _json(report: Report) -> str:
    sweep = report.sweep
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "sweep": sweep.name,
        "title": sweep.title,
        "created": sweep.created,
        "criterion": report.criterion,
        "unit": "fraction",
        "states": sweep.states(),
        "refused": [asdict(refusal) for refusal in sweep.refused],
        "notes": sweep.notes,
        "tables": json_tables(report.tables),
        **{
            table.json_key: table.json_records(report) if table.is_shown(report.options) else []
            for table in report_tables()
            if table.json_key
        },
        "sheets": [asdict(sheet) for sheet in report.sheets],
        "unfinished": [
            {
                "key": run.key,
                "dataset": run.dataset,
                "method": run.method,
                "trial": run.trial,
                "draw": run.draw,
                "state": run.state,
                "reason": run.reason,
            }
            for run in sweep.runs
            if run.state != "done"
        ],
    }
    return json_text(to_json(value).decode())


_RENDERERS: dict[str, Callable[[Report], str]] = {
    "text": _text,
    "latex": _latex,
    "csv": _csv,
    "markdown": _markdown,
    "json": _json,
}
