"""Launch the runs of a sweep: leases, attempts, slots, executors, and progress.

The package itself can be called: ``from benchmark import launch; launch("my.toml")`` launches a
sweep from Python, as ``benchmark.api.launching.launch`` describes.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package with the name of a function of the Python interface."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Launch a sweep. See ``benchmark.api.launching.launch``."""
        module = importlib.import_module("benchmark.api.launching")
        return module.launch(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
