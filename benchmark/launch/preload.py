"""What the fork server imports once, so that every run's process starts with it.

Nothing here computes: a process forked after OpenMP started its threads would hang in its first parallel loop.
On macOS nothing is imported at all: its system libraries, which numpy and PyTorch load, may not be used in a process
that was forked after they were loaded. There every run imports for itself, a few seconds each.
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
        # what cannot be imported is not reported here, where the fork server would die of it: each run reports it
        with suppress(Exception):
            importlib.import_module(name)
    for registry in (ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS, EXPLANATION_METRICS):
        with suppress(Exception):
            registry.names()


if sys.platform != "darwin":
    _import_all()
