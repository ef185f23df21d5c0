"""From a sweep's folder to its report: load, choose, tabulate, and write every format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import to_json, write_atomic
from benchmark.report.formats.flat import SCHEMA, csv_text, json_tables, markdown_table
from benchmark.report.formats.latex import latex_document
from benchmark.report.formats.numbers import clean
from benchmark.report.formats.text import text_table
from benchmark.report.load import Sweep, load_sweep
from benchmark.report.select import choose_criterion
from benchmark.report.tables import Table, summary_line, tables_of

#: Format name -> the file it is written to.
FILES = {
    "text": "tables.txt",
    "latex": "tables.tex",
    "csv": "tables.csv",
    "markdown": "tables.md",
    "json": "tables.json",
}
SPREADS = ("sd", "interval")


@dataclass
class Report:
    """Everything that the formats show."""

    sweep: Sweep
    criterion: str
    tables: list[Table]
    spread: str = "sd"
    written: list[Path] = field(default_factory=list)


def make_report(folder: Path, selection: str | None = None, spread: str = "sd", level: float = 0.95) -> Report:
    """Load a sweep and build its tables.

    Args:
        selection: criterion, or None for the first that the runs were selected by.
        spread: what stands beside a value: ``sd`` or ``interval``. level: of the intervals.

    Raises:
        UserError: no sweep, another schema, an unknown criterion, or nothing planned in it.
    """
    sweep = load_sweep(folder, keep=selection)
    if not sweep.runs and not sweep.refused:
        raise UserError(f"{folder} plans no run; launch a sweep into it first: `python -m benchmark.sweep launch`.")
    criterion = choose_criterion(sweep, selection)
    return Report(sweep, criterion, tables_of(sweep, criterion, level), spread)


def render(report: Report, form: str) -> str:
    """The whole report in one of the formats of ``FILES``."""
    return _RENDERERS[form](report)


def write_all(report: Report, out: Path) -> list[Path]:
    """Write every format into ``out``, atomically, and return the files."""
    out.mkdir(parents=True, exist_ok=True)
    for form, name in FILES.items():
        write_atomic(out / name, render(report, form).encode())
        report.written.append(out / name)
    return report.written


def _text(report: Report) -> str:
    parts = [f"{clean(report.sweep.title)}: {summary_line(report.sweep)}\n"]
    parts += [text_table(table, report.spread) for table in report.tables]
    if report.sweep.notes:
        parts.append("".join(f"note: {clean(note)}\n" for note in report.sweep.notes))
    return "\n".join(parts)


def _markdown(report: Report) -> str:
    parts = [f"## {clean(report.sweep.title)}\n\n{summary_line(report.sweep)}\n"]
    parts += [markdown_table(table, report.spread) for table in report.tables]
    parts += [f"Note: {clean(note)}\n" for note in report.sweep.notes]
    return "\n".join(parts)


def _latex(report: Report) -> str:
    return latex_document(report.tables, report.sweep.title, report.spread)


def _csv(report: Report) -> str:
    return csv_text(report.tables)


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
        "refused": list(sweep.refused),
        "notes": sweep.notes,
        "tables": json_tables(report.tables),
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
    return to_json(value).decode()


_RENDERERS: dict[str, Callable[[Report], str]] = {
    "text": _text,
    "latex": _latex,
    "csv": _csv,
    "markdown": _markdown,
    "json": _json,
}
