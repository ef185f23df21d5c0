"""Relevance as a segmentation of the object: pixel accuracy, intersection over union, AP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class SegmentationCounts:
    """Counts of each image, from which pooled measures follow by sums over images.

    Attributes:
        correct: int64[B], pixels whose label is predicted.
        labelled: int64[B], pixels that have a label.
        intersection: int64[B,2], pixels of background and foreground that are predicted as such.
        union: int64[B,2], pixels that are predicted as background or foreground, or are it.
        average_precision: float64[B], NaN where it is undefined.
    """

    correct: torch.Tensor
    labelled: torch.Tensor
    intersection: torch.Tensor
    union: torch.Tensor
    average_precision: torch.Tensor

    def pixel_accuracy(self) -> float:
        """Return the share of the labelled pixels of all images that are predicted right."""
        labelled = int(self.labelled.sum())
        return int(self.correct.sum()) / labelled if labelled else float("nan")

    def mean_iou(self) -> float:
        """Return the mean over background and foreground of the IoU, pooled over images."""
        union = self.union.sum(0).double()
        iou = self.intersection.sum(0).double() / union
        return float(iou[union > 0].mean())

    def mean_average_precision(self) -> float:
        """Return the mean AP of the images for which it is defined."""
        defined = self.average_precision[~self.average_precision.isnan()]
        return float(defined.mean()) if len(defined) else float("nan")


def relevance_segmentation(
    relevance: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor | None = None
) -> SegmentationCounts:
    """Compare pixels that are more relevant than the mean of their map with the object.

    Source: the segmentation tests of Chefer et al. 2021 and 2022. The AP of an image is that of
    [1 − R, R] against the one-hot mask, R scaled to [0, 1].

    Args:
        relevance: R, float[B,H,W] ≥ 0.
        mask: bool[B,H,W], True on the object.
        valid: bool[B,H,W], pixels with a label; None if all have one.

    Raises:
        ValueError: the shapes differ.
    """
    if relevance.shape != mask.shape or relevance.dim() != 3:
        raise ValueError(
            f"relevance and mask have the shapes {list(relevance.shape)} and {list(mask.shape)}, "
            "expected [B,H,W] of each"
        )
    a = relevance.flatten(1).double()
    truth = mask.flatten(1)
    known = torch.ones_like(truth) if valid is None else valid.flatten(1)
    predicted = a > a.mean(1, keepdim=True)
    intersection = []
    union = []
    for value in (False, True):
        found = (predicted == value) & known
        wanted = (truth == value) & known
        intersection.append((found & wanted).sum(1))
        union.append((found | wanted).sum(1))
    precision = [
        _average_precision(a[i][known[i]], truth[i][known[i]]) for i in range(len(relevance))
    ]
    return SegmentationCounts(
        correct=((predicted == truth) & known).sum(1),
        labelled=known.sum(1),
        intersection=torch.stack(intersection, dim=1),
        union=torch.stack(union, dim=1),
        average_precision=torch.tensor(precision, dtype=torch.float64),
    )


def _average_precision(relevance: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the AP of float64[n] and its complement against bool[n] and its complement."""
    from sklearn.metrics import average_precision_score

    if not len(truth) or not relevance.isfinite().all() or relevance.max() == relevance.min():
        return float("nan")
    scaled = ((relevance - relevance.min()) / (relevance.max() - relevance.min())).cpu().numpy()
    inside = truth.cpu().numpy()
    scores = np.concatenate([1 - scaled, scaled])
    return float(average_precision_score(np.concatenate([~inside, inside]), scores))
