"""Code that changes how fast a run is, and its results by rounding at most.

``convolution`` has a convolution with faster derivatives for explanations in a loss, ``memory``
keeps and reuses memory, and ``seeding`` seeds only the devices that the machine has.
``benchmark.core.parallel_forward`` runs two networks at the same time. All of it is switched off by
the environment variable ``SHORTCUTBED_SPEED=0``, or by ``disabled`` in a process.
``tests/benchmarks/speed_switch.py`` measures a training step with and without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Environment variable that switches the code off; recorded with the conditions of a run.
VARIABLE = "SHORTCUTBED_SPEED"

_enabled = os.environ.get(VARIABLE, "1") != "0"


def is_enabled() -> bool:
    """Return whether the faster code is used."""
    return _enabled


@contextmanager
def disabled() -> Iterator[None]:
    """Use PyTorch's own code in the block."""
    global _enabled
    before = _enabled
    _enabled = False
    try:
        yield
    finally:
        _enabled = before
