"""A table of texts, which all formats can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Sheet:
    """A table whose cells are finished texts; formats only arrange and escape them.

    Attributes:
        title: Title of the section.
        caption: Complete sentences.
        heads: Lines of the title of each column.
        rows: Cells of each row. A row with a single cell is a heading over the rows below it.
        stub: Number of columns that hold names. They are aligned to the left, and repeated if a
            terminal is too narrow for all other columns.
        notes: Footnotes of the table as a whole.
    """

    title: str
    caption: list[str]
    heads: Sequence[Sequence[str]]
    rows: list[list[str]]
    stub: int = 1
    notes: list[str] = field(default_factory=list)
