"""Text for terminals, tables, spreadsheets and JSON."""

from __future__ import annotations

import json

import pytest

from benchmark.core.terminal import say
from benchmark.core.text import csv_cell, escape_controls, json_text, one_line, printable_lines

NASTY = "a\x1b[31mb\r\n\tc\u202ed\u200be\x9b\ud800f\x00"


def test_one_line_keeps_visible_characters() -> None:
    assert one_line(NASTY) == "a [31mb c d e f"
    assert one_line("  zwei  Wörter – 中文 ") == "zwei Wörter – 中文"
    assert one_line(3) == "3" and one_line("") == ""


def test_lines_keep_their_breaks_and_spaces() -> None:
    assert printable_lines("a\n  b\x1b\tc") == "a\n  b  c"


def test_controls_are_escaped_and_the_rest_is_kept() -> None:
    assert escape_controls("a\r\n\tb\x1b\u202e\u2028") == "a\\r\\n\\tb\\x1b\\u202e\\u2028"
    assert escape_controls("zwei  Wörter – 中文") == "zwei  Wörter – 中文"
    assert escape_controls("") == ""


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "=cmd|' /C calc'!A0",
        "\t=1",
        "\r=1",
        "+a",
        "-",
        "＝1",
        "-1 apples",
        "+1-2",
        "- refused",
        "\u202e=1",
    ],
)
def test_a_cell_that_begins_like_a_formula_gets_an_apostrophe(text: str) -> None:
    cell = csv_cell(text)
    assert isinstance(cell, str) and cell.startswith("'") and cell[1:] == one_line(text)


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "-0.5",
        "+3.2",
        "-1.5e-3",
        "-12,345",
        "−3.2",
        "-1.0 ± 0.5",
        "-1.0 ± 0.5*",
        "-3.0†",
        "-1.0 [-2.0, 0.5]",
        "-1.0 [-2.0, 0.5]*",
        "+5%",
        "erm",
        "–",
        "93.2 ± 0.4",
        "a=b",
        "",
    ],
)
def test_numbers_and_words_stay_as_they_are(text: str) -> None:
    assert csv_cell(text) == text


@pytest.mark.parametrize("value", [-1.5, 0, None, True, -3])
def test_cells_other_than_text_stay_as_they_are(value: object) -> None:
    assert csv_cell(value) is value


def test_json_means_the_same_with_its_control_characters_escaped() -> None:
    value = {"a\u202e": [NASTY, "plain", 1.5, "\U000e0001"]}
    text = json.dumps(value, ensure_ascii=False, indent=1)
    safe = json_text(text)
    assert json.loads(safe) == value
    assert all(line.isprintable() for line in safe.split("\n"))
    assert json_text('{\n "a": "ä"\n}') == '{\n "a": "ä"\n}'


def test_say_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[31m\nb\u202e")
    say("c\r", error=True)
    message = capsys.readouterr()
    assert message.out == "a\\x1b[31m\nb\\u202e\n" and message.err == "c\\r\n"
