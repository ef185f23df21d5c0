"""Faithfulness of heatmaps: the agreement of relevance with the drop of scores without pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

#: Parts into which ``faithfulness_estimate`` divides the pixels of an image.
CHUNKS = 56
#: Perturbed images that pass the network together, at most.
IMAGES_PER_PASS = 256

#: ``model(image)`` gives logits float[B,K] of images float[B,C,H,W].
Model = Callable[[torch.Tensor], torch.Tensor]


def faithfulness_estimate(
    model: Model,
    image: torch.Tensor,
    relevance: torch.Tensor,
    target: torch.Tensor,
    *,
    chunks: int = CHUNKS,
) -> torch.Tensor:
    """Return the correlation of relevance and drop of the logit, chunk by chunk of pixels.

    Source: Alvarez-Melis & Jaakkola 2018, in the form of Quantus. The pixels are sorted by
    relevance, the largest first (of equal ones, the first in row-major order), and divided into
    chunks of ⌈P / chunks⌉ pixels. Each chunk alone is replaced by the smallest value of the image
    in all channels.

    Args:
        model: computes logits; it is called without gradients.
        image: float[B,C,H,W], as the model takes it.
        relevance: float[B,H,W].
        target: int64[B], the class of the logit.
        chunks: number of chunks, at most.

    Returns:
        float64[B], Pearson's correlation over the chunks; NaN where relevance or drops are
        constant.
    """
    pixels = relevance[0].numel()
    step = math.ceil(pixels / chunks)
    order = relevance.flatten(1).argsort(dim=1, descending=True, stable=True)
    subsets = [order[:, start : start + step] for start in range(0, pixels, step)]
    return _correlation_with_drops(model, image, relevance, target, subsets)


def faithfulness_correlation(
    model: Model,
    image: torch.Tensor,
    relevance: torch.Tensor,
    target: torch.Tensor,
    *,
    subsets: int = 100,
    subset_size: int = 224,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the correlation of relevance and drop of the logit over random subsets of pixels.

    Source: Bhatt et al. 2020. The pixels of a subset are replaced by the smallest value of the
    image in all channels.

    Args:
        model: as for ``faithfulness_estimate``.
        image: float[B,C,H,W].
        relevance: float[B,H,W].
        target: int64[B].
        subsets: number of random subsets, the same for all images.
        subset_size: pixels of a subset; at most all but one.
        generator: source of the subsets, on the CPU; None for torch's default generator.

    Returns:
        float64[B]; NaN where relevance or drops are constant.
    """
    pixels = relevance[0].numel()
    size = min(subset_size, pixels - 1)
    drawn = [torch.randperm(pixels, generator=generator)[:size] for _ in range(subsets)]
    rows = [one.to(image.device).expand(len(image), -1) for one in drawn]
    return _correlation_with_drops(model, image, relevance, target, rows)


@torch.no_grad()
def _correlation_with_drops(
    model: Model,
    image: torch.Tensor,
    relevance: torch.Tensor,
    target: torch.Tensor,
    subsets: list[torch.Tensor],
) -> torch.Tensor:
    """Return Pearson's correlation over subsets int64[B,n] of relevance in them and drop."""
    if relevance.shape != (len(image), *image.shape[2:]):
        raise ValueError(
            f"the relevance has shape {list(relevance.shape)}, expected "
            f"{[len(image), *image.shape[2:]]}"
        )
    a = relevance.flatten(1).double()
    lowest = image.flatten(1).amin(1).to(image.dtype)
    before = _score(model, image, target)
    sums = torch.stack([a.gather(1, subset).sum(1) for subset in subsets], dim=1)
    drops = []
    at_once = max(IMAGES_PER_PASS // len(image), 1)
    for start in range(0, len(subsets), at_once):
        part = subsets[start : start + at_once]
        perturbed = torch.cat([_replaced(image, subset, lowest) for subset in part])
        scores = _score(model, perturbed, target.repeat(len(part)))
        drops.append(before[:, None] - scores.view(len(part), len(image)).T)
    return pearson(sums, torch.cat(drops, dim=1))


def _replaced(image: torch.Tensor, subset: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return images with the pixels int64[B,n] of all channels set to values float[B]."""
    flat = image.flatten(2).clone()
    channels = flat.shape[1]
    index = subset[:, None].expand(-1, channels, -1)
    flat.scatter_(2, index, value[:, None, None].expand(index.shape))
    return flat.view_as(image)


def _score(model: Model, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return model(image).gather(1, target[:, None])[:, 0].double()


def pearson(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation of rows float64[B,n], float64[B]; NaN if one is constant."""
    x = one - one.mean(1, keepdim=True)
    y = other - other.mean(1, keepdim=True)
    norms = (x.square().sum(1) * y.square().sum(1)).sqrt()
    constant = (one.amax(1) == one.amin(1)) | (other.amax(1) == other.amin(1))
    undefined = constant | ~one.isfinite().all(1) | ~other.isfinite().all(1)
    return torch.where(undefined, torch.nan, (x * y).sum(1) / norms)
