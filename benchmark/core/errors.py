"""Errors that are reported to users, and the exit codes of command lines."""

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

#: Operating-system errors that a user can correct, as opposed to bugs.
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
    if hasattr(errno, name)  # Not every system has quotas and network file systems.
}
#: Largest number of characters of a value that a message quotes.
_MAX_QUOTED = 100
#: Largest number of levels of nesting that a message quotes.
_MAX_LEVELS = 3
#: Largest number of problems in one message; a generated file may have thousands.
_MAX_LISTED = 100


class UserError(Exception):
    """A mistake that the user can correct.

    The message states what is wrong, what was expected, and how to fix it, in one or two sentences.
    It is one line: control characters in quoted names and values are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escape_controls(message))


class Refused(UserError):
    """A method that cannot run on some data. Tables show a dash and this message as a footnote."""


class DamagedError(UserError, ValueError):
    """A stored file whose content is invalid; the message names the file and the reason."""


class Problems(UserError):
    """Several mistakes that were found together.

    Args:
        problems: One sentence per mistake, in the order in which they were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(map(escape_controls, problems))
        if len(self.problems) == 1:
            Exception.__init__(self, self.problems[0])
            return
        lines = [f"{len(self.problems)} problems:", *self.problems[:_MAX_LISTED]]
        unlisted = len(self.problems) - _MAX_LISTED
        if unlisted > 0:
            lines.append(f"and {unlisted:,} more")
        Exception.__init__(self, "\n  - ".join(lines))


def shown(value: object) -> str:
    """Return ``repr(value)`` for a message, shortened if it is long or deeply nested."""
    short = reprlib.Repr()
    short.maxlevel = _MAX_LEVELS
    short.maxstring = short.maxother = short.maxlong = _MAX_QUOTED
    try:
        text = short.repr(value)
    except ValueError:  # Python refuses to print integers with too many digits.
        return "an integer of thousands of digits"
    return text if len(text) <= 2 * _MAX_QUOTED else f"{text[: 2 * _MAX_QUOTED]}…"


class StopRequestedError(BaseException):
    """A request to stop a run that has nothing to save.

    Like KeyboardInterrupt it is not an Exception, so that code that handles errors does not catch
    it.

    Args:
        reason: Why the run should stop, in a word or two.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ErrorCollector:
    """Collect the mistakes of several steps, so that all of them are reported together."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}

    def __call__(self, make: Callable[..., T], *arguments: object) -> T | None:
        """Return ``make(*arguments)``, or None and keep the mistake if it raises a UserError."""
        try:
            return make(*arguments)
        except UserError as error:
            self.problems.update(dict.fromkeys(getattr(error, "problems", [str(error)])))
            return None

    def finish(self) -> None:
        """Raise the collected mistakes, if any: a UserError, or Problems if there are several."""
        if len(self.problems) > 1:
            raise Problems(list(self.problems))
        for problem in self.problems:
            raise UserError(problem)


def exit_code(main: Callable[[], int | None]) -> int:
    """Run a command line and return its exit code.

    A ``UserError`` and an error of the machine (disk full, folder read-only) are printed in one
    line on standard error. Any other exception is a bug and keeps its traceback. Characters that
    the terminal cannot print are replaced.

    Args:
        main: The command line, which may return an exit code.

    Returns:
        0 if it succeeded, 1 if something failed, 2 for a mistake of the user, 130 for Ctrl-C.
    """
    prepare_streams()
    try:
        code = main() or 0
        # Flush here, so that an error is reported as below and not at interpreter shutdown.
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # The reader has closed the pipe, as in `… list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        where = f" ({escape_controls(str(error.filename))})" if error.filename else ""
        print(
            f"error: {error.strerror}{where}; correct this and run the command again. "
            "Finished runs are kept.",
            file=sys.stderr,
        )
        return 2
    except UnicodeEncodeError as error:
        # The text is a path, since the standard streams accept every character.
        if sys.getfilesystemencoding() == "utf-8":
            raise
        print(
            f"error: file names are encoded in {sys.getfilesystemencoding()} in this locale, which "
            f"lacks {error.object[error.start : error.end]!a}; set PYTHONUTF8=1 to use UTF-8.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished work is kept. Launch again to continue.", file=sys.stderr)
        return 130
