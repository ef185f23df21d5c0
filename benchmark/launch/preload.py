"""Imports everything that runs need; the fork server imports this module once for all runs.

Nothing here computes: a process that is forked after OpenMP has started its threads hangs in its
first parallel loop. On macOS nothing is imported: numpy and PyTorch load system libraries that must
not be used in a process forked after they were loaded. Every run there imports for itself, which
takes a few seconds.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress

from benchmark.core.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    EXPLAINERS,
    EXPLANATION_METRICS,
)

_MODULES = ("numpy", "torch", "torchvision", "benchmark.launch.worker", "benchmark.engine.execute")


def _import_all() -> None:
    for name in _MODULES:
        # An error here would end the fork server; each run reports it instead.
        with suppress(Exception):
            importlib.import_module(name)
    for registry in (ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS, EXPLANATION_METRICS):
        with suppress(Exception):
            registry.names()


if sys.platform != "darwin":
    _import_all()
