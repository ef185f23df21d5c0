"""Splits on the device; images stay uint8 until a batch is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from benchmark.core.batch import Batch
from benchmark.core.dataset import UNKNOWN, GroupedDataset
from benchmark.core.speed.memory import Scratch
from benchmark.engine.host_rows import HostRows

#: The share of the memory of a GPU that a run may still allocate and that one split may use.
#: Larger splits stay on the host.
MAX_GPU_SHARE = 0.25
#: On the CPU images are normalised in chunks of this many bytes. What was just read is then still
#: in the cache of the processor, and no memory for a second batch is allocated, which would cost
#: more than the arithmetic.
_CHUNK_BYTES = 1 << 20

#: Shared by all splits: a batch of one split is gone before a batch of the next is requested.
_SCRATCH = Scratch()


class DeviceSplit:
    """A split as tensors, from which batches are taken.

    Images and masks are on the device, or stay in host memory, perhaps mapped from files, if they
    do not fit. Each batch is normalised to floats.

    Args:
        data: the data set.
        split: the name of the split.
        device: the device of the batches.
        max_gpu_share: the largest share of the memory that the run may still allocate on a GPU
            that the images may use, and that the masks may use of the rest.
    """

    def __init__(
        self,
        data: GroupedDataset,
        split: str,
        device: torch.device,
        max_gpu_share: float = MAX_GPU_SHARE,
    ) -> None:
        arrays = data.splits[split]
        self.name = split
        self.device = device
        self.size = len(arrays)
        self.max_gpu_share = max_gpu_share
        self.arrays = arrays
        self.environments = len(data.info.environment_names)
        self.group_array = data.group(split)
        self._image = self._place(arrays.image)
        label = torch.from_numpy(arrays.label)
        if label.ndim == 2:  # Losses for multi-label data take floats.
            label = label.float().masked_fill(label == UNKNOWN, torch.nan)
        self.label = label.to(device)
        self.confounder = self._optional(arrays.confounder)
        self.environment = self._optional(arrays.environment)
        self.group = self._optional(self.group_array)
        self._mask = None if arrays.mask is None else self._place(arrays.mask)
        on_host = {"image": arrays.image} if self._image is None else {}
        if arrays.mask is not None and self._mask is None:
            on_host["mask"] = arrays.mask
        self._host_rows = HostRows(on_host, device)
        self.scored = self._optional(arrays.scored)
        self.accepted = self._optional(arrays.accepted)
        # A byte is normalised by one multiplication and one addition.
        mean = torch.tensor(data.info.mean, dtype=torch.float32).view(1, -1, 1, 1)
        std = torch.tensor(data.info.std, dtype=torch.float32).view(1, -1, 1, 1)
        self.scale = (1 / (255 * std)).to(device)
        self.shift = (-mean / std).to(device)

    def _place(self, array: np.ndarray) -> torch.Tensor | None:
        """Return images or masks as a tensor, or None if they stay an array in host memory."""
        if self.device.type == "cuda":
            if array.nbytes <= allocatable_bytes(self.device) * self.max_gpu_share:
                return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        elif not isinstance(array, np.memmap):
            return torch.from_numpy(np.ascontiguousarray(array))
        return None

    def _optional(self, value: np.ndarray | None) -> torch.Tensor | None:
        if value is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)

    @property
    def gathers_ahead(self) -> bool:
        """Return True if ``expect`` makes a batch faster: rows of the host go to a GPU."""
        return self.device.type != "cpu" and bool(self._host_rows.arrays)

    def expect(self, rows: np.ndarray) -> None:
        """Gather the rows of the next batch, int64[B], while the device computes."""
        self._host_rows.expect(rows)

    def batch(self, rows: np.ndarray, *, class_masks: bool = False) -> Batch:
        """Return a batch of normalised images with all their annotations.

        Args:
            rows: the rows of the split, int64[B].
            class_masks: True to rasterise the masks of each class, if the split has them.
        """
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        environment = self.arrays.environment
        return Batch(
            image=self._normalised(rows, index),
            label=self.label.index_select(0, index),
            index=index,
            mask=self._take_masks(rows, index),
            class_mask=self._class_mask(rows) if class_masks else None,
            environment_sizes=None
            if environment is None or self.name != "train"
            else tuple(np.bincount(environment[rows], minlength=self.environments).tolist()),
            **{name: self._pick(name, index) for name in ("group", "confounder", "environment")},
        )

    def _normalised(self, rows: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """Return normalised images, float[B,C,H,W], in memory that nothing else uses."""
        if self.device.type == "cpu":
            shape = self.arrays.image.shape[1:]
            image = _SCRATCH.take(len(rows), *shape)
            step = max(1, _CHUNK_BYTES // max(1, math.prod(shape)))
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                image[part].copy_(self._take(rows[part], index[part]))
                image[part].mul_(self.scale).add_(self.shift)
            return image
        return self._take(rows, index).to(torch.float32).mul_(self.scale).add_(self.shift)

    def _take(self, rows: np.ndarray, index: torch.Tensor) -> torch.Tensor:
        """Return the images of the rows on the device, uint8[B,C,H,W]."""
        if self._image is not None:
            return self._image.index_select(0, index)
        return self._host_rows.take("image", rows)

    def _take_masks(self, rows: np.ndarray, index: torch.Tensor) -> torch.Tensor | None:
        """Return the masks of the rows on the device, bool[B,1,H,W]; None if there are none."""
        if self.arrays.mask is None:
            return None
        if self._mask is not None:
            return self._mask.index_select(0, index)
        return self._host_rows.take("mask", rows)

    def _class_mask(self, rows: np.ndarray) -> torch.Tensor | None:
        """Return the masks of each class, bool[B,K,H,W]; None if the split has none."""
        masks = self.arrays.class_masks
        if masks is None:
            return None
        return torch.from_numpy(masks.rasterise(rows)).to(self.device, non_blocking=True)

    def _pick(self, name: str, index: torch.Tensor) -> torch.Tensor | None:
        value = getattr(self, name)
        return None if value is None else value.index_select(0, index)

    def batches(self, size: int, *, class_masks: bool = False) -> Iterator[Batch]:
        """Iterate over all images in order, in batches of ``size``; see ``batch``."""
        for start in range(0, self.size, size):
            rows = np.arange(start, min(start + size, self.size))
            yield self.batch(rows, class_masks=class_masks)


def allocatable_bytes(device: torch.device) -> int:
    """Return the memory of a GPU that this process may still allocate for tensors.

    Other runs on the GPU leave less than what is free: each may use its share.
    """
    free, total = torch.cuda.mem_get_info(device)
    # PyTorch before 2.8 does not tell the limit that it was given.
    limit = getattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)(device)
    return min(free, int(limit * total) - torch.cuda.memory_reserved(device))
