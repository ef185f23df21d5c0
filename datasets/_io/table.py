"""Tables in text files: published ones as they are, and users' own with every cell accounted for."""

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
from datasets._io.names import clean

#: Names that pandas gives to a column without one.
_UNNAMED = re.compile(r"(Unnamed: [0-9]+)?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}


class Origin(Enum):
    """Who wrote a table; the value says what to do where it is wrong."""

    PUBLISHED = "take the file as it was published"
    OWN = "correct the table"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Args:
        cells: the text in each named column.
        number: as a spreadsheet counts: the header is row 1, and a row whose cells hold line breaks is one row.
        line: the line of the file where it begins, the first being line 1.
    """

    cells: dict[str, str]
    number: int
    line: int

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def place(self) -> str:
        """``row 7``, with the line of the file where that is another number."""
        return f"row {self.number}{_unless_equal('line', self.line, self.number)}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns in their order, and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_table(
    path: Path,
    columns: Sequence[str],
    delimiter: str = ",",
    origin: Origin = Origin.PUBLISHED,
) -> Table:
    """A table with a header, in UTF-8.

    Of a published table only ``columns`` must be sound. Of a user's own table every column must have a name of its own
    and every row as many cells as the header; cells lose surrounding white space, and rows without any text are left
    out.

    Args:
        path: the file.
        columns: those that must be there.
        delimiter: what stands between two cells.
        origin: who wrote it.

    Raises:
        UserError: it is missing, is not UTF-8 text, lacks a column or a cell, or has no rows.
    """
    own = origin is Origin.OWN
    text = read_text(path, origin)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=own)
    records = _records(path, reader, origin)
    header = next(records, None)
    if header is None:
        raise UserError(f"{path} is empty, expected a table with a header; {origin.value}.")
    names = [clean(name) for name in header.cells] if own else header.cells
    _check_header(path, names, columns, delimiter, origin)
    body = [record for record in records if record.cells]
    if own:
        body = [record for record in body if any(cell.strip() for cell in record.cells)]
        names, body = _named_only(path, names, body, origin)
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


def whole(
    table: Path,
    row: Row,
    name: str,
    allowed: Sequence[int],
    origin: Origin = Origin.PUBLISHED,
) -> int:
    """A whole number in a cell, one of those that are allowed; ``1.0`` is one too in a user's own table.

    Raises:
        UserError: it is another number, or none.
    """
    text = row[name].strip()
    if origin is Origin.OWN:
        text = re.sub(r"\.0*$", "", text)
    value = int(text) if _NUMBER.fullmatch(text) else None
    if value is None or value not in allowed:
        raise UserError(
            f"{table}: {name} = {shown(row[name])} in {row.place}, expected one of "
            f"{', '.join(map(str, allowed))}; {origin.value}."
        )
    return value


@dataclass(frozen=True, slots=True)
class _Record:
    """The cells of a row, before they have names."""

    cells: list[str]
    number: int
    line: int

    @property
    def place(self) -> str:
        return f"line {self.line}{_unless_equal('row', self.number, self.line)}"


def _unless_equal(what: str, number: int, other: int) -> str:
    return f" ({what} {number})" if number != other else ""


def read_text(path: Path, origin: Origin = Origin.PUBLISHED) -> str:
    """A text in UTF-8, without the mark that some programs put in front.

    Raises:
        UserError: it is missing or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is not there; unpack the data set again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {origin.value}.") from None
    wrong = not_utf8(content)
    if wrong:
        raise UserError(f"{path} cannot be read as a table: {wrong}; {origin.value}.")
    return content.decode("utf-8-sig")


def not_utf8(content: bytes) -> str:
    """Why bytes are not a text in UTF-8, the middle of a sentence, or an empty text where they are."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is UTF-16 text, expected UTF-8 (a spreadsheet saves that as 'CSV UTF-8')"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        return (
            f"line {line} holds the byte 0x{content[error.start]:02x}, which is not UTF-8 (perhaps Latin-1); save it "
            "as UTF-8"
        )
    return "it holds NUL bytes, which no text has" if "\0" in text else ""


def _records(path: Path, reader: Iterator[list[str]], origin: Origin) -> Iterator[_Record]:
    """The rows with their numbers, from the first that is not blank."""
    before, number, begun = 0, 0, False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path} cannot be read as a table: from line {before + 1} on a quotation mark is not closed, or a "
                f"cell is too long ({error}); {origin.value}."
            ) from None
        number += 1
        if cells or begun:
            begun = True
            yield _Record(cells, number, before + 1)
        before = reader.line_num  # type: ignore[attr-defined]


def _cells(path: Path, record: _Record, needed: int, delimiter: str, origin: Origin) -> list[str]:
    """The cells of a row, as many as are needed at the least, and exactly as many in a user's own table."""
    count = len(record.cells)
    if count < needed:
        raise UserError(
            f"{record.place} of {path} is cut off: it has {_count(count)}, expected {needed}; "
            f"{origin.value}."
        )
    if origin is Origin.PUBLISHED:
        return record.cells
    if any(cell.strip() for cell in record.cells[needed:]):
        raise UserError(
            f"{record.place} of {path} has {_count(count)}, expected {needed}; a cell that holds "
            f"{_SEPARATORS[delimiter]} must stand in double quotes; {origin.value}."
        )
    return [clean(cell) for cell in record.cells[:needed]]


def _count(cells: int) -> str:
    return f"{cells} cell{'s' * (cells != 1)}"


def _check_header(
    path: Path, names: Sequence[str], columns: Sequence[str], delimiter: str, origin: Origin
) -> None:
    lacking = [name for name in columns if name not in names]
    if lacking:
        has = ", ".join(map(shown, names[:20])) + (", …" if len(names) > 20 else "")
        apart = ""
        if len(names) == 1:
            other = max(_SEPARATORS, key=names[0].count)
            seems = f", and these seem to be by {_SEPARATORS[other]}" if other in names[0] else ""
            apart = f" (columns are expected to be separated by {_SEPARATORS[delimiter]}{seems})"
        raise UserError(
            f"{path} has no column {', '.join(map(repr, lacking))}, its columns are {has or 'none'}{apart}; "
            f"{origin.value}."
        )
    wanted = names if origin is Origin.OWN else columns
    for name, times in Counter(name for name in names if name).items():
        if times > 1 and name in wanted:
            raise UserError(
                f"{path} has {times} columns called {shown(name)}, expected a name for each; {origin.value}."
            )


def _named_only(
    path: Path, names: list[str], body: list[_Record], origin: Origin
) -> tuple[list[str], list[_Record]]:
    """A table without those columns at its end that have no name and no text: what a comma too many makes.

    Raises:
        UserError: a column has text and no name.
    """
    unnamed = [i for i, name in enumerate(names) if _UNNAMED.fullmatch(name)]
    for i in unnamed:
        if any(len(record.cells) > i and record.cells[i].strip() for record in body):
            raise UserError(
                f"{path} has no name for its column {i + 1} (pandas writes such an index, unless index=False is "
                f"given); name it or take it away; {origin.value}."
            )
    keep = [i for i in range(len(names)) if i not in set(unnamed)]
    if len(keep) == len(names):
        return names, body
    if keep == list(range(len(keep))):  # all at the end
        return [names[i] for i in keep], body
    trimmed = [
        _Record(
            [record.cells[i] for i in keep if i < len(record.cells)] + record.cells[len(names) :],
            record.number,
            record.line,
        )
        for record in body
    ]
    return [names[i] for i in keep], trimmed
