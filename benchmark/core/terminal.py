"""Standard output and standard error that accept every character.

A POSIX locale, Windows code page 1252 and other encodings lack characters that messages use. No
encoding has the lone surrogates by which Python represents file names that are not valid text. By
default, Python raises ``UnicodeEncodeError`` when such a character is printed.
"""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

from benchmark.core.text import escape_controls

#: Name of the encoding error handler, for ``str.encode`` and ``open``.
REPLACE = "shortcutbed.replace"

#: Replacements of characters that a terminal lacks; all others become question marks.
_SPELLINGS = {
    "±": "+-",
    "×": "x",
    "·": "*",
    "Δ": "d",
    "≥": ">=",
    "≤": "<=",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "•": "*",
    "†": "(!)",
    "\u00a0": " ",
}

#: Python's default handlers, which raise or print unreadable escapes. Other handlers are kept.
_DEFAULTS = ("strict", "surrogateescape", "backslashreplace")


def prepare_streams() -> None:
    """Make standard output and standard error accept every character.

    Characters that the encoding lacks are replaced. A stream that was closed when the process
    started, as by services and ``>&-``, is redirected to the null device. Streams that are not text
    files of the interpreter, such as those of a notebook, are left alone.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _open_null(number))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors in _DEFAULTS:
            reconfigure(errors=REPLACE)


def _open_null(number: int) -> TextIO:
    """Open the null device, if possible under the file descriptor of the closed stream.

    Otherwise the next file that is opened would get that descriptor, and printed text would be
    written to it.
    """
    handle = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        os.dup2(handle, number)
        os.close(handle)
        handle = number
    if handle == number:
        os.set_inheritable(handle, True)
    return open(handle, "w", encoding="utf-8", closefd=False)


def say(text: object, *, error: bool = False) -> None:
    """Print text and escape its control characters, which names from files may contain.

    Args:
        text: The text. Its line breaks are kept.
        error: True to print to standard error instead of standard output.
    """
    lines = map(escape_controls, str(text).split("\n"))
    print("\n".join(lines), file=sys.stderr if error else sys.stdout, flush=True)


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that cannot be encoded, as an encoding error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(character, "?") for character in text), error.end


codecs.register_error(REPLACE, _replace_unencodable)
