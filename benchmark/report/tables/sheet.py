"""A table of texts, which all formats can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.core.errors import UserError, shown


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
