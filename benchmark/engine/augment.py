"""Data augmentation on the device: one resampling of each batch, and transforms of torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from benchmark.core.batch import Batch
from benchmark.core.dataset import AUGMENTATIONS
from benchmark.core.transforms import make_transform

#: Bytes that are flipped at a time on the CPU, and bytes that each thread resamples at a time. What
#: was just read is then still in the cache of the processor, and no memory for a second batch is
#: allocated, which would cost more than the arithmetic.
_FLIP_BYTES = 1 << 17
_RESAMPLE_BYTES = 1 << 20


class Augmentation:
    """Augment batches of normalised images, together with their masks of all kinds.

    Flips, rotations, crops and shifts come first, then the transforms of torchvision in
    alphabetical order, so that the result does not depend on the order in a file. A transform draws
    new random numbers for each image, and sees pixel values in [0, 1].

    Args:
        options: The augmentation of a spec.
        mean: The mean of each channel that normalisation subtracted.
        std: The standard deviation of each channel by which it divided.
    """

    def __init__(
        self, options: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.resampling = {name: options[name] for name in options if name in AUGMENTATIONS}
        self.transforms: list[Callable[..., Any]] = [
            make_transform(name, options[name])
            for name in sorted(options)
            if name not in AUGMENTATIONS
        ]
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def __call__(self, batch: Batch) -> Batch:
        """Return the augmented batch; see ``augment``."""
        batch = augment(batch, self.resampling)
        if not self.transforms:
            return batch
        from torchvision import tv_tensors

        mean = self.mean.to(batch.image.device, non_blocking=True)
        std = self.std.to(batch.image.device, non_blocking=True)
        given = {"mask": batch.mask, "class_mask": batch.class_mask}
        masks = {name: value for name, value in given.items() if value is not None}
        images = []
        transformed: dict[str, list[torch.Tensor]] = {name: [] for name in masks}
        for i in range(len(batch)):
            image = tv_tensors.Image((batch.image[i] * std + mean).clamp_(0, 1))
            sample: Any = [image, *(tv_tensors.Mask(mask[i]) for mask in masks.values())]
            for transform in self.transforms:
                sample = transform(sample)
            images.append((sample[0].as_subclass(torch.Tensor) - mean) / std)
            for name, mask in zip(masks, sample[1:], strict=True):
                transformed[name].append(mask.as_subclass(torch.Tensor))
        stacked: dict[str, Any] = {name: torch.stack(r) for name, r in transformed.items()}
        return replace(batch, image=torch.stack(images), **stacked)


def augment(batch: Batch, options: Mapping[str, float]) -> Batch:
    """Flip, rotate, crop (zoom) and shift each image at random, together with its mask.

    Outside of the original, images repeat their border, and masks are background. A flip alone is
    exact; everything else is one bilinear resampling (nearest-neighbour for the mask). Random
    numbers come from torch's CPU generator, so that all devices draw the same.

    Args:
        batch: a batch with ``image`` float[B,C,H,W] on any device. On the CPU its image and
            masks may be overwritten.
        options: see ``benchmark.core.dataset.AUGMENTATIONS``.
    """
    flip = options.get("flip", 0.0)
    others = any(options.get(name, 0.0) > 0 for name in ("translate", "rotate", "crop"))
    if flip <= 0 and not others:
        return batch
    n = len(batch)
    device = batch.image.device
    flipped = torch.rand(n) < flip
    if not others:
        return _transform(batch, lambda x: _mirror(x, flipped), lambda x: _mirror(x, flipped))
    angle = (torch.rand(n) * 2 - 1) * math.radians(options.get("rotate", 0.0))
    zoom = 1 - torch.rand(n) * options.get("crop", 0.0)
    shift = (torch.rand(n, 2) * 2 - 1) * 2 * options.get("translate", 0.0)
    # A crop lies anywhere inside the image.
    shift = shift + (torch.rand(n, 2) * 2 - 1) * (1 - zoom)[:, None]
    height, width = batch.image.shape[-2:]
    cos = torch.cos(angle) * zoom
    sin = torch.sin(angle) * zoom
    mirror = 1 - 2 * flipped.float()
    rows = [
        cos * mirror,
        -sin * height / width,
        shift[:, 0],
        sin * mirror * width / height,
        cos,
        shift[:, 1],
    ]
    grid = torch.stack(rows, 1).view(n, 2, 3).to(device, non_blocking=True)
    return _transform(batch, lambda x: _resample(x, grid), lambda x: _resample_mask(x, grid))


def _transform(
    batch: Batch,
    of_image: Callable[[torch.Tensor], torch.Tensor],
    of_mask: Callable[[torch.Tensor], torch.Tensor],
) -> Batch:
    """Return a batch with transformed images and masks."""
    return replace(
        batch,
        image=of_image(batch.image),
        mask=None if batch.mask is None else of_mask(batch.mask),
        class_mask=None if batch.class_mask is None else of_mask(batch.class_mask),
    )


def _grid(affine: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the source of each pixel, float[B,H,W,2], like ``F.affine_grid`` but faster."""
    x = (2 * torch.arange(width, device=affine.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=affine.device) + 1) / height - 1
    column = affine[:, None, :, 0] * x[:, None]
    row = affine[:, None, :, 1] * y[:, None] + affine[:, None, :, 2]
    return column[:, None] + row[:, :, None]


def _resample(x: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Apply affine maps [B,2,3] to images [B,C,H,W], bilinearly; in place on the CPU."""
    if x.device.type != "cpu":
        return F.grid_sample(
            x, _grid(affine, *x.shape[-2:]), padding_mode="border", align_corners=False
        )
    count = max(1, torch.get_num_threads() * _RESAMPLE_BYTES // max(1, x[:1].nbytes))
    for start in range(0, len(x), count):
        part = x[start : start + count]
        grid = _grid(affine[start : start + count], *x.shape[-2:])
        interleaved = part.contiguous(memory_format=torch.channels_last)
        part.copy_(F.grid_sample(interleaved, grid, padding_mode="border", align_corners=False))
    return x


def _resample_mask(mask: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Apply affine maps [B,2,3] to masks [B,K,H,W], by nearest neighbour."""
    grid = _grid(affine, *mask.shape[-2:])
    moved = F.grid_sample(
        mask.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return moved > 0.5


def _mirror(x: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Mirror the images [B,C,H,W] that bool[B] selects; in place on the CPU."""
    if x.device.type != "cpu":
        on_device = flipped.to(x.device, non_blocking=True)
        return torch.where(on_device[:, None, None, None], x.flip(-1), x)
    for rows in flipped.nonzero()[:, 0].split(max(1, _FLIP_BYTES // max(1, x[:1].nbytes))):
        if len(rows) > 1:
            x.index_copy_(0, rows, x.index_select(0, rows).flip(-1))
        else:  # a large image is copied only once
            one = x[int(rows)]
            one.copy_(one.flip(-1))
    return x
