"""Tables, sheets and figures as HTML elements with escaped texts."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from benchmark.core.text import one_line
from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.html.style import CSS
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.tables.numbers import DASH, Footnotes, bounds, notes_of, printer
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread

#: A page is self-contained: the browser must not load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """Return a whole HTML document.

    Args:
        title: Title of the page, which is escaped.
        body: Content of the body, as HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{CSS}</style></head><body>{body}</body></html>\n"
    )


def text(value: object) -> str:
    """Escape a text for the content and the attributes of elements."""
    return html.escape(one_line(str(value)), quote=True)


def table_part(table: Table, spread: str = Spread.BOTH) -> str:
    """Return a sortable table of values ± sd with intervals below; cards on narrow screens.

    Args:
        table: The results.
        spread: ``credible`` for posteriors; anything else shows the same.
    """
    notes = Footnotes()
    general = notes.marks(table.notes)
    credible = spread == Spread.CREDIBLE
    show = printer(table, Spread.CREDIBLE if credible else Spread.SD)
    with_bounds = Spread.CREDIBLE if credible else Spread.INTERVAL
    titles = [" ".join(column.title) for column in table.columns]
    heads = [_head("method", ""), _head("needs", ""), *(_head(title, "number") for title in titles)]
    rows = []
    for row in table.rows:
        label = text(show.label(row)) + _sup(notes.marks(row.notes))
        needs = text(show.needs(row))
        cells = [
            f'<td data-label="method" data-sort="{text(row.method)}"><span>{label}</span></td>',
            f'<td data-label="needs" data-sort="{needs}">{needs}</td>',
        ]
        for title, value in zip(titles, row.values, strict=True):
            shown = text(_value(show(value), value.mark)) + _sup(
                notes.marks(notes_of(value, with_bounds))
            )
            estimate = value.shown(show.spread)
            sort = "" if estimate.value is None else repr(estimate.value)
            cells.append(
                f'<td class="number" data-label="{text(title)}" data-sort="{sort}">'
                f"<span>{shown}{_interval(estimate, show.decimals)}</span></td>"
            )
        rows.append(f"<tr{'' if row.requested else ' class=upstream'}>{''.join(cells)}</tr>")
    sentences = table.full_caption(Spread.CREDIBLE if credible else Spread.BOTH)
    caption = f'<p class="caption">{text(" ".join(sentences))}{_sup(general)}</p>'
    body = f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return (
        f'{caption}<div class="wide"><table class="sortable cards">{body}</table></div>'
        f"{_footnotes(notes)}"
    )


def _value(shown: str, mark: str) -> str:
    """Return the number without its bracket, which stands below it."""
    number, bracket, _ = shown.partition(" [")
    return number + (mark if bracket else "")


def _interval(estimate: Estimate, decimals: int) -> str:
    edges = bounds(estimate, decimals)
    return f"<small>[{edges[0]}, {edges[1]}]</small>" if edges else ""


def _head(title: str, kind: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<th scope="col"{attribute}><button type="button">{text(title)}</button></th>'


def _sup(marks: str) -> str:
    return f"<sup>{text(marks)}</sup>" if marks else ""


def _footnotes(notes: Footnotes) -> str:
    listed = "".join(f"<li><b>{text(mark)}</b> {text(note)}</li>" for mark, note in notes.listed())
    return f'<ul class="notes">{listed}</ul>' if listed else ""


def sheet_part(sheet: Sheet, level: int = 3) -> str:
    """Return a sheet under its own heading; wide sheets scroll sideways."""
    heads = "".join(
        f'<th scope="col"{"" if i < sheet.stub else " class=number"}>{text(" ".join(head))}</th>'
        for i, head in enumerate(sheet.heads)
    )
    rows = []
    for row in sheet.rows:
        if len(row) == 1:
            rows.append(
                f'<tr class="part"><th scope="colgroup" colspan="{len(sheet.heads)}">'
                f"{text(row[0])}</th></tr>"
            )
        else:
            cells = [_cell(cell, is_number=i >= sheet.stub) for i, cell in enumerate(row)]
            rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{text(note)}</li>" for note in sheet.notes)
    return (
        f"<h{level}>{text(sheet.title)}</h{level}>"
        f'<p class="caption">{text(" ".join(sheet.caption))}</p>'
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _cell(cell: str, *, is_number: bool) -> str:
    return f"<td{' class=number' if is_number else ''}>{text(cell)}</td>"


def figures_part(figures: Sequence[SavedFigure]) -> str:
    """Return figures as SVG images with descriptions; as images, they cannot share ids."""
    parts = []
    for figure in figures:
        data = base64.b64encode(figure.svg.encode("utf-8", "replace")).decode()
        parts.append(
            f'<figure{" class=full" if figure.full else ""}><img alt="{text(figure.title)}" '
            f'src="data:image/svg+xml;base64,{data}">'
            f"<figcaption>{text(figure.description)}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def facts_table(pairs: Sequence[tuple[str, object]]) -> str:
    """Return a two-column table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        f"<td>{text(DASH if value in (None, '') else value)}</td></tr>"
        for name, value in pairs
    )
    return f'<div class="wide"><table class="facts">{rows}</table></div>'
