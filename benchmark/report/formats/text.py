"""Tables as plain text for a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from benchmark.core.text import one_line
from benchmark.report.formats.grid import (
    BEST,
    Grid,
    grid_of_sheet,
    grid_of_table,
    marked_text,
)
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.tables.numbers import head_line
from benchmark.report.tables.report_table import WIDTH, Report, ReportOptions
from benchmark.report.tables.results_table import Table, summary_line
from benchmark.report.tables.sheet import Sheet

_GAP = "  "
_TAIL = re.compile(r"± [\d.]+(.*)$")
#: Characters after which a name that is too long for its column is broken.
_BREAKS = "_:,/=.-"
#: Widths of the name columns; the first that needs the fewest blocks of columns is taken.
_STUB_WIDTHS = ((26, 12), (20, 12), (15, 12), (15, 9))


@REPORT_FORMATS.register
class Text(ReportFormat):
    """Plain text for a terminal."""

    name = "text"
    file_name = "tables.txt"

    def report(self, report: Report) -> str:
        sweep = report.sweep
        parts = [f"{one_line(sweep.title)}: {summary_line(sweep)}\n"]
        parts += [
            text_table(table, report.spread, report.width, report.options)
            for table in report.tables
        ]
        parts += [text_sheet(sheet, report.width) for sheet in [*report.sheets, *report.appendix]]
        if sweep.notes:
            parts.append("".join(f"note: {one_line(note)}\n" for note in sweep.notes))
        return "\n".join(parts)

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        return "\n".join(map(text_sheet, sheets))


def text_table(
    table: Table, spread: str = "sd", width: int = WIDTH, options: ReportOptions | None = None
) -> str:
    """Return a table with caption and footnotes in lines of at most ``width`` columns."""
    return text_grid(grid_of_table(table, spread, options, best=BEST), width)


def text_sheet(sheet: Sheet, width: int = WIDTH) -> str:
    """Return a sheet with caption and notes in lines of at most ``width`` columns."""
    return text_grid(grid_of_sheet(sheet), width)


def text_grid(grid: Grid, width: int = WIDTH) -> str:
    """Return a table with caption and footnotes in lines of at most ``width`` columns."""
    marks = f" [{grid.caption_marks}]" if grid.caption_marks else ""
    lines = [*wrap(one_line(grid.caption) + marks, width), ""]
    part: list[list[str]] = []
    parts: list[tuple[str, list[list[str]]]] = [("", part)]
    for row in grid.rows:
        if len(row) == 1:
            part = []
            parts.append((row[0].text, part))
        else:
            part.append(list(map(marked_text, row)))
    for heading, rows in parts:
        if rows:
            lines += [*wrap(one_line(heading), width)] if heading else []
            lines += _grid(grid.heads, rows, grid.stub, width)
    lines += _footnotes(grid.footnotes, width)
    lines += wrap(one_line(" ".join(grid.remarks)), width) if grid.remarks else []
    return "\n".join(lines) + "\n"


def _footnotes(notes: Sequence[tuple[str, str]], width: int) -> list[str]:
    lines: list[str] = []
    for letter, note in notes:
        first, *others = wrap(f"[{letter}] {note}", width - 4)
        lines += [first, *(f"    {line}" for line in others)]
    return lines


def _grid(
    heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], stub: int, width: int
) -> list[str]:
    """Return the lines of a table, in several blocks of columns if it is too wide.

    Name columns are wrapped, and number columns are aligned to the right.
    """
    cleaned = [[one_line(line) for line in head] for head in heads]
    body = [list(row[stub:]) for row in rows]
    _align(body)
    widths = [
        max([*map(display_width, head), *(display_width(cells[i]) for cells in body)])
        for i, head in enumerate(cleaned[stub:])
    ]
    layouts = []
    for limits in _STUB_WIDTHS:
        stub_widths = _stub_widths(cleaned[:stub], rows, limits, width, only_names=not body[0])
        room = width - sum(stub_widths) - len(_GAP) * (stub - 1)
        layouts.append((stub_widths, _blocks(widths, room)))
    stub_widths, blocks = min(layouts, key=lambda layout: len(layout[1]))
    lines: list[str] = []
    for block in blocks:
        if lines:
            lines.append("")
        lines += _block(
            [*cleaned[:stub], *(cleaned[stub + i] for i in block)],
            [
                [*row[:stub], *(cells[i] for i in block)]
                for row, cells in zip(rows, body, strict=True)
            ],
            stub,
            [*stub_widths, *(widths[i] for i in block)],
        )
    return lines


def _stub_widths(
    heads: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    limits: Sequence[int],
    width: int,
    *,
    only_names: bool,
) -> list[int]:
    """Return the widths of the name columns: at most their limits, or 12 without one.

    If there are only name columns, the last one takes the rest of the line.
    """
    stub = len(heads)
    most = [*limits, *([12] * stub)][:stub]
    most = [max(limit, display_width(head[-1])) for limit, head in zip(most, heads, strict=True)]
    longest = [
        max(display_width(heads[i][-1]), *(display_width(row[i]) for row in rows))
        for i in range(stub)
    ]
    if stub and only_names:
        others = sum(map(min, most[:-1], longest)) + len(_GAP) * (stub - 1)
        most[-1] = max(most[-1], width - others)
    return list(map(min, most, longest))


def _block(
    heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], stub: int, widths: Sequence[int]
) -> list[str]:
    """Return the lines of one block: the name columns and some of the number columns."""
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    tall = max(map(len, heads), default=1)
    lines = [
        rule,
        *(_line([head_line(h, level, tall) for h in heads], stub, widths) for level in range(tall)),
        rule,
    ]
    for row in rows:
        wrapped = [wrap(label, w) for label, w in zip(row[:stub], widths, strict=False)]
        for level in range(max(map(len, wrapped), default=1)):
            words = [w[level] if level < len(w) else "" for w in wrapped]
            lines.append(
                _line([*words, *(cell if level == 0 else "" for cell in row[stub:])], stub, widths)
            )
    return [*lines, rule]


def _line(words: Sequence[str], stub: int, widths: Sequence[int]) -> str:
    padded = [
        word + " " * (w - display_width(word))
        if i < stub
        else " " * (w - display_width(word)) + word
        for i, (word, w) in enumerate(zip(words, widths, strict=True))
    ]
    return _GAP.join(padded).rstrip()


def _align(body: list[list[str]]) -> None:
    """Align the ± of each column by padding shorter cells on the right."""
    for i in range(len(body[0]) if body else 0):
        tails = [len(found[1]) if (found := _TAIL.search(cells[i])) else 0 for cells in body]
        longest = max(tails, default=0)
        for cells, tail in zip(body, tails, strict=True):
            cells[i] += " " * (longest - tail) if "±" in cells[i] else ""


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide the number columns into as few blocks as possible that fit beside the names."""
    blocks: list[list[int]] = [[]]
    left = room
    for i, w in enumerate(widths):
        if blocks[-1] and w + len(_GAP) > left:
            blocks.append([])
            left = room
        blocks[-1].append(i)
        left -= w + len(_GAP)
    return blocks


def wrap(label: str, width: int) -> list[str]:
    """Return a text in lines of at most ``width`` terminal columns, broken at spaces if possible.

    A longer word is broken after its last ``_ : , / = . -`` that fits, unless that leaves most of
    the line empty.
    """
    lines = [""]
    for word in label.split(" "):
        if lines[-1] and display_width(lines[-1]) + 1 + display_width(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if display_width(lines[-1]) + display_width(character) > width:
                kept = max((i + 1 for i, c in enumerate(lines[-1]) if c in _BREAKS), default=0)
                kept = kept if 3 * display_width(lines[-1][:kept]) >= width else len(lines[-1])
                lines[-1:] = [lines[-1][:kept], lines[-1][kept:]]
            lines[-1] += character
    return lines


def display_width(text: str) -> int:
    """Return the terminal columns of a text: two for wide characters, none for combining ones."""
    width = 0
    for character in text:
        if unicodedata.combining(character):
            continue
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width
