"""Memory that is kept and reused instead of being requested from the system for every step."""

from __future__ import annotations

import math
import platform
import sys

import numpy as np
import torch

from benchmark.core import speed

#: Parameters of glibc's ``mallopt`` (malloc.h) with the values that they are set to: free memory
#: that is kept at most, and the size above which a block is a mapping of its own.
_TRIM_THRESHOLD = (-1, 2**31 - 1)
_MMAP_THRESHOLD = (-3, 2**30)


def keep_memory() -> bool:
    """Let this process keep up to 2 GiB of the memory that it frees.

    A training step frees its activations and requests as much again in the next one. By default
    glibc returns large blocks to the system each time, which then has to clear every page: up to a
    tenth of the processor time of a step.

    Returns:
        Whether the system supports it.
    """
    if not speed.is_enabled():
        return False
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*parameter) for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))


class Scratch:
    """Memory for batches on the CPU, reused once nothing refers to the batch that had it.

    Pages that are new to the process cost several times as much as filling them. A tensor of
    ``torch.from_numpy`` refers to its array as long as the tensor, a view of it or a graph lives,
    so that an array to which nothing else refers is free.

    Args:
        keep: number of blocks of memory to keep; further blocks are not reused.
    """

    def __init__(self, keep: int = 3) -> None:
        self.keep = keep
        self._blocks: list[np.ndarray] = [np.empty(0, np.float32)]
        # the reference count of an array to which nothing else refers
        self._free = sys.getrefcount(self._blocks[0])

    def take(self, *shape: int) -> torch.Tensor:
        """Return an uninitialised tensor, float32[shape]."""
        if not speed.is_enabled():
            return torch.empty(shape)
        size = math.prod(shape)
        free = [
            i for i in range(len(self._blocks)) if sys.getrefcount(self._blocks[i]) == self._free
        ]
        fitting = [i for i in free if self._blocks[i].size >= size]
        if fitting:
            block = self._blocks[min(fitting, key=lambda i: self._blocks[i].size)]
        else:
            for i in reversed(free):  # too small for this request
                del self._blocks[i]
            block = np.empty(size, np.float32)
            if len(self._blocks) < self.keep:
                self._blocks.append(block)
        return torch.from_numpy(block[:size].reshape(shape))
