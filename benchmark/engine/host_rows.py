"""Rows of arrays that stay in host memory, on their way to a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch


class HostRows:
    """Copies rows of host arrays to a device, and can gather the next ones while it computes.

    Rows are gathered into pinned memory where the device is a GPU, so that the copy does not wait
    for the work that the GPU has still to do.

    Args:
        arrays: the arrays by name, each with the rows as its first axis.
        device: where the rows go.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        self.arrays = dict(arrays)
        self.device = device
        self._ahead: tuple[np.ndarray, dict[str, Future[torch.Tensor]]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def expect(self, rows: np.ndarray) -> None:
        """Gather rows in another thread; the next ``take`` of the same rows finds them ready.

        Args:
            rows: int64[B].
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "host rows")
        self._ahead = (
            rows,
            {name: self._thread.submit(self._gather, name, rows) for name in self.arrays},
        )

    def take(self, name: str, rows: np.ndarray) -> torch.Tensor:
        """Return rows of an array on the device.

        Args:
            name: the name of the array.
            rows: int64[B].
        """
        gathered = None
        if self._ahead is not None and np.array_equal(self._ahead[0], rows):
            gathered = self._ahead[1].pop(name, None)
        on_host = self._gather(name, rows) if gathered is None else gathered.result()
        return on_host.to(self.device, non_blocking=True)

    def _gather(self, name: str, rows: np.ndarray) -> torch.Tensor:
        array = self.arrays[name]
        shape = (len(rows), *array.shape[1:])
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        pinned = self.device.type == "cuda"
        gathered = torch.empty(shape, dtype=dtype, pin_memory=pinned)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(array):
            raise IndexError(f"{name} has {len(array)} rows, and others were asked for")
        # unlike the default mode, this one writes into the result without a copy
        np.take(array, rows, axis=0, out=gathered.numpy(), mode="clip")
        return gathered
