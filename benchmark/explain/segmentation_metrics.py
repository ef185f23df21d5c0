"""Metrics of relevance as a segmentation, from which the report also pools the IoU."""

from __future__ import annotations

import torch

from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.explain.measured_metrics import MeasuredMetric
from benchmark.explain.metrics import ExplanationMetric
from benchmark.explain.segmentation import relevance_segmentation


@EXPLANATION_METRICS.register
class PixelAccuracy(MeasuredMetric):
    """The share of the pixels that relevance above its mean assigns to the right side of the mask.

    All images of a data set have the same number of pixels, so that the mean over images is the
    share of all pixels, as in the paper of RobustViT.
    """

    name = "pixel_accuracy"
    title = "pixel accuracy"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = relevance_segmentation(relevance, mask)
        return _defined(found.correct.double() / found.labelled, relevance)


@EXPLANATION_METRICS.register
class FoundForeground(ExplanationMetric):
    """The share of all pixels that are foreground and have a relevance above the mean.

    With the pixel accuracy it gives the IoU of background and foreground, pooled over images: the
    report shows that instead of this metric.
    """

    name = "found_foreground"
    title = "found foreground"
    recorded = False

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = relevance_segmentation(relevance, mask)
        return _defined(found.intersection[:, 1].double() / found.labelled, relevance)


def _defined(values: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """Replace the value of maps that are not finite by NaN."""
    finite = relevance.flatten(1).isfinite().all(1)
    return torch.where(finite, values, torch.nan)
