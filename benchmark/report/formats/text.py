"""Tables for a terminal of 100 columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from benchmark.report.formats.numbers import Footnotes, clean, decimals_of, head_line, method_label, needs_label, plain
from benchmark.report.tables import Table

WIDTH = 100
_GAP, _STUB = "  ", ("method", "needs")
#: Widest method and needs columns, tried in this order: the first that needs the fewest blocks of columns is taken.
_STUB_WIDTHS = ((26, 12), (20, 12), (15, 12), (15, 9))


def text_table(table: Table, spread: str = "sd", width: int = WIDTH) -> str:
    """The caption, the table (in blocks where it is too wide) and its footnotes; no line is longer than ``width``."""
    notes = Footnotes()
    general = notes.marks(table.notes)
    caption = clean(" ".join(table.caption)) + (f" [{general}]" if general else "")
    lines = _wrap(caption, width)
    if table.columns:
        lines += ["", *_grid(table, notes, spread, width)]
    else:
        lines.append("")
        for row in table.rows:
            lines += _wrap(f"{method_label(row)} [{notes.marks(row.notes)}]", width)
    for letter, note in notes.listed():
        first, *others = _wrap(f"[{letter}] {note}", width - 4)
        lines += [first, *(f"    {line}" for line in others)]
    return "\n".join(lines) + "\n"


def _grid(table: Table, notes: Footnotes, spread: str, width: int) -> list[str]:
    decimals = decimals_of(table)
    stub: list[list[str]] = []
    body: list[list[str]] = []
    for row in table.rows:
        marks = notes.marks(row.notes)
        stub.append([method_label(row) + (f" [{marks}]" if marks else ""), needs_label(row)])
        cells = []
        for value in row.values:
            marks = notes.marks(value.notes)
            cells.append(plain(value, decimals, spread) + (f" [{marks}]" if marks else ""))
        body.append(cells)
    heads = [[clean(line) for line in column.title] for column in table.columns]
    _align(body)
    widths = [max([*map(len_, head), *(len_(cells[i]) for cells in body)]) for i, head in enumerate(heads)]
    layouts = []
    for most in _STUB_WIDTHS:
        stub_widths = [min(limit, max(len_(labels[i]) for labels in [*stub, _STUB])) for i, limit in enumerate(most)]
        layouts.append((stub_widths, _blocks(widths, width - sum(stub_widths) - len(_GAP))))
    stub_widths, blocks = min(layouts, key=lambda layout: len(layout[1]))
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        lines += _block(block, heads, stub, body, [*stub_widths, *(widths[i] for i in block)])
    return lines


def _block(
    block: Sequence[int],
    heads: Sequence[Sequence[str]],
    stub: Sequence[Sequence[str]],
    body: Sequence[Sequence[str]],
    widths: Sequence[int],
) -> list[str]:
    """The stub and some of the columns, ruled."""
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    tall = max(len(heads[i]) for i in block)
    lines = [rule]
    for level in range(tall):
        words = [head_line(heads[i], level, tall) for i in block]
        lines.append(_line(_STUB if level == tall - 1 else ("", ""), words, widths))
    lines.append(rule)
    for labels, cells in zip(stub, body, strict=True):
        wrapped = [_wrap(label, w) for label, w in zip(labels, widths, strict=False)]
        for level in range(max(map(len, wrapped))):
            words = [cells[i] if level == 0 else "" for i in block]
            lines.append(_line([w[level] if level < len(w) else "" for w in wrapped], words, widths))
    return [*lines, rule]


def _line(labels: Sequence[str], words: Sequence[str], widths: Sequence[int]) -> str:
    left = [pad(label, w) for label, w in zip(labels, widths, strict=False)]
    right = [" " * (w - len_(word)) + word for word, w in zip(words, widths[len(labels) :], strict=True)]
    return _GAP.join([*left, *right]).rstrip()


def _align(body: list[list[str]]) -> None:
    """Bring the ± of a column under each other: cells with a mark get it behind, the others a blank of its width."""
    for i in range(len(body[0]) if body else 0):
        tails = [cells[i].partition(" [")[2] if cells[i].endswith("]") and "±" in cells[i] else "" for cells in body]
        longest = max((len(tail) + 2 for tail in tails if tail), default=0)
        for cells, tail in zip(body, tails, strict=True):
            own = len(tail) + 2 if tail else 0
            cells[i] += " " * (longest - own) if "±" in cells[i] else ""


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns that fit beside the stub, as few blocks as possible, at least one column each."""
    blocks: list[list[int]] = [[]]
    left = room
    for i, w in enumerate(widths):
        if blocks[-1] and w + len(_GAP) > left:
            blocks.append([])
            left = room
        blocks[-1].append(i)
        left -= w + len(_GAP)
    return blocks


def _wrap(label: str, width: int) -> list[str]:
    """Lines of at most ``width`` terminal columns, broken at spaces where possible; no character is lost."""
    lines = [""]
    for word in label.split(" "):
        if lines[-1] and len_(lines[-1]) + 1 + len_(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if len_(lines[-1]) + len_(character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def len_(text: str) -> int:
    """Columns that a text takes in a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int) -> str:
    return text + " " * max(0, width - len_(text))
