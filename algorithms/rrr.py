"""Right for the right reasons, and GradMask: penalise evidence in the background."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core import ALGORITHMS, Algorithm, Batch, HParam, LogUniform, Needs, Paper
from benchmark.explain import get
from benchmark.losses.precision import exact


def background_energy(gradient: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return Σ [(1 − m) ⊙ gradient]² over pixels and channels, averaged over images.

    Args:
        gradient: float[B,C,H,W], the gradient of each image's own score.
        mask: bool[B,1,H,W], True where evidence is allowed.
    """
    return gradient.masked_fill(mask, 0).square().flatten(1).sum(1).mean()


@ALGORITHMS.register
class RRR(Algorithm):
    """Cross-entropy + λ · background energy of ∂/∂x Σ_c log p_c (Ross et al. 2017, equation 1).

    The gradient is taken of each image's own sum, so that λ does not depend on the batch size. In
    the TEA paper λ (1e5 on COCO-on-Places, 1e4 on Waterbirds) multiplies the squared gradient of a
    mean over 128 or 100 images, which is 1e5 / 128² and 1e4 / 100² here. Batch statistics are
    constants in the gradient, so that it depends on one image only.
    """

    name = "rrr"
    title = "RRR"
    paper = Paper(
        title="Right for the right reasons: training differentiable models by "
        "constraining their explanations",
        authors="Ross, Hughes, Doshi-Velez",
        year=2017,
        url="https://arxiv.org/abs/1703.03717",
    )
    needs = Needs(masks=True)
    hparams = {
        "gradient_weight": HParam(
            10.0, LogUniform(-1, 3), "λ, weight of the background energy", low=0.0, high=1e9
        )
    }
    variants = {
        "original": {"gradient_weight": 1000.0},
        "coco_on_places": {"gradient_weight": 1e5 / 128**2},
        "waterbirds": {"gradient_weight": 1.0},
    }
    objective = Algorithm.total_loss

    def score(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the score that is differentiated, float[B]."""
        return exact(logits).log_softmax(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        trace = get("input_gradient").trace(
            self.network, batch.image, create_graph=True, track_statistics=self.training
        )
        gradient = trace.heatmap(self.score(trace.logits, batch.label))
        return {
            "classification": F.cross_entropy(trace.logits, batch.label),
            "background": self.hp["gradient_weight"] * background_energy(gradient, batch.mask),
        }


@ALGORITHMS.register
class GradMask(RRR):
    """RRR with the gradient of the contrast f_y − Σ_{c≠y} f_c (Simpson et al. 2019)."""

    name = "gradmask"
    title = "GradMask"
    paper = Paper(
        title="GradMask: reduce overfitting by regularizing saliency",
        authors="Simpson, Dutil, Bengio, Cohen",
        year=2019,
        url="https://arxiv.org/abs/1904.07478",
    )
    variants = {}

    def score(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = exact(logits)
        return 2 * logits.gather(1, label[:, None]).squeeze(1) - logits.sum(1)
