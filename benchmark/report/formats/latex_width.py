"""Estimate how wide texts are in LaTeX, and divide tables that are too wide or too tall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from benchmark.report.formats.grid import Cell, Grid, marked_text

#: Points of a column of a two-column article, in which a table is no ``table*``.
COLUMN = 229.0
#: Points that a table may need. One column of an article has 345, and a slide 307 with sans serif.
PAGE = 330.0
#: Lines of ``\\footnotesize`` of a float, with caption and notes.
MOST_LINES = 50
#: Fewest lines of rows in a panel of a part.
FEWEST_ROWS = 8
#: Lines of notes that stand in the float of their table.
MOST_NOTES = 24
#: Characters of a line of notes, and of a caption in the height of a line of ``\\footnotesize``.
_NOTE_LINE = 95
_CAPTION_LINE = 55
#: Points between two columns.
GAP = 8.0
#: Points of a column of names beyond which it is wrapped.
WRAPPED = 110.0
#: Points of an em at ``\footnotesize``, a little more than that of Computer Modern.
_EM = 8.6
_NARROW = set("ilj.,:;'|![]()ftrI")
_WIDE = set("mwMW%±≈→ΔΣ")


def text_width(text: str) -> float:
    """Return the estimated points of a text at ``\\footnotesize``."""
    return _EM * sum(map(_em, text))


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.34
    if character in _WIDE:
        return 0.9
    if character.isupper():
        return 0.74
    return 0.36 if character == " " else 0.53


def column_widths(grid: Grid) -> list[float]:
    """Return the natural width of each column in points."""
    return [
        max(
            [
                *(text_width(line) for line in head),
                *(text_width(marked_text(row[i])) for row in grid.body),
            ]
        )
        for i, head in enumerate(grid.heads)
    ]


def stub_widths(grid: Grid, room: float = PAGE) -> list[float]:
    """Return the width of each column of names in points; long names are wrapped.

    If there are only names, they share the room.
    """
    natural = column_widths(grid)[: grid.stub]
    if grid.stub < len(grid.heads):
        return [min(width, WRAPPED) for width in natural]
    if sum(natural) + GAP * (len(natural) - 1) <= room:
        return natural
    short = [width for width in natural if width <= WRAPPED]
    wrapped = len(natural) - len(short)
    each = (room - sum(short) - GAP * (len(natural) - 1)) / wrapped
    return [width if width <= WRAPPED else max(each, WRAPPED / 2) for width in natural]


def panels_of(grid: Grid, room: float = PAGE) -> list[Grid]:
    """Divide the columns of numbers into panels that fit, each with the first column of names.

    The other columns of names are in the first panel only. Columns whose titles begin alike, such
    as those of one split, stay together where they fit.
    """
    if grid.stub == len(grid.heads):
        return [grid]
    names = range(grid.stub)
    return [
        _columns(grid, [*(names if number == 0 else names[:1]), *panel])
        for number, panel in enumerate(_panel_columns(grid, room))
    ]


def _panel_columns(grid: Grid, room: float = PAGE) -> list[list[int]]:
    """Return the columns of numbers of each panel."""
    widths = column_widths(grid)
    stubs = stub_widths(grid, room)
    rooms = (room - sum(stubs) - GAP * grid.stub, room - stubs[0] - GAP)
    panels: list[list[int]] = [[]]
    for family in _families(grid, range(grid.stub, len(grid.heads))):
        left = rooms[len(panels) > 1]
        if _total(widths, [*panels[-1], *family]) <= left:
            panels[-1] += family
            continue
        for number, i in enumerate(family):
            left = rooms[len(panels) > 1]
            starts = number == 0 and _total(widths, family) <= rooms[1]
            if panels[-1] and (starts or _total(widths, [*panels[-1], i]) > left):
                panels.append([])
            panels[-1].append(i)
    return panels


def _total(widths: Sequence[float], columns: Sequence[int]) -> float:
    return sum(widths[i] + GAP for i in columns) - GAP


def _families(grid: Grid, numbers: Sequence[int]) -> list[list[int]]:
    """Return runs of columns whose titles share their first line, if it is not the only one."""
    families: list[list[int]] = []
    for i in numbers:
        head = grid.heads[i]
        previous = grid.heads[families[-1][-1]] if families else ()
        if len(head) > 1 and len(previous) > 1 and head[0] == previous[0]:
            families[-1].append(i)
        else:
            families.append([i])
    return families


def _columns(grid: Grid, kept: Sequence[int]) -> Grid:
    rows = tuple(row if len(row) == 1 else tuple(row[i] for i in kept) for row in grid.rows)
    stub = sum(i < grid.stub for i in kept)
    return replace(grid, heads=tuple(grid.heads[i] for i in kept), rows=rows, stub=stub)


def note_lines(grid: Grid) -> int:
    """Return about how many lines the notes take."""
    length = sum(len(note) + 3 for _, note in grid.footnotes) + sum(map(len, grid.remarks))
    return -(-length // _NOTE_LINE)


def parts_of(grid: Grid) -> list[Grid]:
    """Divide a table into parts that fit a page; the next part of the rows repeats the heading.

    A table of many panels is first divided by columns, so that a page holds a few rows of each of
    its panels.
    """
    notes = note_lines(grid) if note_lines(grid) <= MOST_NOTES else 0
    tall = max(map(len, grid.heads), default=1) + 2
    caption = 1 - (-len(grid.caption) // _CAPTION_LINE)
    lines = MOST_LINES - caption - round(0.75 * notes)
    parts = [part for piece in _pieces(grid, lines, tall) for part in _rows(piece, lines, tall)]
    if len(parts) == 1:
        return [grid]
    last = len(parts) - 1
    return [
        replace(
            part,
            caption=grid.caption if number == 0 else f"{grid.title} (continued).",
            remarks=grid.remarks if number == last else (),
            footnotes=grid.footnotes if number == last else (),
        )
        for number, part in enumerate(parts)
    ]


def _pieces(grid: Grid, lines: int, tall: int) -> list[Grid]:
    """Divide the columns, so that each piece has as many panels as a page holds."""
    if grid.stub == len(grid.heads):
        return [grid]
    widths = stub_widths(grid)
    rows = min(FEWEST_ROWS, sum(row_lines(row, widths) for row in grid.rows))
    panels = _panel_columns(grid)
    most = max(1, lines // (tall + rows))
    if len(panels) <= most:
        return [grid]
    names = range(grid.stub)
    pieces = []
    for first in range(0, len(panels), most):
        columns = [i for panel in panels[first : first + most] for i in panel]
        pieces.append(_columns(grid, [*(names if first == 0 else names[:1]), *columns]))
    return pieces


def _rows(grid: Grid, lines: int, tall: int) -> list[Grid]:
    """Divide the rows, so that the panels of a part fit a page."""
    most = max(FEWEST_ROWS, lines // len(panels_of(grid)) - tall)
    widths = stub_widths(grid)
    if sum(row_lines(row, widths) for row in grid.rows) <= most:
        return [grid]
    parts: list[list[tuple[Cell, ...]]] = [[]]
    heading: tuple[Cell, ...] | None = None
    for row in grid.rows:
        if len(row) == 1:
            heading = row
        filled = sum(row_lines(other, widths) for other in parts[-1])
        full = filled + row_lines(row, widths) > most or (len(row) == 1 and filled >= most - 2)
        if full and parts[-1]:
            parts.append([heading] if heading is not None and len(row) > 1 else [])
        parts[-1].append(row)
    return [replace(grid, rows=tuple(part)) for part in parts]


def row_lines(row: tuple[Cell, ...], widths: Sequence[float]) -> int:
    """Return about how many lines a row takes.

    Args:
        row: The row.
        widths: Points of each column of names, which wrap longer texts.
    """
    if len(row) == 1:
        return 1
    return max(
        1,
        *(math.ceil(text_width(cell.text) / w) for cell, w in zip(row, widths, strict=False)),
    )
