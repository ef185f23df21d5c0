"""ShortcutBed: which training methods learn the object, and which learn a shortcut?

The Python interface is ``load_run``, ``load_sweep``, ``load_exported`` and ``launch``. It is
imported on first use, so that importing this package stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.api.exported import load_exported as load_exported
    from benchmark.api.launching import launch as launch
    from benchmark.api.run import load_run as load_run
    from benchmark.api.sweep import load_sweep as load_sweep

__version__ = "0.1.0"

#: The module of each function of the Python interface.
_INTERFACE = {
    "load_run": "benchmark.api.run",
    "load_sweep": "benchmark.api.sweep",
    "load_exported": "benchmark.api.exported",
}

__all__ = ["__version__", "launch", "load_exported", "load_run", "load_sweep"]


def __getattr__(name: str) -> Any:
    if name in _INTERFACE:
        return getattr(importlib.import_module(_INTERFACE[name]), name)
    if name == "launch":  # the package benchmark.launch, which can be called
        return importlib.import_module("benchmark.launch")
    raise AttributeError(f"module 'benchmark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_INTERFACE, "launch"})
