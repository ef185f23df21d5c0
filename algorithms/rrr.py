"""Right for the right reasons, and GradMask: the label's evidence must not come from the background."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper
from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS
from benchmark.explain import get
from benchmark.losses.precision import exact


def background_energy(gradient: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Σ [(1 − m) ⊙ gradient]² of each image, over pixels and channels; mean over images.

    Args:
        gradient: float[B,C,H,W], of each image's own score.
        mask: bool[B,1,H,W], True where evidence is allowed.
    """
    return gradient.masked_fill(mask, 0).square().flatten(1).sum(1).mean()


@ALGORITHMS.register
class RRR(Algorithm):
    """Cross-entropy + λ · background energy of ∂/∂x Σ_c log p_c (Ross et al. 2017, equation 1).

    The sum is each image's own, so that λ means the same at every batch size. The TEA paper's λ (1e5 on
    COCO-on-Places, 1e4 on Waterbirds) multiply the gradient of a mean over 128 or 100 images: 1e5 / 128² and
    1e4 / 100² here. Batch statistics are constants in the gradient, so that it stays an image's own.
    """

    name = "rrr"
    paper = Paper(
        "Right for the right reasons: training differentiable models by constraining their explanations",
        "Ross, Hughes, Doshi-Velez", 2017, "https://arxiv.org/abs/1703.03717",
    )  # fmt: skip
    needs = Needs(masks=True)
    hparams = {
        "gradient_weight": HParam(
            10.0, LogUniform(-1, 3), "λ, weight of the background's energy", low=0.0, high=1e9
        )
    }
    variants = {
        "original": {"gradient_weight": 1000.0},
        "coco_on_places": {"gradient_weight": 1e5 / 128**2},
        "waterbirds": {"gradient_weight": 1.0},
    }

    def score(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """What is differentiated, float[B]."""
        return exact(logits).log_softmax(1).sum(1)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        gradient, logits = get("input_gradient").with_logits(
            self.network,
            batch.image,
            lambda logits: self.score(logits, batch.label),
            True,
            self.training,
        )
        return {
            "classification": F.cross_entropy(logits, batch.label),
            "background": self.hp["gradient_weight"] * background_energy(gradient, batch.mask),
        }

    def objective(self, batch: Batch) -> torch.Tensor:
        return sum(self.loss(batch).values())  # type: ignore[return-value]


@ALGORITHMS.register
class GradMask(RRR):
    """As RRR with the gradient of the contrast f_y − Σ_{c≠y} f_c (Simpson et al. 2019)."""

    name = "gradmask"
    paper = Paper(
        "GradMask: reduce overfitting by regularizing saliency", "Simpson, Dutil, Bengio, Cohen", 2019,
        "https://arxiv.org/abs/1904.07478",
    )  # fmt: skip
    variants = {}

    def score(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = exact(logits)
        return 2 * logits.gather(1, label[:, None]).squeeze(1) - logits.sum(1)
