"""Remove what Linux has and macOS lacks: CPU affinities, process handles and /proc.

Python imports this module at its start if this folder is on PYTHONPATH. Child processes inherit it.
"""

from __future__ import annotations

import io
import os
from typing import Any

for _name in ("sched_getaffinity", "sched_setaffinity", "pidfd_open", "posix_fadvise"):
    if hasattr(os, _name):
        delattr(os, _name)


def _without_proc(function: Any) -> Any:
    def guarded(path: Any, *arguments: Any, **more: Any) -> Any:
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith("/proc/"):
            raise FileNotFoundError(2, "there is no /proc on macOS", os.fspath(path))
        return function(path, *arguments, **more)

    return guarded


# pathlib opens files with io.open
io.open = _without_proc(io.open)
os.listdir = _without_proc(os.listdir)
