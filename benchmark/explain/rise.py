"""RISE: the mean of random masks, weighted by the score of the image that they leave."""

from __future__ import annotations

import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.evaluation import EvaluationExplainer, Scores, random_masks

#: Masked images that pass the network together, at most.
IMAGES_PER_PASS = 256

MASK_OPTIONS = {
    "masks": HParam(4096, doc="number of random masks", low=1, high=100_000),
    "grid": HParam(7, doc="rows and columns of the grid of a mask", low=1, high=256),
    "share": HParam(0.5, doc="share of the image that a mask keeps", low=0.01, high=0.99),
}


@EXPLAINERS.register
class Rise(EvaluationExplainer):
    """RISE (Petsiuk et al. 2018): Σ_n p_c(x ⊙ m_n) m_n / (N p), float[B,1,H,W].

    A masked pixel has the mean colour of the data. All images of a batch get the same masks.

    Args:
        masks: number of masks N.
        grid: rows and columns of the grid of a mask.
        share: p, the share of the image that a mask keeps.
    """

    name = "rise"
    title = "RISE"
    repetitions = "masks"
    options = MASK_OPTIONS

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        batch = len(image)
        height, width = image.shape[2:]
        total = torch.zeros(batch, height, width, device=image.device, dtype=image.dtype)
        left = self.chosen["masks"]
        while left:
            count = min(left, max(IMAGES_PER_PASS // batch, 1))
            left -= count
            masks = random_masks(
                count, self.chosen["grid"], self.chosen["share"], (height, width), image.device
            ).to(image.dtype)
            masked = (image[:, None] * masks[None]).flatten(0, 1)
            score = scores.probability(masked, target.repeat_interleave(count))
            total += torch.einsum("bn,nhw->bhw", score.to(total).view(batch, count), masks[:, 0])
        return (total / (self.chosen["masks"] * self.chosen["share"]))[:, None]
