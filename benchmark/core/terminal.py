"""Standard output and standard error that accept every text.

A POSIX locale, Windows code page 1252 and other encodings lack characters that our messages use, and
no encoding holds the lone surrogates by which Python represents file names that are not valid text.
By default Python raises ``UnicodeEncodeError`` when such a character is printed.
"""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

from benchmark.core.text import escape_controls

#: The name of our error handler, as ``str.encode`` and ``open`` take it.
REPLACE = "shortcutbed.replace"

#: How a character is spelled where the terminal lacks it; every other one becomes a question mark.
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

#: Handlers that raise, or print escapes that are not readable; a handler that a user chose is kept.
_DEFAULTS = ("strict", "surrogateescape", "backslashreplace")


def prepare_streams() -> None:
    """Let standard output and standard error take every text.

    Characters that their encoding lacks are replaced. A stream that was closed when the process
    started, as services and ``>&-`` do, leads nowhere from now on. Streams that are not text files
    of the interpreter, such as those of a notebook, are left alone.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(number))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors in _DEFAULTS:
            reconfigure(errors=REPLACE)


def _nowhere(number: int) -> TextIO:
    """A stream that discards what is written, under its usual number where that is free.

    Otherwise the next file that is opened would get the number, and be written to by what prints.
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
    """Print a text whose names and values come from files or arguments; control characters are spelled out.

    Args:
        text: line breaks in it are kept.
        error: print to standard error instead of standard output.
    """
    lines = map(escape_controls, str(text).split("\n"))
    print("\n".join(lines), file=sys.stderr if error else sys.stdout, flush=True)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The handler: plain spellings of the characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(character, "?") for character in text), error.end


codecs.register_error(REPLACE, _spell)
