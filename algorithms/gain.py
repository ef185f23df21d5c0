"""Guided attention inference: a Grad-CAM map that follows the mask, and leaves nothing of the object out."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.spec import RunSpec
from benchmark.explain import get
from benchmark.explain.rules import Rules
from benchmark.losses.heatmaps import scaled_to_one
from benchmark.losses.precision import exact
from benchmark.models.base import Backbone

#: Steepness ω and threshold σ of the soft mask (Li et al. 2018, section 3.1).
OMEGA, SIGMA = 10.0, 0.5


def soft_mask(attention: torch.Tensor) -> torch.Tensor:
    """T(A) = sigmoid(ω (A − σ)): about 0 where the attention is low, about 1 where it is high (equation 5)."""
    return torch.sigmoid(OMEGA * (attention - SIGMA))


@ALGORITHMS.register
class GAIN(Algorithm):
    """Cross-entropy + α · (what is still seen of the label once A is erased) + w · (A − m)², A = Grad-CAM of the label.

    The erased image is x − x ⊙ T(A); what is seen in it is the softmax of the label. Its pass shares the weights and
    leaves the running statistics of batch normalisation alone, since no such image is ever classified.
    """

    name = "gain"
    paper = Paper(
        "Tell me where to look: guided attention inference network", "Li, Wu, Peng, Ernst, Fu", 2018,
        "https://arxiv.org/abs/1802.10171",
    )  # fmt: skip
    needs = Needs(masks=True)
    hparams = {
        "mining_weight": HParam(
            1.0,
            LogUniform(-1, 1),
            "α, weight of what the erased image still shows",
            low=0.0,
            high=1e9,
        ),
        "mask_weight": HParam(
            100.0,
            LogUniform(0, 4),
            "w, weight of (A − m)², mean over pixels; TEA's experiments: 1e4, 1e5",
            low=0.0,
            high=1e9,
        ),
    }
    variants = {"coco_on_places": {"mask_weight": 1e4}, "waterbirds": {"mask_weight": 1e5}}
    network: Backbone

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        return backbone.cam_problem(info.image_size, spec.backbone_options)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        logits, attention = self.attend(batch.image, batch.label)
        erased = batch.image - batch.image * soft_mask(attention)
        with Rules(constant_statistics=False).forward(self.network):
            left = exact(self.predict(erased)).softmax(1).gather(1, batch.label[:, None])
        return {
            "classification": F.cross_entropy(logits, batch.label),
            "mining": self.hp["mining_weight"] * left.mean(),
            "mask": self.hp["mask_weight"] * F.mse_loss(attention, batch.mask.to(attention.dtype)),
        }

    def objective(self, batch: Batch) -> torch.Tensor:
        return sum(self.loss(batch).values())  # type: ignore[return-value]

    def attend(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits float[B,K] and the attention to the label float[B,1,H,W] in [0, 1], from one pass."""
        cam, logits = get("gradcam").with_logits(
            self.network, image, lambda _: label, True, self.training
        )
        cam = F.interpolate(cam, size=image.shape[2:], mode="bilinear", align_corners=False)
        return logits, scaled_to_one(cam)
