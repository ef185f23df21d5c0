"""Tables in text files: published ones, and users' own, which are checked completely."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from benchmark.core.errors import UserError, shown
from datasets._io.names import normalise

#: Names that pandas gives to an unnamed column.
_UNNAMED = re.compile(r"(Unnamed: [0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SEPARATOR_NAMES = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
#: The largest number of columns that a message lists.
_MAX_LISTED_COLUMNS = 20


class Origin(Enum):
    """The author of a table. The value ends messages with what to do if the table is wrong."""

    PUBLISHED = "use the file as it was published"
    USER = "correct the table"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Args:
        cells: The text in each named column.
        number: The number in a spreadsheet: the header is row 1, and a row whose cells contain line
            breaks is one row.
        line: The line of the file in which the row begins, from 1.
    """

    cells: dict[str, str]
    number: int
    line: int

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def place(self) -> str:
        """``row 7``, followed by the line if its number differs."""
        return f"row {self.number}{_unless_equal('line', self.line, self.number)}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        path: The file.
        columns: The named columns, in their order.
        rows: The rows without the header.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class _Record:
    """The cells of a row before they are assigned to columns."""

    cells: list[str]
    number: int
    line: int

    @property
    def place(self) -> str:
        return f"line {self.line}{_unless_equal('row', self.number, self.line)}"


def read_table(
    path: Path,
    columns: Sequence[str],
    delimiter: str = ",",
    origin: Origin = Origin.PUBLISHED,
) -> Table:
    """Read a UTF-8 table with a header.

    In a published table only the required columns must be valid. In a user's own table every column
    must have a distinct name, and every row as many cells as the header. Its cells are stripped,
    and rows without text are skipped.

    Args:
        path: The file.
        columns: The required columns.
        delimiter: The character between two cells.
        origin: The author of the table.

    Raises:
        UserError: If the file is missing, is not UTF-8, lacks a column or a cell, or has no rows.
    """
    own = origin is Origin.USER
    text = read_text(path, origin)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=own)
    records = _records(path, reader, origin)
    header = next(records, None)
    if header is None:
        raise UserError(f"{path} is empty, expected a table with a header; {origin.value}.")
    names = [normalise(name) for name in header.cells] if own else header.cells
    _check_header(path, names, columns, delimiter, origin)
    body = [record for record in records if record.cells]
    if own:
        body = [record for record in body if any(cell.strip() for cell in record.cells)]
        names, body = _drop_unnamed_columns(path, names, body, origin)
    if not body:
        raise UserError(f"{path} has a header and no rows; {origin.value}.")
    positions = {names.index(name): name for name in dict.fromkeys(names) if name}
    needed = len(names) if own else 1 + max((names.index(name) for name in columns), default=-1)
    rows = []
    for record in body:
        cells = _cells(path, record, needed, delimiter, origin)
        named = {name: cells[i] if i < len(cells) else "" for i, name in positions.items()}
        rows.append(Row(named, record.number, record.line))
    return Table(path, tuple(positions.values()), rows)


def read_integer(
    path: Path,
    row: Row,
    column: str,
    allowed: Sequence[int],
    origin: Origin = Origin.PUBLISHED,
) -> int:
    """Read an integer from a cell.

    Args:
        path: The table, for messages.
        row: The row.
        column: The column.
        allowed: The allowed values.
        origin: The author of the table. Users may write ``1.0`` for 1.

    Raises:
        UserError: If the cell is not one of the allowed integers.
    """
    text = row[column].strip()
    if origin is Origin.USER:
        text = re.sub(r"\.0*$", "", text)
    value = int(text) if _INTEGER.fullmatch(text) else None
    if value is None or value not in allowed:
        raise UserError(
            f"{path}: {column} = {shown(row[column])} in {row.place}, expected one of "
            f"{', '.join(map(str, allowed))}; {origin.value}."
        )
    return value


def read_text(path: Path, origin: Origin = Origin.PUBLISHED) -> str:
    """Read a UTF-8 text, with or without a byte-order mark.

    Raises:
        UserError: If the file is missing or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; unpack the data set again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {origin.value}.") from None
    problem = utf8_problem(content)
    if problem:
        raise UserError(f"{path} cannot be read as a table: {problem}; {origin.value}.")
    return content.decode("utf-8-sig")


def utf8_problem(content: bytes) -> str:
    """Return a clause that says why bytes are not UTF-8 text; empty if they are."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16 text, expected UTF-8 (spreadsheets call it 'CSV UTF-8')"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        return (
            f"line {line} holds the byte 0x{content[error.start]:02x}, which is not UTF-8 (perhaps "
            "Latin-1); save it as UTF-8"
        )
    return "it holds NUL bytes, which text does not contain" if "\0" in text else ""


def _unless_equal(kind: str, number: int, other: int) -> str:
    return f" ({kind} {number})" if number != other else ""


def _records(path: Path, reader: Iterator[list[str]], origin: Origin) -> Iterator[_Record]:
    """Yield the rows with their numbers, from the first one that is not blank."""
    previous_line = 0
    number = 0
    started = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path} cannot be read as a table: from line {previous_line + 1} on a quotation "
                f"mark is not closed, or a cell is too long ({error}); {origin.value}."
            ) from None
        number += 1
        if cells or started:
            started = True
            yield _Record(cells, number, previous_line + 1)
        previous_line = reader.line_num  # type: ignore[attr-defined]


def _cells(path: Path, record: _Record, needed: int, delimiter: str, origin: Origin) -> list[str]:
    """Return the cells of a row: at least ``needed``, and exactly ``needed`` in a user's table."""
    count = len(record.cells)
    count_text = f"{count} cell{'s' * (count != 1)}"
    if count < needed:
        raise UserError(
            f"{record.place} of {path} is cut off: it has {count_text}, expected {needed}; "
            f"{origin.value}."
        )
    if origin is Origin.PUBLISHED:
        return record.cells
    if any(cell.strip() for cell in record.cells[needed:]):
        raise UserError(
            f"{record.place} of {path} has {count_text}, expected {needed}; put a cell that "
            f"contains {_SEPARATOR_NAMES[delimiter]} in double quotes; {origin.value}."
        )
    return [normalise(cell) for cell in record.cells[:needed]]


def _check_header(
    path: Path, names: Sequence[str], columns: Sequence[str], delimiter: str, origin: Origin
) -> None:
    """Check that the required columns exist and that no column name is repeated."""
    missing = [name for name in columns if name not in names]
    if missing:
        listed = ", ".join(map(shown, names[:_MAX_LISTED_COLUMNS])) or "none"
        if len(names) > _MAX_LISTED_COLUMNS:
            listed += ", …"
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}, its columns are {listed}"
            f"{_separator_hint(names, delimiter)}; {origin.value}."
        )
    unique = names if origin is Origin.USER else columns
    for name, times in Counter(name for name in names if name).items():
        if times > 1 and name in unique:
            raise UserError(
                f"{path} has {times} columns called {shown(name)}, expected distinct names; "
                f"{origin.value}."
            )


def _separator_hint(names: Sequence[str], delimiter: str) -> str:
    """Return a remark about the separator if the header has a single column."""
    if len(names) != 1:
        return ""
    hint = f"columns are expected to be separated by {_SEPARATOR_NAMES[delimiter]}"
    likely = max(_SEPARATOR_NAMES, key=names[0].count)
    if likely in names[0]:
        hint += f", and these seem to be by {_SEPARATOR_NAMES[likely]}"
    return f" ({hint})"


def _drop_unnamed_columns(
    path: Path, names: list[str], body: list[_Record], origin: Origin
) -> tuple[list[str], list[_Record]]:
    """Drop columns without a name and without text, which superfluous commas create.

    Raises:
        UserError: If a column without a name has text.
    """
    unnamed = [i for i, name in enumerate(names) if _UNNAMED.fullmatch(name)]
    for i in unnamed:
        if any(len(record.cells) > i and record.cells[i].strip() for record in body):
            raise UserError(
                f"{path} has no name for its column {i + 1} (pandas writes such an index unless "
                f"index=False is given); name it or remove it; {origin.value}."
            )
    keep = [i for i in range(len(names)) if i not in unnamed]
    if len(keep) == len(names):
        return names, body
    kept_names = [names[i] for i in keep]
    if keep == list(range(len(keep))):  # all unnamed columns are at the end
        return kept_names, body
    trimmed = []
    for record in body:
        cells = [record.cells[i] for i in keep if i < len(record.cells)]
        extra = record.cells[len(names) :]
        trimmed.append(_Record(cells + extra, record.number, record.line))
    return kept_names, trimmed
