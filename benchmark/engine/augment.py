"""Augmentation, batched on the device: one resampling for everything that a batch undergoes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmark.core.batch import Batch

#: Images that are flipped at a time on the CPU.
_ROWS = 8


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
    flip, others = options.get("flip", 0.0), any(options.get(k, 0.0) > 0 for k in ("translate", "rotate", "crop"))
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
    shift = shift + (torch.rand(n, 2) * 2 - 1) * (1 - zoom)[:, None]  # a crop lies anywhere inside the image
    height, width = batch.image.shape[-2:]
    cos, sin, mirror = torch.cos(angle) * zoom, torch.sin(angle) * zoom, 1 - 2 * flipped.float()
    rows = [cos * mirror, -sin * height / width, shift[:, 0], sin * mirror * width / height, cos, shift[:, 1]]
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3).to(device), list(batch.image.shape), align_corners=False)
    image = F.grid_sample(batch.image, grid, padding_mode="border", align_corners=False)
    mask = batch.mask
    if mask is not None:
        mask = F.grid_sample(mask.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False) > 0.5
    return replace(batch, image=image, mask=mask)


def _mirror(x: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Some of the images [B,C,H,W] from left to right, those of bool[B]; in place on the CPU.

    There, pages that are new to the process cost several times what copying does, so a few rows go at a time.
    """
    if x.device.type != "cpu":
        return torch.where(flipped.to(x.device)[:, None, None, None], x.flip(-1), x)
    for rows in flipped.nonzero()[:, 0].split(_ROWS):
        x[rows] = x[rows].flip(-1)
    return x
