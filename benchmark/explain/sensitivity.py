"""Sensitivity of heatmaps and predictions to the class, the object and the shortcut.

All functions compute in float64 and return NaN where they are undefined. A heatmap can hide a
shortcut that the prediction still depends on, so ``confounder_sensitivity`` belongs beside
``tag_effect``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from benchmark.explain.faithfulness import pearson

#: Images without the class in a group of ``class_sensitivity``, and groups, at most.
NEGATIVES = 3
MAX_GROUPS = 50
#: Share of the pixels that count as the most relevant ones, and the largest area of a shortcut.
TOP = 0.1


def class_sensitivity(relevance: torch.Tensor) -> torch.Tensor:
    """Return the share of positive relevance in the one image of a group that has the class.

    Source: Sun et al. 2025 (Attri-Net). The same class is explained in all images of a group, each
    of which passes the network alone.

    Args:
        relevance: signed heatmaps float[G,N,H,W] of G groups; the first image of a group has the
            class, the other N − 1 do not.

    Returns:
        float64[G] from 0 to 1; NaN for groups without positive relevance. A heatmap that knows
        nothing of the class has 1/N on average.
    """
    positive = relevance.double().clamp_min(0).flatten(2).sum(2)
    total = positive.sum(1)
    defined = (total > 0) & total.isfinite()
    return torch.where(defined, positive[:, 0] / total, torch.nan)


def sensitivity_groups(
    has_class: torch.Tensor, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Draw groups of one image with a class and three without it, each image at most once.

    Args:
        has_class: bool[N].
        generator: source of the draws, on the CPU; None for torch's default generator.

    Returns:
        int64[G,4] with G = min(50, positives, ⌊negatives / 3⌋); the first column has the class.
    """
    positive = torch.nonzero(has_class.cpu())[:, 0]
    negative = torch.nonzero(~has_class.cpu())[:, 0]
    groups = min(MAX_GROUPS, len(positive), len(negative) // NEGATIVES)
    first = positive[torch.randperm(len(positive), generator=generator)[:groups]]
    order = torch.randperm(len(negative), generator=generator)[: groups * NEGATIVES]
    return torch.cat([first[:, None], negative[order].view(groups, NEGATIVES)], dim=1)


def disease_sensitivity(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the share of the positive relevance inside the mask of the evidence.

    Source: Sun et al. 2025. For a constant map it is the share of the image that the mask covers.

    Args:
        relevance: signed heatmaps float[B,H,W].
        mask: bool[B,H,W], the evidence of the explained class.

    Returns:
        float64[B] from 0 to 1; NaN without positive relevance or for an empty mask.
    """
    positive = relevance.double().clamp_min(0).flatten(1)
    inside = mask.flatten(1)
    total = positive.sum(1)
    defined = (total > 0) & total.isfinite() & inside.any(1)
    return torch.where(defined, (positive * inside).sum(1) / total, torch.nan)


def confounder_sensitivity(relevance: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
    """Return the share of the shortcut's pixels among the most relevant tenth of the image.

    Source: Sun et al. 2023. Pixels without relevance never count. Of equally relevant pixels, the
    first in row-major order counts as more relevant.

    Args:
        relevance: signed heatmaps float[B,H,W], of which the absolute value is used.
        shortcut: bool[B,H,W], the pixels that show the confounder.

    Returns:
        float64[B] from 0 to 1; NaN for an empty shortcut, or one of more than a tenth of the
        image, which cannot lie in it. A random map has 0.1 on average.
    """
    size = relevance.double().abs().flatten(1)
    shown = shortcut.flatten(1)
    most = math.floor(TOP * size.shape[1])
    order = size.argsort(dim=1, descending=True, stable=True)[:, :most]
    among = torch.zeros_like(shown)
    among.scatter_(1, order, True)
    among &= size > 0
    area = shown.sum(1)
    defined = (area > 0) & (area <= most) & size.isfinite().all(1)
    return torch.where(defined, (among & shown).sum(1).double() / area, torch.nan)


def explanation_ncc(with_shortcut: torch.Tensor, without: torch.Tensor) -> torch.Tensor:
    """Return the normalised cross-correlation of heatmaps with and without the shortcut.

    Source: Sun et al. 2023. It is 1 if the shortcut does not change the explanation.

    Args:
        with_shortcut: float[B,H,W].
        without: float[B,H,W], of the same images without the shortcut.

    Returns:
        float64[B] from −1 to 1; NaN if a map is constant.
    """
    return pearson(with_shortcut.double().flatten(1), without.double().flatten(1))


class TagEffect(NamedTuple):
    """Change of the predictions when a shortcut is put into images.

    Attributes:
        effect: mean difference of the logit, divided by its standard deviation without the
            shortcut; NaN if that is 0.
        flips: share of the images whose prediction changes.
    """

    effect: float
    flips: float


def tag_effect(
    with_shortcut: torch.Tensor, without: torch.Tensor, *, threshold: float = 0.0
) -> TagEffect:
    """Return the effect of a shortcut on the logit of a class, over paired images.

    Args:
        with_shortcut: logits float[B] of images with the shortcut.
        without: logits float[B] of the same images without it.
        threshold: logit above which the label is predicted.

    Raises:
        ValueError: there are fewer than two images, or the shapes differ.
    """
    if with_shortcut.shape != without.shape or without.dim() != 1 or len(without) < 2:
        raise ValueError(
            f"the logits have shapes {list(with_shortcut.shape)} and {list(without.shape)}, "
            "expected [B] of each with B ≥ 2"
        )
    one = with_shortcut.double()
    other = without.double()
    sd = other.std()
    effect = (one - other).mean() / sd if sd > 0 else torch.tensor(torch.nan)
    flips = ((one > threshold) != (other > threshold)).double().mean()
    return TagEffect(float(effect), float(flips))
