"""Write the report of a sweep in every format, as an HTML page and as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import remove_abandoned, write_atomic
from benchmark.core.layout import ABANDONED_SECONDS
from benchmark.report.formats.report_format import REPORT_FORMATS, file_names
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread

SPREADS = (Spread.SD, Spread.INTERVAL, Spread.CREDIBLE)
PAGE = "report.html"
#: By default, figures are drawn for this many data sets. A figure takes about two seconds.
FIGURE_TABLES = 6
#: By default, no figures are drawn for sweeps of more runs.
FIGURE_RUNS = 500


def render(report: Report, form: str, *, appendix: bool = True) -> str:
    """Return the report in one format.

    Args:
        report: The report.
        form: Name of the format.
        appendix: Whether the tables of the appendix are included, such as hyper-parameters.
    """
    shown = report if appendix else replace(report, appendix=[])
    return REPORT_FORMATS.get(form)().report(shown)


def render_sheets(sheets: Sequence[Sheet], form: str) -> str:
    """Return sheets that belong to no sweep in one format."""
    return REPORT_FORMATS.get(form)().sheets(sheets)


def write_all(report: Report, out: Path) -> list[Path]:
    """Write the report in every format into a folder, and return the files."""
    _make_folder(out)
    for form, name in file_names().items():
        write_atomic(out / name, render(report, form).encode("utf-8", "replace"))
        _write_further(out, REPORT_FORMATS.get(form)().files(report))
    return [out / name for name in file_names().values()]


def write_format(report: Report, form: str, out: Path) -> Path:
    """Write the file of one format into a folder, and return it."""
    _make_folder(out)
    kind = REPORT_FORMATS.get(form)()
    write_atomic(out / kind.file_name, kind.content(report))
    return out / kind.file_name


def write_sheets(
    sheets: Sequence[Sheet], out: Path, records: Sequence[dict[str, Any]]
) -> list[Path]:
    """Write sheets that belong to no sweep in every format into a folder, and return the files.

    Args:
        sheets: The sheets.
        out: The folder.
        records: The numbers behind the sheets, for JSON.
    """
    _make_folder(out)
    for form, name in file_names().items():
        text = REPORT_FORMATS.get(form)().sheets(sheets, records)
        write_atomic(out / name, text.encode("utf-8", "replace"))
    return [out / name for name in file_names().values()]


def write_page(report: Report, out: Path, figures: str = "auto") -> str:
    """Write ``report.html`` and the figures (``figures/*.pdf``, ``*.png``).

    Args:
        report: The report.
        out: The folder.
        figures: ``all``, ``none``, or ``auto`` for those of the first FIGURE_TABLES data sets,
            unless the sweep has more than FIGURE_RUNS runs.

    Returns:
        A description of what was written.
    """
    from benchmark.report.figures.summary_plots import draw_all
    from benchmark.report.html.page import FIGURES, page

    few = FIGURE_TABLES if figures == "auto" and len(report.sweep.runs) <= FIGURE_RUNS else 0
    shown = report.shown_tables if figures == "all" else report.shown_tables[:few]
    drawn = draw_all(shown, report.store, out / FIGURES, report.measurements) if shown else {}
    files = [name for name in file_names().values() if (out / name).exists()]
    write_atomic(out / PAGE, page(report, drawn, files).encode("utf-8", "replace"))
    written = PAGE
    if count := sum(map(len, drawn.values())):
        written += f", {count} figures in figures/"
    left = len(report.tables) - len(shown)
    if left and figures == "auto":
        written += f"; {left} data sets without figures (--figures all draws them)"
    return written


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder to write into.")
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out, ABANDONED_SECONDS)


def _write_further(out: Path, files: Mapping[str, str]) -> None:
    """Write the further files of a format, and remove those of an earlier report beside them."""
    folders = {(out / path).parent for path in files}
    for path, text in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out / path, text.encode("utf-8", "replace"))
    for folder in folders - {out}:
        for old in folder.iterdir():
            if old.is_file() and str(old.relative_to(out)) not in files:
                old.unlink()
