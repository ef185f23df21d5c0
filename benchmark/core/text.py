"""Text that is safe to print, to put into a table and to store.

Names and messages from files may hold characters that command a terminal or a spreadsheet.
"""

from __future__ import annotations

import json
import re
import unicodedata

_PLAIN = r"[-+−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?%?[*†]*"
#: A number as tables print it: alone, with ±, or with an interval.
_NUMBER = re.compile(rf"{_PLAIN}(?: ± {_PLAIN})?(?: \[{_PLAIN}, {_PLAIN}\][*†]*)?")
#: First characters that make a spreadsheet read a cell as a formula; the last four are full-width.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
#: Unicode categories of control characters, invisible marks and line separators.
_CONTROLS = frozenset({"Cc", "Cf", "Zl", "Zp"})


def one_line(text: object) -> str:
    """Return the text on one line, without characters that command a terminal.

    Control characters, ANSI escapes, directional overrides and all other invisible characters
    become spaces. Runs of spaces become one space.
    """
    return " ".join(_printable(str(text)).split())


def printable_lines(text: object) -> str:
    """Return the text as ``one_line`` does, but keep line breaks and the spaces in each line."""
    return "\n".join(map(_printable, str(text).split("\n")))


def escape_controls(text: str) -> str:
    r"""Return the text on one line, with control characters written as escape sequences.

    Line breaks, ANSI escapes and marks that reverse the direction of writing become ``\n``,
    ``\x1b`` and so on. Messages use this function, so that a user can see which characters a file
    name or an argument contains.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _CONTROLS
        else character
        for character in text
    )


def csv_cell(value: object) -> object:
    """Return a cell of a CSV file that no spreadsheet reads as a formula.

    Text is put on one line, and text that begins like a formula gets an apostrophe in front.
    Numbers stay as they are, including negative ones and numbers with ± or an interval.
    """
    if not isinstance(value, str):
        return value
    text = one_line(value)
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def json_text(text: str) -> str:
    """Escape the characters of a JSON text that command a terminal; its values do not change."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)
