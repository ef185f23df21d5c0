"""Metrics of explanations: pure functions of relevance and mask, and the base of their classes.

All functions take relevance float[B,H,W] ≥ 0 (for signed maps, its absolute value), compute in
float64, and return float64[B] with NaN for images for which the metric is undefined. A map with an
infinite or NaN pixel is undefined for every metric.

To add a metric, write a subclass of ``ExplanationMetric`` in a module of ``benchmark/explain`` and
decorate it with ``EXPLANATION_METRICS.register``; see ``docs/adding_a_metric.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.explain.faithfulness import faithfulness_correlation as faithfulness_correlation
from benchmark.explain.faithfulness import faithfulness_estimate as faithfulness_estimate
from benchmark.explain.randomization import randomization_check as randomization_check
from benchmark.explain.segmentation import relevance_segmentation as relevance_segmentation
from benchmark.explain.sensitivity import class_sensitivity as class_sensitivity
from benchmark.explain.sensitivity import confounder_sensitivity as confounder_sensitivity
from benchmark.explain.sensitivity import disease_sensitivity as disease_sensitivity
from benchmark.explain.sensitivity import explanation_ncc as explanation_ncc
from benchmark.explain.sensitivity import tag_effect as tag_effect

#: Added to every pixel before the Gini index, as Quantus does.
GINI_OFFSET = 1e-7


def relevance_mass(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the share of the relevance inside the mask, Σ a·s / Σ a.

    Source: the energy-based pointing game, Wang et al. 2020; relevance mass accuracy, Arras et al.
    2022. For a constant map it is the share of the image that the mask covers.

    Args:
        relevance: a, float[B,H,W] ≥ 0.
        mask: s, bool[B,H,W].

    Returns:
        float64[B] from 0 to 1; NaN for a map of zeros or an empty mask.
    """
    a, s = _rows(relevance, mask)
    total = a.sum(1)
    defined = (total > 0) & (total < torch.inf) & s.any(1)
    return torch.where(defined, (a * s).sum(1) / total, torch.nan)


def relevance_rank(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the share of the k most relevant pixels that lie inside a mask of k pixels.

    Source: relevance rank accuracy, Arras et al. 2022. Of equally relevant pixels, the first in
    row-major order counts as more relevant.

    Args:
        relevance: float[B,H,W] ≥ 0.
        mask: bool[B,H,W].

    Returns:
        float64[B] from 0 to 1; NaN for a constant map, which has no order, or an empty mask.
    """
    a, s = _rows(relevance, mask)
    size = s.sum(1)
    order = a.argsort(dim=1, descending=True, stable=True)
    among_largest = torch.arange(a.shape[1], device=a.device) < size[:, None]
    hits = (s.gather(1, order) & among_largest).sum(1)
    defined = ~_is_constant(a) & a.isfinite().all(1) & (size > 0)
    return torch.where(defined, hits.double() / size, torch.nan)


def complexity(relevance: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the relevance, −Σ p ln p with p = a / Σ a, in nats.

    Source: Bhatt et al. 2020.

    Args:
        relevance: a, float[B,H,W] ≥ 0.

    Returns:
        float64[B] from 0 (one relevant pixel) to ln(H·W) (a constant map); NaN for a map of zeros.
    """
    a = _rows(relevance)[0]
    total = a.sum(1, keepdim=True)
    entropy = torch.special.entr(a / total).sum(1)
    defined = (total > 0) & (total < torch.inf)
    return torch.where(defined[:, 0], entropy, torch.nan)


def sparseness(relevance: torch.Tensor) -> torch.Tensor:
    """Return the Gini index of the relevance, Σ (2i − n − 1) a₍ᵢ₎ / (n Σ a).

    Source: Chalasani et al. 2020. a₍₁₎ ≤ … ≤ a₍ₙ₎ are the pixels of the map divided by its maximum,
    plus ``GINI_OFFSET``.

    Args:
        relevance: float[B,H,W] ≥ 0.

    Returns:
        float64[B] from 0 (a constant map) to nearly 1 (one relevant pixel); NaN for a map of zeros.
    """
    a = _rows(relevance)[0]
    largest = a.amax(1, keepdim=True)
    ascending = (a / largest + GINI_OFFSET).sort(1).values
    n = a.shape[1]
    rank = torch.arange(1, n + 1, device=a.device, dtype=a.dtype)
    gini = ((2 * rank - n - 1) * ascending).sum(1) / (n * ascending.sum(1))
    defined = (largest > 0) & (largest < torch.inf)
    return torch.where(defined[:, 0], gini, torch.nan)


def pointing_game(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return 1 if the most relevant pixel lies in the mask, else 0.

    Source: Zhang et al. 2018, without a tolerance. Of equally relevant pixels, the first in
    row-major order counts.

    Args:
        relevance: float[B,H,W] ≥ 0.
        mask: bool[B,H,W].

    Returns:
        float64[B], 0 or 1; NaN for a constant map or an empty mask.
    """
    a, s = _rows(relevance, mask)
    hit = s.gather(1, a.argmax(1, keepdim=True))[:, 0].double()
    defined = ~_is_constant(a) & a.isfinite().all(1) & s.any(1)
    return torch.where(defined, hit, torch.nan)


def mask_correlation(relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation over pixels of the relevance and the mask.

    Args:
        relevance: float[B,H,W] ≥ 0.
        mask: bool[B,H,W].

    Returns:
        float64[B] from −1 to 1; NaN if the map or the mask is constant.
    """
    a, s = _rows(relevance, mask)
    inside = s.double()
    h = a - a.mean(1, keepdim=True)
    m = inside - inside.mean(1, keepdim=True)
    norms = (h.square().sum(1) * m.square().sum(1)).sqrt()
    undefined = _is_constant(a) | _is_constant(inside)
    return torch.where(undefined, torch.nan, (h * m).sum(1) / norms)


@dataclass(frozen=True)
class ExplainedImages:
    """Images with their heatmaps, and what a metric may ask the model.

    Attributes:
        model: computes logits float[B,K] of images, without gradients.
        network: the explained network.
        explain: computes heatmaps float[B,C,h,w] of a network, images and classes, with the same
            random numbers at every call.
        image: normalised images, float[B,C,H,W].
        heatmap: heatmaps summed over channels and resized to the images, float[B,H,W].
        target: the explained classes, int64[B].
        mask: bool[B,H,W], the foreground; None for data without masks.
    """

    model: Callable[[torch.Tensor], torch.Tensor]
    network: nn.Module
    explain: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
    image: torch.Tensor
    heatmap: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor | None

    @property
    def relevance(self) -> torch.Tensor:
        """The absolute heatmaps, float64[B,H,W]."""
        return self.heatmap.double().abs()


class ExplanationMetric:
    """Base class of the metrics of explanations.

    A subclass implements ``__call__``, or ``of`` if it needs more than relevance and mask.

    Attributes:
        name: registry name.
        title: title of the column of the report; by default the name.
        recorded: whether every run with explanations records the metric. Otherwise it is computed
            where the [explanations] table of a sweep names it.
        higher_is_better: direction in which explainers are compared; None if they are not.
        needs_mask: whether the metric needs the foreground.
        is_timing: whether the metric is the time of an explanation, which the engine measures.
        of_classes: whether the metric is of explained classes rather than of single images. The
            engine measures it, and the report has it in the table of sensitivities.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    recorded: ClassVar[bool] = True
    higher_is_better: ClassVar[bool | None] = None
    needs_mask: ClassVar[bool] = True
    is_timing: ClassVar[bool] = False
    of_classes: ClassVar[bool] = False

    @classmethod
    def is_of_images(cls) -> bool:
        """Return whether ``of`` computes the metric."""
        return not (cls.is_timing or cls.of_classes)

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        """Return the metric of each image, float[B], NaN where it is undefined."""
        if explained.mask is None:
            return torch.full((len(explained.image),), torch.nan, dtype=torch.float64)
        return self(explained.relevance, explained.mask)

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the metric of each image.

        Args:
            relevance: float[B,H,W], the absolute value of a heatmap summed over channels.
            mask: bool[B,H,W], the foreground.

        Returns:
            float[B], NaN where the metric is undefined.
        """
        raise NotImplementedError


@EXPLANATION_METRICS.register
class Energy(ExplanationMetric):
    """The share of the relevance in the foreground."""

    name = "energy"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return relevance_mass(relevance, mask)


@EXPLANATION_METRICS.register
class Correlation(ExplanationMetric):
    """The correlation of relevance and foreground."""

    name = "correlation"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask_correlation(relevance, mask)


def _rows(relevance: torch.Tensor, *masks: torch.Tensor) -> list[torch.Tensor]:
    """Return relevance float64[B,H·W] and masks bool[B,H·W].

    Raises:
        ValueError: a shape is wrong, or relevance is negative.
    """
    if relevance.dim() != 3 or any(mask.shape != relevance.shape for mask in masks):
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (relevance, *masks))
        raise ValueError(f"relevance and mask have the shapes {shapes}, expected [B,H,W] of each")
    if bool((relevance < 0).any()):
        raise ValueError("relevance is negative, expected the absolute value of a signed map")
    return [relevance.flatten(1).double(), *(mask.flatten(1) for mask in masks)]


def _is_constant(rows: torch.Tensor) -> torch.Tensor:
    return rows.amax(1) == rows.amin(1)
