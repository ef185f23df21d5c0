"""Errors meant for the person at the keyboard, and how a command line ends on them."""

from __future__ import annotations

import errno
import os
import reprlib
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from benchmark.core.terminal import prepare_streams
from benchmark.core.text import escape_controls

T = TypeVar("T")

#: Operating-system errors that are the state of the machine or of its files, and not a bug of ours.
_ENVIRONMENT = {
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EROFS",
        "EACCES",
        "EPERM",
        "ENOTDIR",
        "EISDIR",
        "ELOOP",
        "ENAMETOOLONG",
        "EIO",
        "ESTALE",
        "EMFILE",
        "ENFILE",
        "ENOMEM",
    )
    if hasattr(errno, name)  # not every system has quotas and network file systems
}
#: Characters of a value that a message quotes, and levels of nesting.
_QUOTED, _LEVELS = 100, 3
#: Problems that are listed; a file with a wrong line in a loop has thousands.
_MOST_LISTED = 100


class UserError(Exception):
    """A mistake that a user can correct: what is wrong, what was expected, and how to fix it, in a sentence or two.

    The message is one line: control characters of names and values that it quotes are spelled out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escape_controls(message))


class Refused(UserError):
    """A method that cannot run on this data; tables show it as – with this sentence as the footnote."""


class DamagedError(UserError, ValueError):
    """A file that is not what ShortcutBed writes; the message is one sentence that names the file and the reason."""


class Problems(UserError):
    """Several mistakes found together.

    Args:
        problems: one sentence each, in the order in which they were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(map(escape_controls, problems))
        rest = len(self.problems) - _MOST_LISTED
        lines = [f"{len(self.problems)} problems:", *self.problems[:_MOST_LISTED]]
        many = "\n  - ".join([*lines, *([f"and {rest:,} more"] if rest > 0 else [])])
        Exception.__init__(self, many if len(self.problems) != 1 else self.problems[0])


def shown(value: object) -> str:
    """``repr(value)`` for a message, shortened where the value is long, deeply nested or a huge integer."""
    short = reprlib.Repr()
    short.maxlevel = _LEVELS
    short.maxstring = short.maxother = short.maxlong = _QUOTED
    try:
        text = short.repr(value)
    except ValueError:  # an integer with more digits than Python writes out
        return "an integer of thousands of digits"
    return text if len(text) <= 2 * _QUOTED else f"{text[: 2 * _QUOTED]}…"


class StopRequestedError(BaseException):
    """A run was asked to stop while it had nothing to save.

    Like KeyboardInterrupt it is no Exception, so that code which goes on after errors does not go on after this.

    Args:
        reason: why, in a word or two.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ErrorCollector:
    """Goes on after a user's mistake, so that all of them are reported together."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}

    def __call__(self, make: Callable[..., T], *arguments: object) -> T | None:
        """``make(*arguments)``, or None where that is a mistake, which is kept."""
        try:
            return make(*arguments)
        except UserError as error:
            self.problems.update(dict.fromkeys(getattr(error, "problems", [str(error)])))
            return None

    def finish(self) -> None:
        """Raise what was found: a UserError, or Problems if there are several."""
        if len(self.problems) > 1:
            raise Problems(list(self.problems))
        for problem in self.problems:
            raise UserError(problem)


def exit_code(main: Callable[[], int | None]) -> int:
    """Run a command line and return its exit code: 0 done, 1 something failed, 2 a user's mistake, 130 Ctrl-C.

    A ``UserError`` and an error of the machine (disk full, folder read-only) become one sentence on standard error;
    any other exception is a bug and keeps its traceback. Characters that the terminal lacks are replaced.
    """
    prepare_streams()
    try:
        code = main() or 0
        sys.stdout.flush()  # here, where an error still becomes a sentence, and not when the interpreter ends
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `… list | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        where = f" ({escape_controls(str(error.filename))})" if error.filename else ""
        print(
            f"error: {error.strerror}{where}; nothing was lost: correct this and run the command again.",
            file=sys.stderr,
        )
        return 2
    except UnicodeEncodeError as error:
        # a path, since standard output and standard error take every text
        if sys.getfilesystemencoding() == "utf-8":
            raise
        print(
            f"error: file names are in {sys.getfilesystemencoding()} here (the locale says so), which has no "
            f"{error.object[error.start : error.end]!a}; set PYTHONUTF8=1, which makes them UTF-8.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; what is done is kept: launch again to go on.", file=sys.stderr)
        return 130
