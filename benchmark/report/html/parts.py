"""Tables, sheets and figures as HTML elements with escaped texts."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from itertools import compress

from benchmark.core.text import one_line
from benchmark.report.figures.style import method_colour
from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.formats.grid import shown_columns
from benchmark.report.html.style import CSS, SCRIPT
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.tables.numbers import (
    DASH,
    Footnotes,
    Printer,
    bounds,
    notes_of,
    plain,
    printer,
)
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread, Value

_SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
#: A page is self-contained: the browser loads nothing, and runs no script but that of the page.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    f"script-src 'sha256-{_SCRIPT_HASH}'"
)


def document(title: str, body: str) -> str:
    """Return a whole HTML document with the style sheet and the script of all pages.

    Args:
        title: Title of the page, which is escaped.
        body: Content of the body, as HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{CSS}</style></head><body>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def text(value: object) -> str:
    """Escape a text for the content and the attributes of elements."""
    return html.escape(one_line(str(value)), quote=True)


def table_part(table: Table, spread: str = Spread.BOTH) -> str:
    """Return a sortable table of values ± sd with intervals below; cards on narrow screens.

    As in the other formats, columns that are the same in all rows, or equal to another column, are
    named above the table instead.

    Args:
        table: The results, of which all rows are shown.
        spread: ``credible`` for posteriors; anything else shows the same.
    """
    notes = Footnotes()
    general = notes.marks(table.notes)
    credible = spread == Spread.CREDIBLE
    show = printer(table, Spread.CREDIBLE if credible else Spread.SD)
    with_bounds = Spread.CREDIBLE if credible else Spread.INTERVAL
    is_shown, moved = shown_columns(table, show.spread)
    titles = [" ".join(column.title) for column in table.columns]
    heads = [_head("method", ""), _head("needs", ""), *(_head(title, "number") for title in titles)]
    rows = []
    for row in table.rows:
        label = swatch(row) + text(show.label(row)) + _sup(notes.marks(row.notes))
        needs = text(show.needs(row))
        cells = [
            f'<td data-label="method" data-sort="{text(row.method)}"><span>{label}</span></td>',
            f'<td data-label="needs" data-sort="{needs}"><span>{needs}</span></td>',
        ]
        for title, value in zip(titles, row.values, strict=True):
            marks = _sup(notes.marks(notes_of(value, with_bounds)))
            estimate = value.shown(show.spread)
            sort = "" if estimate.value is None else repr(estimate.value)
            shown = f"{_value(value, show)}{marks}{_interval(estimate, show.decimals)}"
            cells.append(
                f'<td class="number" data-label="{text(title)}" data-sort="{sort}">'
                f"<span>{shown}</span></td>"
            )
        upstream = "" if row.requested else ' class="upstream"'
        shown_cells = "".join(compress(cells, is_shown))
        rows.append(f'<tr data-series="{row.series}"{upstream}>{shown_cells}</tr>')
    printed = Spread.CREDIBLE if credible else Spread.BOTH
    summary = text(" ".join([table.short_caption(printed), *_legend(table), *moved]))
    summary += _sup(general)
    about = f'<p class="caption">{text(" ".join(table.remarks(printed)))}</p>'
    shown_heads = "".join(compress(heads, is_shown))
    body = f"<thead><tr>{shown_heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    caption = f'<caption class="unseen">{text(table.title)}</caption>'
    whole = f'<table class="sortable cards">{caption}{body}</table>'
    return (
        f'<p class="caption">{summary}</p>{scrolling(whole, table.title)}'
        f"{_footnotes(notes)}{folded('About these numbers', about)}"
    )


def _legend(table: Table) -> list[str]:
    """Return what bold numbers and marks are; the folded remarks say how they were found."""
    values = [value for row in table.rows for value in row.values]
    found = ["Bold: the best of its column"] if any(value.is_top for value in values) else []
    found += ["≈: not distinguishable from it"] if any(v.mark == "≈" for v in values) else []
    return [f"{'; '.join(found)}."] if found else []


def _value(value: Value, show: Printer) -> str:
    """Return the number with its ± and its mark; its bounds stand below it."""
    number = plain(value, show.decimals, show.spread).partition(" [")[0]
    number, _, sd = number.partition(" ± ")
    beside = f'<span class="sd"> ± {text(sd)}</span>' if sd else ""
    shown = f"{text(number)}{beside}"
    return f"<b>{shown}</b>" if value.is_top else f"{shown}{_mark(value.mark)}"


def _mark(mark: str) -> str:
    return f'<span class="mark">{text(mark)}</span>' if mark else ""


def _interval(estimate: Estimate, decimals: int) -> str:
    edges = bounds(estimate, decimals)
    return f'<small class="interval">[{edges[0]}, {edges[1]}]</small>' if edges else ""


def swatch(row: Row) -> str:
    """Return a dot in the colour that a method has in all figures."""
    colour = "currentColor" if method_colour(row) == "#000000" else method_colour(row)
    return (
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">'
        f'<circle cx="5" cy="5" r="4.5" fill="{colour}"/></svg>'
    )


def controls_part(table: Table, number: int) -> str:
    """Return switches of methods and of what stands beside a value; scripts make them visible."""
    methods = "".join(
        f'<label><input type="checkbox" checked value="{row.series}">{swatch(row)}'
        f"{text(row.marked_label)}</label>"
        for row in table.rows
    )
    spreads = "".join(
        f'<label><input type="radio" name="spread-{number}" value="{value}"'
        f"{' checked' if value == 'both' else ''}>{title}</label>"
        for value, title in (
            ("both", "± sd and interval"),
            ("sd", "± sd"),
            ("interval", "interval"),
        )
    )
    filters = (
        f"<fieldset><legend>Methods</legend>{methods}</fieldset>" if len(table.rows) > 1 else ""
    )
    return (
        f'<div class="controls" hidden>{filters}'
        f"<fieldset><legend>Uncertainty</legend>{spreads}</fieldset></div>"
    )


def folded(title: str, body: str, *, head: str = "") -> str:
    """Return a section that is closed until the reader opens it.

    Args:
        title: Its title, which is escaped.
        body: Its content, as HTML.
        head: HTML before the title, such as a dot.
    """
    return f"<details><summary>{head}{text(title)}</summary>{body}</details>" if body else ""


def scrolling(table: str, title: str) -> str:
    """Return a table that scrolls sideways, by keyboard too, where it is wider than the page."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{text(title)}">{table}</div>'


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
    return f"<h{level}>{text(sheet.title)}</h{level}>{sheet_body(sheet)}"


def sheet_body(sheet: Sheet) -> str:
    """Return caption, table and notes of a sheet."""
    lines = ["<br>".join(map(text, head)) for head in sheet.heads]
    heads = "".join(
        f'<th scope="col"{"" if i < sheet.stub else " class=number"}>{title}</th>'
        for i, title in enumerate(lines)
    )
    rows = []
    shades = sheet.shades or [[None] * len(row) for row in sheet.rows]
    for row, depths in zip(sheet.rows, shades, strict=True):
        if len(row) == 1:
            rows.append(
                f'<tr class="part"><th scope="colgroup" colspan="{len(sheet.heads)}">'
                f"{text(row[0])}</th></tr>"
            )
        else:
            cells = [
                _cell(cell, depth, is_number=i >= sheet.stub)
                for i, (cell, depth) in enumerate(zip(row, depths, strict=True))
            ]
            rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{text(note)}</li>" for note in sheet.notes)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return (
        f'<p class="caption">{text(" ".join(sheet.caption))}</p>{scrolling(table, sheet.title)}'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _cell(cell: str, depth: float | None, *, is_number: bool) -> str:
    kind = "number" if is_number else "name"
    if depth is None:
        return f'<td class="{kind}">{text(cell)}</td>'
    return f'<td class="{kind} shaded" style="--depth:{100 * depth:.0f}%">{text(cell)}</td>'


def figures_part(figures: Sequence[SavedFigure], context: str = "", folder: str = "") -> str:
    """Return figures with titles and descriptions.

    Args:
        figures: The figures.
        context: End of their titles that the page says already, such as the data set.
        folder: Folder of their PDF files beside the page; empty for figures without files.
    """
    parts = []
    for figure in figures:
        kinds = [*(["full"] if figure.full else []), *([] if figure.adapts else ["paper"])]
        title = one_line(figure.title).removesuffix(f": {one_line(context)}")
        link = f' <a href="{folder}/{text(figure.name)}.pdf">PDF</a>' if folder else ""
        parts.append(
            f'<figure class="{" ".join(kinds)}">'
            f'<div class="drawing"{_width(figure)}>{inline_svg(figure)}</div>'
            f"<figcaption><b>{text(title)}.</b> {text(figure.description)}{link}</figcaption>"
            "</figure>"
        )
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def _width(figure: SavedFigure) -> str:
    """Return a style that gives the text of all figures one size where there is room."""
    width = re.match(r'<svg [^>]*?width="([\d.]+)pt"', figure.svg)
    return f' style="max-width:{1.45 * float(width[1]):.0f}px"' if width else ""


def inline_svg(figure: SavedFigure) -> str:
    """Return the SVG element of a figure for a page with others.

    Its ids begin with a text of its own, since ids are unique in a page. Those of the parts that
    show a method become classes, by which scripts hide them. Black and white become the colours of
    the page if the figure adapts.
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", figure.svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="(series-\d+)"', r'class="\1"', svg)
    own = "f" + hashlib.sha256(figure.svg.encode("utf-8", "replace")).hexdigest()[:8]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    if figure.adapts:
        svg = svg.replace("#000000", "currentColor").replace("#ffffff", "var(--page)")
    about = f'role="img" aria-label="{text(figure.title)}" fill="currentColor"'
    return svg.replace("<svg ", f"<svg {about} ", 1)


def facts_table(pairs: Sequence[tuple[str, object]]) -> str:
    """Return a two-column table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>'
        f"<td>{text(DASH if value in (None, '') else value)}</td></tr>"
        for name, value in pairs
    )
    return f'<table class="facts">{rows}</table>'


def preformatted(shown: str) -> str:
    """Return a block of preformatted text, which the keyboard can scroll, from escaped text."""
    return f'<pre tabindex="0">{shown}</pre>'
