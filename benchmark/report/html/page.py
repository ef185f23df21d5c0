"""The HTML page of a report: the finding, its evidence, and everything else folded."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence

from benchmark.core.criteria import title_of
from benchmark.core.text import printable_lines
from benchmark.core.toml_text import toml_document
from benchmark.report.figures.heatmap_gallery import is_gallery
from benchmark.report.figures.summary_plots import SCATTER, SavedFigure
from benchmark.report.html.parts import (
    controls_part,
    document,
    figures_part,
    folded,
    preformatted,
    sheet_body,
    table_part,
    text,
)
from benchmark.report.html.runs import MAX_RUNS_SHOWN, selected_runs_part, unfinished_part
from benchmark.report.tables.finding import finding, overall_finding
from benchmark.report.tables.group_accuracy import group_sheet
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import summary_line

_SIDE_TITLE = "Comparisons, costs and hyper-parameters"
#: Folder of the files of the figures, beside the page.
FIGURES = "figures"


def page(
    report: Report, figures: Mapping[int, Sequence[SavedFigure]], files: Sequence[str] = ()
) -> str:
    """Return the report as one HTML document.

    Args:
        report: The report.
        figures: Drawn figures by the position of their table.
        files: Names of the files of the same tables beside the page, to which it links.
    """
    tables = report.shown_tables
    sections = [_section(report, i, figures.get(i, ())) for i in range(len(tables))]
    sheets = [*report.sheets, *report.appendix]
    side = "".join(folded(sheet.title, sheet_body(sheet)) for sheet in sheets)
    unfinished = unfinished_part(report.sweep.all_runs)
    titles = [(f"table-{i + 1}", table.title) for i, table in enumerate(tables)]
    titles += [("side", _SIDE_TITLE)] if side else []
    titles.append(("runs", "Selected runs"))
    titles += [("unfinished", "Runs without a result")] if unfinished else []
    contents = "".join(
        f'<li><a href="#{target}">{text(title)}</a></li>' for target, title in titles
    )
    body = (
        f"{_header(report, files)}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav><main>{"".join(sections)}'
        + (f'<h2 id="side">{_SIDE_TITLE}</h2>{side}' if side else "")
        + f'<h2 id="runs">Selected runs</h2>{_runs(report)}{unfinished}</main>'
    )
    return document(report.sweep.title, body)


def _header(report: Report, files: Sequence[str]) -> str:
    """Return title, finding, state of the sweep, notes, links, and how the report was made."""
    sweep = report.sweep
    created = (
        time.strftime("%Y-%m-%d", time.gmtime(sweep.created)) if sweep.created else "unknown date"
    )
    tables = report.shown_tables
    used = [row.criterion for table in tables for row in table.rows if row.selected_runs]
    criterion = "; ".join(map(title_of, dict.fromkeys([report.criterion, *used])))
    links = ", ".join(f'<a href="{text(name)}">{text(name)}</a>' for name in files)
    notes = "".join(f"<p>Note: {text(note)}</p>" for note in sweep.notes)
    found = overall_finding(tables) if tables else ""
    return (
        f"<header><h1>{text(sweep.title)}</h1>"
        + (f'<p class="finding">{text(found)}</p>' if found else "")
        + f'<p class="about">{text(summary_line(sweep))}. Sweep <b>{text(sweep.name)}</b>, '
        f"launched {created}; selection: {text(criterion)}."
        + (f" Files: {links}." if links else "")
        + f"</p>{notes}{folded('How this report was made', _origin(report))}</header>"
    )


def _origin(report: Report) -> str:
    """Return the command of the report and the sweep file with all its entries."""
    parts = []
    if report.command:
        parts.append(f"<p>Command:</p>{preformatted(text(report.command))}")
    given = {
        name: value
        for name, value in report.sweep.config.items()
        if name != "name" and value not in (None, False, {}, [], "")
    }
    if given:
        shown = html.escape(printable_lines(toml_document(given)))
        parts.append(f"<p>Sweep file, with the options of its launch:</p>{preformatted(shown)}")
    return "".join(parts)


def _section(report: Report, i: int, figures: Sequence[SavedFigure]) -> str:
    """Return the results on one data set: scatter, table, gallery, and folded figures."""
    table = report.shown_tables[i]
    warning = '<p class="warning">Stand-in data: generated, not real.</p>' if table.stand_in else ""
    found = finding(table) if len(report.tables) > 1 else ""
    scatter = [figure for figure in figures if figure.name.startswith(SCATTER)]
    galleries = [figure for figure in figures if is_gallery(figure.name)]
    others = [figure for figure in figures if figure not in scatter and figure not in galleries]

    def drawn(shown: Sequence[SavedFigure]) -> str:
        return figures_part(shown, table.title, FIGURES)

    groups = group_sheet(table)
    results = table_part(table, report.spread)
    return (
        f'<section aria-labelledby="table-{i + 1}">'
        f'<h2 id="table-{i + 1}">{text(table.title)}</h2>{warning}'
        + (f'<p class="finding">{text(found)}</p>' if found else "")
        + f'<div class="evidence">{drawn(scatter)}{controls_part(table, i + 1)}</div>{results}'
        + drawn(galleries)
        + (folded("Accuracy of every group", sheet_body(groups)) if groups else "")
        + "".join(_folded_figure(figure, table.title) for figure in others)
        + "</section>"
    )


def _folded_figure(figure: SavedFigure, context: str) -> str:
    title = figure.title.removesuffix(f": {context}")
    return folded(title, figures_part([figure], context, FIGURES))


def _runs(report: Report) -> str:
    """Return the selected runs, including those that only serve others."""
    parts = []
    left = MAX_RUNS_SHOWN
    for table in report.tables:
        if any(row.selected_runs for row in table.rows):
            parts.append(f"<h3>{text(table.title)}</h3>{selected_runs_part(table, max(left, 0))}")
            left -= sum(len(row.selected_runs) for row in table.rows)
    return "".join(parts) or "<p>No run has finished.</p>"
