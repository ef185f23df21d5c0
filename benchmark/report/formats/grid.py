"""Tables as grids of cells: what all formats show, before each of them draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from benchmark.core.text import one_line
from benchmark.report.tables.numbers import DASH, Footnotes, notes_of, plain, printer
from benchmark.report.tables.report_table import Report, ReportOptions
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: What text formats put behind the best value of a column, which other formats print in bold.
BEST = "•"
#: Most characters of the list of constant columns in a caption; a longer list is a remark.
_CAPTION_LIST = 120


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: A name, or a number as it is printed.
        is_best: Whether it is the best value of its column.
        mark: ``≈``, ``?`` or nothing, see ``Value.mark``.
        footnotes: Letters of footnotes, such as ``a,c``.
    """

    text: str
    is_best: bool = False
    mark: str = ""
    footnotes: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        name: A name that stays the same when titles change, for file names.
        title: Title of the section.
        caption: What is shown, on which data, how many trials, what ± is, and constant columns.
        heads: Lines of the title of each column.
        rows: Cells of each row. A row with a single cell is a heading over the rows below it.
        stub: Number of columns that hold names.
        footnotes: Pairs of letter and sentence.
        remarks: Sentences below the table.
        caption_marks: Letters of the footnotes of the table as a whole.
    """

    name: str
    title: str
    caption: str
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[Cell, ...], ...]
    stub: int = 1
    footnotes: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    caption_marks: str = ""

    @property
    def body(self) -> list[tuple[Cell, ...]]:
        """The rows that are no headings."""
        return [row for row in self.rows if len(row) > 1]


@dataclass
class _Builder:
    """Collects the footnotes of a table in reading order."""

    notes: Footnotes = field(default_factory=Footnotes)

    def cell(
        self, text: str, notes: Sequence[str] = (), *, best: bool = False, mark: str = ""
    ) -> Cell:
        return Cell(text, best, mark, self.notes.marks(notes))


def grids_of(report: Report, *, appendix: bool = True) -> list[Grid]:
    """Return every table of a report in its order.

    Args:
        report: The report.
        appendix: Whether the tables of the appendix are included.
    """
    options = report.options
    sheets = [*report.sheets, *(report.appendix if appendix else ())]
    return [grid_of_table(table, report.spread, options) for table in report.tables] + [
        grid_of_sheet(sheet) for sheet in sheets
    ]


def grid_of_table(
    table: Table, spread: str = "sd", options: ReportOptions | None = None, best: str = "Bold"
) -> Grid:
    """Return the results of one data set.

    Args:
        table: The results.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.
        options: Which rows are shown, and how.
        best: How the best value of a column is printed, for the explanation of the marks.
    """
    options = options or ReportOptions()
    grid = _whole_grid(table, spread, options, best)
    if not table.columns:
        return grid
    grid = merge_equal_columns(move_constant_columns(grid))
    return transposed(grid) if options.transpose else grid


def shown_columns(table: Table, spread: str = "sd") -> tuple[list[bool], list[str]]:
    """Return what the formats leave out of the results of one data set.

    Args:
        table: The results, of which all rows are shown.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.

    Returns:
        Whether each column is shown: the methods, their needs, and the columns of the table; and
        sentences that say what the other columns contain.
    """
    options = ReportOptions(upstream=True)
    whole = _whole_grid(table, spread, options, "Bold")
    shown = grid_of_table(table, spread, options)
    added = shown.caption.removeprefix(whole.caption).strip()
    sentences = [*([added] if added else []), *shown.remarks[len(whole.remarks) :]]
    return [head in shown.heads for head in whole.heads], sentences


def _whole_grid(table: Table, spread: str, options: ReportOptions, best: str) -> Grid:
    """Return the results of one data set with all columns."""
    rows: list[Row] = [row for row in table.rows if row.requested or options.upstream]
    table = replace(table, rows=rows or table.rows)
    builder = _Builder()
    general = builder.notes.marks(table.notes)
    show = printer(table, spread)
    cells = []
    for row in table.rows:
        label = builder.cell(show.label(row), row.notes)
        values = [
            builder.cell(
                plain(value, show.decimals, spread),
                notes_of(value, spread),
                best=value.is_top,
                mark=value.mark,
            )
            for value in row.values
        ]
        cells.append((label, Cell(show.needs(row)), *values))
    heads = (("method",), ("needs",), *(tuple(column.title) for column in table.columns))
    return Grid(
        f"results {table.dataset}{' stand-in' if table.stand_in else ''}",
        table.title,
        table.short_caption(spread),
        heads,
        tuple(cells),
        2,
        tuple(builder.notes.listed()),
        tuple(table.remarks(spread, best)),
        general,
    )


def grid_of_sheet(sheet: Sheet) -> Grid:
    """Return a sheet of finished texts."""
    rows = tuple(
        tuple(Cell(cell, (r, i) in sheet.best) for i, cell in enumerate(row))
        for r, row in enumerate(sheet.rows)
    )
    heads = tuple(tuple(head) for head in sheet.heads)
    grid = Grid(
        sheet.name or sheet.title,
        sheet.title,
        sheet.short_caption,
        heads,
        rows,
        sheet.stub,
        (),
        tuple(sheet.remarks),
    )
    return merge_equal_columns(move_constant_columns(grid))


def move_constant_columns(grid: Grid) -> Grid:
    """Remove columns that have the same text in all rows, and name them in the caption.

    A list that is too long for the caption becomes a remark. The first column stays, as do columns
    of numbers with an uncertainty, and all columns of a table with one row.
    """
    body = grid.body
    if len(body) < 2:
        return grid
    removed = {}
    for i in range(1, len(grid.heads)):
        texts = {row[i].text for row in body}
        plain_cells = all(row[i] == Cell(row[i].text) for row in body)
        if len(texts) == 1 and plain_cells and not any(c in next(iter(texts)) for c in "±["):
            removed[i] = next(iter(texts))
    if not removed or len(removed) == len(grid.heads) - 1:
        return grid
    named = "; ".join(f"{_head(grid, i)}: {text}" for i, text in removed.items() if text != DASH)
    sentence = f"The same in all rows: {named}."
    remarks = grid.remarks
    if named and len(named) <= _CAPTION_LIST:
        grid = replace(grid, caption=f"{grid.caption} {sentence}")
    elif named:
        remarks = (*remarks, sentence)
    return _with_columns(grid, [i for i in range(len(grid.heads)) if i not in removed], remarks)


def merge_equal_columns(grid: Grid) -> Grid:
    """Print columns of numbers once that are equal in all rows, as they are by construction."""
    body = grid.body
    kept: list[int] = []
    same: dict[int, list[int]] = {}
    for i in range(len(grid.heads)):
        column = [row[i] for row in body]
        known = next(
            (j for j in kept if j >= grid.stub and column == [row[j] for row in body]), None
        )
        is_number = i >= grid.stub and any(cell.text not in ("", DASH) for cell in column)
        if known is not None and is_number and len(set(column)) > 1:
            same.setdefault(known, []).append(i)
        else:
            kept.append(i)
    if not same:
        return grid
    remarks = [
        f"{_head(grid, i)}: the same as {_head(grid, j)} in all rows."
        for j, others in same.items()
        for i in others
    ]
    return _with_columns(grid, kept, (*grid.remarks, *remarks))


def transposed(grid: Grid) -> Grid:
    """Return a table with a row for each column of numbers, and a column for each method."""
    heads = (("metric",), *((row[0].text,) for row in grid.body))
    marked = [row[0].footnotes for row in grid.body]
    rows = [
        (Cell(_head(grid, i)), *(row[i] for row in grid.body)) for i in range(1, len(grid.heads))
    ]
    if any(marked):
        rows.insert(0, (Cell("notes"), *(Cell("", footnotes=marks) for marks in marked)))
    return replace(grid, heads=heads, rows=tuple(rows), stub=1)


def marked_text(cell: Cell) -> str:
    """Return the text of a cell with its mark, and ``BEST`` behind the best value."""
    text = one_line(cell.text) + (BEST if cell.is_best else "") + cell.mark
    return f"{text} [{cell.footnotes}]" if cell.footnotes else text


def _head(grid: Grid, i: int) -> str:
    return one_line(" ".join(grid.heads[i]))


def _with_columns(grid: Grid, kept: Sequence[int], remarks: Sequence[str]) -> Grid:
    rows = tuple(row if len(row) == 1 else tuple(row[i] for i in kept) for row in grid.rows)
    heads = tuple(grid.heads[i] for i in kept)
    stub = sum(i < grid.stub for i in kept)
    return replace(grid, heads=heads, rows=rows, stub=stub, remarks=tuple(remarks))
