"""Quiets harmless errors of the fork server, which imports this module first."""

from __future__ import annotations

import sys
from types import TracebackType


def _ignore_broken_pipes(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print no traceback for a process whose launcher ended while it was being forked.

    Such a process finds its pipes closed.
    """
    if not issubclass(kind, (OSError, EOFError)):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _ignore_broken_pipes
