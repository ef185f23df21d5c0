"""Splits on the device: bytes stay bytes until they are indexed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from benchmark.core.batch import Batch
from benchmark.core.dataset import GroupedDataset
from benchmark.core.speed.memory import Scratch

#: Share of the free memory of a GPU that one split may take; larger splits stay in host memory.
_SHARE = 0.25
#: On the CPU images are taken and normalised so many bytes at a time: what was just read is still in the cache of the
#: processor, and no second batch's worth of memory is asked of the system, which costs more than the arithmetic.
_CHUNK = 1 << 20


#: One for all splits: a batch of one is gone when the next is asked for a batch.
_SCRATCH = Scratch()


class DeviceSplit:
    """One split as tensors, ready to be indexed.

    Images are uint8 on the device (or in host memory where they do not fit) and become normalised floats per batch.

    Args:
        data: the data set.
        split: name of the split.
        device: where batches are wanted.
    """

    def __init__(self, data: GroupedDataset, split: str, device: torch.device) -> None:
        arrays = data.splits[split]
        self.name, self.device, self.size = split, device, len(arrays)
        self.arrays = arrays
        self.group_array = data.group(split)
        self._host_image: np.ndarray | None = None
        self._image = self._place(arrays.image)
        label = torch.from_numpy(arrays.label)
        self.label = (label.float() if label.ndim == 2 else label).to(
            device
        )  # multi-label: what a loss takes
        self.confounder = self._optional(arrays.confounder)
        self.environment = self._optional(arrays.environment)
        self.group = self._optional(self.group_array)
        self.mask = self._optional(arrays.mask)
        # one multiplication and one addition take a byte to its normalised value
        mean = torch.tensor(data.info.mean, dtype=torch.float32).view(1, -1, 1, 1)
        std = torch.tensor(data.info.std, dtype=torch.float32).view(1, -1, 1, 1)
        self.scale, self.shift = (1 / (255 * std)).to(device), (-mean / std).to(device)

    def _place(self, image: np.ndarray) -> torch.Tensor | None:
        """The images as one tensor, or None where they stay a (memory-mapped) array in host memory."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if image.nbytes <= free * _SHARE:
                return torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        elif not isinstance(image, np.memmap):
            return torch.from_numpy(np.ascontiguousarray(image))
        self._host_image = image
        return None

    def _optional(self, value: np.ndarray | None) -> torch.Tensor | None:
        return (
            None if value is None else torch.from_numpy(np.ascontiguousarray(value)).to(self.device)
        )

    def batch(self, rows: np.ndarray) -> Batch:
        """The rows as a batch, images normalised, with everything that is known of them.

        Args:
            rows: int64[B].
        """
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        return Batch(
            image=self._normalised(rows, index),
            label=self.label.index_select(0, index),
            index=index,
            **{
                name: self._pick(name, index)
                for name in ("group", "confounder", "environment", "mask")
            },
        )

    def _normalised(self, rows: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """Images of the rows, float[B,C,H,W], in memory that nothing else holds."""
        if self.device.type == "cpu":
            shape = self.arrays.image.shape[1:]
            image = _SCRATCH.take(len(rows), *shape)
            step = max(1, _CHUNK // max(1, math.prod(shape)))
            for start in range(0, len(rows), step):
                some = slice(start, start + step)
                image[some].copy_(self._taken(rows[some], index[some])).mul_(self.scale).add_(
                    self.shift
                )
            return image
        return self._taken(rows, index).to(torch.float32).mul_(self.scale).add_(self.shift)

    def _taken(self, rows: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """Bytes of the rows on the device."""
        if self._image is not None:
            return self._image.index_select(0, index)
        assert self._host_image is not None
        return torch.from_numpy(self._host_image[rows]).to(self.device, non_blocking=True)

    def _pick(self, name: str, index: torch.Tensor) -> torch.Tensor | None:
        value = getattr(self, name)
        return None if value is None else value.index_select(0, index)

    def batches(self, size: int) -> Iterator[Batch]:
        """Every image once, in order."""
        for start in range(0, self.size, size):
            yield self.batch(np.arange(start, min(start + size, self.size)))
