"""Guided attention inference: a Grad-CAM map that covers the whole object and follows the mask."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
)
from benchmark.explain import get
from benchmark.explain.rules import Rules
from benchmark.losses.heatmaps import scaled_to_one
from benchmark.losses.precision import exact
from benchmark.models.base import Backbone

#: Steepness ω and threshold σ of the soft mask (Li et al. 2018, section 3.1).
OMEGA = 10.0
SIGMA = 0.5


def soft_mask(attention: torch.Tensor) -> torch.Tensor:
    """Return T(A) = sigmoid(ω (A − σ)) (equation 5): near 0 for low attention, near 1 for high."""
    return torch.sigmoid(OMEGA * (attention - SIGMA))


@ALGORITHMS.register
class GAIN(Algorithm):
    """Cross-entropy + α · softmax of the label on the erased image + w · (A − m)².

    A is the Grad-CAM map of the label, m the mask, and x − x ⊙ T(A) the erased image. Its forward
    pass shares the weights of the network and does not update the running statistics of batch
    normalisation, since no such image is ever classified.
    """

    name = "gain"
    title = "GAIN"
    paper = Paper(
        title="Tell me where to look: guided attention inference network",
        authors="Li, Wu, Peng, Ernst, Fu",
        year=2018,
        url="https://arxiv.org/abs/1802.10171",
    )
    needs = Needs(masks=True)
    hparams = {
        "mining_weight": HParam(
            1.0,
            LogUniform(-1, 1),
            "α, weight of the label's softmax on the erased image",
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
    objective = Algorithm.total_loss
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
            softmax = exact(self.predict(erased)).softmax(1)
        remaining = softmax.gather(1, batch.label[:, None])
        return {
            "classification": F.cross_entropy(logits, batch.label),
            "mining": self.hp["mining_weight"] * remaining.mean(),
            "mask": self.hp["mask_weight"] * F.mse_loss(attention, batch.mask.to(attention.dtype)),
        }

    def attend(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits float[B,K] and the attention to the label float[B,1,H,W] in [0, 1]."""
        trace = get("gradcam").trace(
            self.network, image, create_graph=True, track_statistics=self.training
        )
        cam = F.interpolate(
            trace.heatmap(label), size=image.shape[2:], mode="bilinear", align_corners=False
        )
        return trace.logits, scaled_to_one(cam)
