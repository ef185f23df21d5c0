"""The HTML page of a report: tables, figures, selected runs, and runs without a result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from benchmark.core.criteria import title_of
from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.html.parts import document, figures_part, sheet_part, table_part, text
from benchmark.report.html.runs import MAX_RUNS_SHOWN, selected_runs_part, unfinished_part
from benchmark.report.html.style import SCRIPT
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import summary_line

_SIDE_TITLE = "Comparisons, costs and hyper-parameters"


def page(report: Report, figures: Mapping[int, Sequence[SavedFigure]]) -> str:
    """Return the report as one HTML document.

    Args:
        report: The report.
        figures: Drawn figures by the position of their table.
    """
    sweep = report.sweep
    sections = [_section(report, i, figures.get(i, ())) for i in range(len(report.tables))]
    titles = [(f"table-{i + 1}", table.title) for i, table in enumerate(report.tables)]
    if report.sheets or report.appendix:
        titles.append(("side", _SIDE_TITLE))
    side = "".join(sheet_part(sheet) for sheet in [*report.sheets, *report.appendix])
    unfinished = unfinished_part(sweep.all_runs)
    titles.append(("runs", "Selected runs"))
    if unfinished:
        titles.append(("unfinished", "Runs without a result"))
    created = (
        time.strftime("%Y-%m-%d", time.gmtime(sweep.created)) if sweep.created else "unknown date"
    )
    contents = "".join(
        f'<li><a href="#{target}">{text(title)}</a></li>' for target, title in titles
    )
    notes = "".join(f"<p>Note: {text(note)}</p>" for note in sweep.notes)
    used = [row.criterion for table in report.tables for row in table.rows if row.selected_runs]
    criterion = "; ".join(map(title_of, dict.fromkeys([report.criterion, *used])))
    body = (
        f"<h1>{text(sweep.title)}</h1>"
        f"<p>{text(summary_line(sweep))}. Sweep <b>{text(sweep.name)}</b>, launched {created}; "
        f"selection: {text(criterion)}.</p>{notes}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav><main>{"".join(sections)}'
        + (f'<h2 id="side">{_SIDE_TITLE}</h2>{side}' if side else "")
        + f'<h2 id="runs">Selected runs</h2>{_runs(report)}{unfinished}</main>'
        f"<script>{SCRIPT}</script>"
    )
    return document(sweep.title, body)


def _section(report: Report, i: int, figures: Sequence[SavedFigure]) -> str:
    table = report.tables[i]
    warning = '<p class="warning">Stand-in data: generated, not real.</p>' if table.stand_in else ""
    return (
        f'<h2 id="table-{i + 1}">{text(table.title)}</h2>'
        f"{warning}{table_part(table, report.spread)}{figures_part(figures)}"
    )


def _runs(report: Report) -> str:
    parts = []
    left = MAX_RUNS_SHOWN
    for table in report.tables:
        selected_runs = [selected_run for row in table.rows for selected_run in row.selected_runs]
        if selected_runs:
            parts.append(
                f"<h3>{text(table.title)}</h3>{selected_runs_part(selected_runs, max(left, 0))}"
            )
            left -= len(selected_runs)
    return "".join(parts) or "<p>No run has finished.</p>"
