"""Text that is safe to print: names and messages from files reach terminals and tables only through here."""

from __future__ import annotations

import json
import re

_PLAIN = r"[-+−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?%?[*†]*"
#: A number as tables print it: alone, with ±, or with an interval.
_NUMBER = re.compile(rf"{_PLAIN}(?: ± {_PLAIN})?(?: \[{_PLAIN}, {_PLAIN}\][*†]*)?")
#: Beginnings that make a spreadsheet take a cell for a formula; the last four are full-width forms.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def one_line(text: object) -> str:
    """The text on one line, without characters that command a terminal.

    Control characters, ANSI escapes, directional overrides and all other invisible characters become spaces, and
    several spaces become one.
    """
    return " ".join(_visible(str(text)).split())


def lines(text: object) -> str:
    """As ``one_line``, but line breaks and the spaces in each line are kept."""
    return "\n".join(map(_visible, str(text).split("\n")))


def csv_cell(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula.

    Text is put on one line, and an apostrophe goes before text that begins like a formula. Numbers stay as they are,
    negative ones and numbers with ± or an interval included.
    """
    if not isinstance(value, str):
        return value
    text = one_line(value)
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def json_text(text: str) -> str:
    """JSON in which characters that command a terminal are escaped; its values stay the same."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)
