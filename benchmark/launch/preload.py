"""What the fork server imports once, so that every run's process starts with it.

Nothing here computes: a process forked after OpenMP started its threads would hang in its first parallel loop.
"""

from __future__ import annotations

import importlib
from contextlib import suppress

from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS

for _name in (
    "numpy",
    "torch",
    "torchvision",
    "benchmark.launch.worker",
    "benchmark.engine.execute",
):
    # what cannot be imported is not reported here: the fork server would die of it, the run reports it in its output
    with suppress(Exception):
        importlib.import_module(_name)

for _registry in (ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS):
    with suppress(Exception):
        _registry.names()
