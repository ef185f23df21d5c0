"""Tables: cells, row numbers of the user's file, and encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from datasets._io.table import Origin, read_integer, read_table


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def own(path: Path, text: str | bytes, *columns: str) -> list[dict[str, str]]:
    return [row.cells for row in read_table(write(path, text), columns, origin=Origin.USER)]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n,\n , \n"])
def test_line_ends_byte_order_marks_and_blank_rows(
    ends: str, mark: str, last: str, tmp_path: Path
) -> None:
    text = f'{mark}a,b\n1,"x\ny"\n\n 2 ,é{last}'.replace("\n", ends)
    table = read_table(write(tmp_path / "t.csv", text), ("a", "b"), origin=Origin.USER)
    assert table.columns == ("a", "b")
    assert [row.cells for row in table] == [
        {"a": "1", "b": f"x{ends}y"},
        {"a": "2", "b": "é"},
    ]


def test_rows_have_spreadsheet_and_line_numbers(tmp_path: Path) -> None:
    text = 'a,b\n1,x\n2,"line 3\nline 4\nline 5"\n3,y\n\n4,z\n'
    rows = read_table(write(tmp_path / "t.csv", text), ("a",), origin=Origin.USER).rows
    assert [(row["a"], row.number, row.line) for row in rows] == [
        ("1", 2, 2), ("2", 3, 3), ("3", 4, 6), ("4", 6, 8),
    ]  # fmt: skip
    assert [row.place for row in rows] == ["row 2", "row 3", "row 4 (line 6)", "row 6 (line 8)"]


def test_names_and_cells_are_normalised(tmp_path: Path) -> None:
    assert own(tmp_path / "t.csv", " a ,cafe\u0301\nx\u00a0, cafe\u0301 \n", "a", "café") == [
        {"a": "x", "café": "café"}
    ]


def test_superfluous_commas_are_ignored(tmp_path: Path) -> None:
    assert own(tmp_path / "t.csv", "a,b,\n1,2,\n3,4,\n", "a") == [
        {"a": "1", "b": "2"},
        {"a": "3", "b": "4"},
    ]
    assert own(tmp_path / "t.csv", "a,,b\n1,,2\n", "a") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,b\n1,2,3\n", "2 columns called 'b'"),
        ("a,b, b \n1,2,3\n", "2 columns called 'b'"),
        (",a,b\n0,1,2\n", "no name for its column 1 .*index=False"),
        ("Unnamed: 0,a,b\n0,1,2\n", "no name for its column 1"),
        ("a,b,\n1,2,\n3,4,5\n", "no name for its column 3"),
        ("a,b\n1,2\n3,4,5\n", "line 3 of .*has 3 cells, expected 2; .*double quotes"),
        ("a,b\n1,2\n3\n", "line 3 of .*is cut off: it has 1 cell, expected 2"),
        ('a,b\n1,"2\n2"\n3\n', r"line 4 \(row 3\) of .*is cut off"),
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', "from line 3 on a quotation mark is not closed"),
        ('a,b\n1,"2"x\n', "quotation mark"),
        ("a;b\n1;2\n", "separated by ',', and these seem to be by ';'"),
        ("a\tb\n1\t2\n", "and these seem to be by tabs"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,b\n,\n \n", "has a header and no rows"),
        ("a,c\n1,2\n", "no column 'b', its columns are 'a', 'c'"),
        ("a,b\n1,caf\u00e9\n".encode("latin-1"), "line 2 holds the byte 0xe9"),
        ("a,b\r1,2\r3,caf\u00e9\r".encode("latin-1"), "line 3 holds the byte 0xe9"),
        ("a,b\n1,2\n".encode("utf-16"), "it is UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), "NUL bytes"),
        ("a,b\n1,2\0\n", "NUL bytes"),
        ("a,b\n1," + "2" * 200_000 + "\n", "cell is too long"),
    ],
)
def test_invalid_tables_are_user_errors(text: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        own(tmp_path / "t.csv", text, "a", "b")
    sentence = str(error.value)
    assert str(tmp_path / "t.csv") in sentence and "\n" not in sentence and len(sentence) < 500


def test_a_missing_table_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_table(tmp_path / "t.csv", ("a",))
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path, ("a",))


def test_a_published_table_is_not_checked_completely(tmp_path: Path) -> None:
    """Only the required columns of a published table must be valid."""
    text = ',a,b,b,\n7,1 ,x,y,\n8,2,"it said "yes",\n'
    table = read_table(write(tmp_path / "t.csv", text), ("a",))
    assert [row["a"] for row in table] == ["1 ", "2"] and table.columns == ("a", "b")
    with pytest.raises(UserError, match=r"2 columns called 'b'.*as it was published"):
        read_table(tmp_path / "t.csv", ("a", "b"))
    with pytest.raises(UserError, match="is cut off"):
        read_table(write(tmp_path / "t.csv", "a,b\n1,2\n3\n"), ("b",))
    assert len(read_table(tmp_path / "t.csv", ("a",))) == 2


@pytest.mark.parametrize("text", ["0", "1", "+1", "-0", "01", "1.0", "0.00", " 1 ", "1."])
def test_label_values(text: str, tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", f"a\n{text}\n"), ("a",), origin=Origin.USER)
    assert read_integer(table.path, table.rows[0], "a", (0, 1), Origin.USER) == float(text)


@pytest.mark.parametrize(
    "text",
    [
        "²", "٣", "１", "+-1", "--1", "+", "-1", "2", "9" * 5000, "1" + "0" * 5000, "1e0", "1e400",
        "0x1", "inf", "nan", "true", "True", "1_0", "0.5", "1.01", "1,0", ".", "1 0", "\u200b1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("origin", list(Origin))
def test_invalid_label_values_are_refused(text: str, origin: Origin, tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", f'a,b\n0,0\n1,"{text}"\n'), ("a",), origin=origin)
    with pytest.raises(UserError, match=r"b = .* in row 3, expected one of 0, 1") as error:
        read_integer(table.path, table.rows[1], "b", (0, 1), origin)
    assert len(str(error.value)) < 500
