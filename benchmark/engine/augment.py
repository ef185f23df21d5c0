"""Augmentation, batched on the device: one resampling for everything that a batch undergoes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmark.core.batch import Batch

#: Bytes that are flipped, or resampled by each thread, at a time on the CPU: what was just read is still in the
#: processor's cache, and no second batch's memory is asked of the system, which costs more than the arithmetic.
_FLIPPED, _RESAMPLED = 1 << 17, 1 << 20


def augment(batch: Batch, options: Mapping[str, float]) -> Batch:
    """The batch with each image flipped, rotated, cropped (zoomed) and shifted at random; the mask moves with it.

    What comes into view from outside repeats the border for the image and is background for the mask. Only a flip
    is exact in every bit; everything else is one bilinear resampling (nearest for the mask).

    Args:
        batch: with ``image`` float[B,C,H,W] on any device. On the CPU its image and mask may be overwritten: the loop
            has no other use for them.
        options: see ``benchmark.core.dataset.AUGMENTATIONS``.

    Random numbers come from torch's generator of the CPU, so that all devices draw the same.
    """
    flip, others = (
        options.get("flip", 0.0),
        any(options.get(k, 0.0) > 0 for k in ("translate", "rotate", "crop")),
    )
    if flip <= 0 and not others:
        return batch
    n, device = len(batch), batch.image.device
    flipped = torch.rand(n) < flip
    if not others:
        mask = None if batch.mask is None else _mirror(batch.mask, flipped)
        return replace(batch, image=_mirror(batch.image, flipped), mask=mask)
    angle = (torch.rand(n) * 2 - 1) * math.radians(options.get("rotate", 0.0))
    zoom = 1 - torch.rand(n) * options.get("crop", 0.0)
    shift = (torch.rand(n, 2) * 2 - 1) * 2 * options.get("translate", 0.0)
    shift = (
        shift + (torch.rand(n, 2) * 2 - 1) * (1 - zoom)[:, None]
    )  # a crop lies anywhere inside the image
    height, width = batch.image.shape[-2:]
    cos, sin, mirror = torch.cos(angle) * zoom, torch.sin(angle) * zoom, 1 - 2 * flipped.float()
    rows = [
        cos * mirror,
        -sin * height / width,
        shift[:, 0],
        sin * mirror * width / height,
        cos,
        shift[:, 1],
    ]
    grid = torch.stack(rows, 1).view(n, 2, 3).to(device)
    return replace(batch, image=_resample(batch.image, grid), mask=_resample_mask(batch.mask, grid))


def _grid(affine: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Where each pixel is taken from, float[B,H,W,2]: ``F.affine_grid``, as one sum of a row's part and a column's."""
    x = (2 * torch.arange(width, device=affine.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=affine.device) + 1) / height - 1
    column = affine[:, None, :, 0] * x[:, None]
    row = affine[:, None, :, 1] * y[:, None] + affine[:, None, :, 2]
    return column[:, None] + row[:, :, None]


def _resample(x: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Images [B,C,H,W] under affine maps [B,2,3], bilinear; in place on the CPU, a few at a time."""
    if x.device.type != "cpu":
        return F.grid_sample(
            x, _grid(affine, *x.shape[-2:]), padding_mode="border", align_corners=False
        )
    for some in torch.arange(len(x)).split(
        max(1, torch.get_num_threads() * _RESAMPLED // max(1, x[:1].nbytes))
    ):
        part = x[some[0] : some[-1] + 1]
        grid = _grid(affine[some], *x.shape[-2:])
        closer = part.contiguous(
            memory_format=torch.channels_last
        )  # the channels of a pixel beside each other
        part.copy_(F.grid_sample(closer, grid, padding_mode="border", align_corners=False))
    return x


def _resample_mask(mask: torch.Tensor | None, affine: torch.Tensor) -> torch.Tensor | None:
    """Masks [B,1,H,W] under affine maps [B,2,3], nearest."""
    if mask is None:
        return None
    grid = _grid(affine, *mask.shape[-2:])
    return (
        F.grid_sample(mask.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
        > 0.5
    )


def _mirror(x: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Some of the images [B,C,H,W] from left to right, those of bool[B]; in place on the CPU, a few at a time."""
    if x.device.type != "cpu":
        return torch.where(flipped.to(x.device)[:, None, None, None], x.flip(-1), x)
    for rows in flipped.nonzero()[:, 0].split(max(1, _FLIPPED // max(1, x[:1].nbytes))):
        if len(rows) > 1:
            x.index_copy_(0, rows, x.index_select(0, rows).flip(-1))
        else:  # of a large image a single copy is made
            one = x[int(rows)]
            one.copy_(one.flip(-1))
    return x
