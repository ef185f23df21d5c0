"""A table of texts, which all formats can show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.core.errors import UserError, shown

#: The minus sign of all tables.
MINUS = "−"
#: A hyphen that stands for a minus sign: neither in an exponent nor in a word or a range.
_HYPHEN = re.compile(r"(?<![\w.)\]-])-(?=\d)")


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
        shades: For each cell of each row a share in [0, 1] that pages show as the depth of its
            background, or None; empty for no shading.
        best: Row and column of the cells with the best value, which formats print in bold.
        name: A name that stays the same when titles change, for file names; by default the title.

    Raises:
        UserError: If a row has neither one cell nor one for each column, or a cell is no text.
    """

    title: str
    caption: list[str]
    heads: Sequence[Sequence[str]]
    rows: list[list[str]]
    stub: int = 1
    notes: list[str] = field(default_factory=list)
    shades: list[list[float | None]] = field(default_factory=list)
    best: tuple[tuple[int, int], ...] = ()
    name: str = ""

    @property
    def short_caption(self) -> str:
        """The title and the first sentence of the caption."""
        return " ".join([f"{self.title}.", *self.caption[:1]])

    @property
    def remarks(self) -> list[str]:
        """The other sentences of the caption, and the notes, which stand below the table."""
        notes = [note if note.endswith((".", "?", "!")) else f"{note}." for note in self.notes]
        return [*self.caption[1:], *notes]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) not in (1, len(self.heads)):
                raise UserError(
                    f"row {number} of the table {self.title!r} has {len(row)} cells, expected one "
                    f"for each of the {len(self.heads)} columns, or a single one as a heading."
                )
            wrong = next((cell for cell in row if not isinstance(cell, str)), None)
            if wrong is not None:
                raise UserError(
                    f"row {number} of the table {self.title!r} has the cell {shown(wrong)}, "
                    "expected text; format numbers first."
                )
        self.rows = [
            [cell if i < self.stub else with_minus(cell) for i, cell in enumerate(row)]
            for row in self.rows
        ]


def with_minus(cell: str) -> str:
    """Return a cell whose negative numbers have the sign of the other tables."""
    return _HYPHEN.sub(MINUS, cell)
