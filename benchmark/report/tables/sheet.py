"""A table of texts: what every side table (comparisons, details, published figures, hyper-parameters) becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Sheet:
    """Cells are finished texts; renderers only lay them out and escape them.

    Attributes:
        title: of the section. caption: whole sentences. heads: per column its title's lines; the first ``stub`` columns
            hold names (left-aligned, repeated when a terminal is too narrow), the others numbers.
        rows: one list of cells each; a row with a single cell is a heading over the rows below it.
        notes: footnotes of the sheet as a whole.
    """

    title: str
    caption: list[str]
    heads: Sequence[Sequence[str]]
    rows: list[list[str]]
    stub: int = 1
    notes: list[str] = field(default_factory=list)
