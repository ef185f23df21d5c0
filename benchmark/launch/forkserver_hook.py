"""The fork server imports this first; nothing else should."""

from __future__ import annotations

import sys
from types import TracebackType


def _only_what_matters(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A process that was being forked when its launcher ended finds its pipes gone; nobody needs to read of that."""
    if not issubclass(kind, (OSError, EOFError)):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _only_what_matters
