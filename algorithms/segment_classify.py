"""Segmentation, then classification: what a classifier cannot see it cannot use. The teacher of TEA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import Choice, HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS
from benchmark.core.seeds import seed_for
from benchmark.core.spec import RunSpec
from benchmark.losses.outputs import classification_loss
from benchmark.models.unet import UNet, unet_fewest_rows, unet_problem

#: The U-Net of small images is small; at 64 channels and depth 4 it is the paper's.
UNET_HPARAMS = {
    "unet_width": HParam(
        16,
        doc="channels of the U-Net at full size",
        low=1,
        high=512,
        large=HParam(64, low=1, high=512),
    ),
    "unet_depth": HParam(
        3, doc="how often the U-Net halves the side", low=1, high=8, large=HParam(4, low=1, high=8)
    ),
}


class Pipeline(nn.Module):
    """Image → U-Net → image on a background of uniform noise → classifier.

    The noise lies between the lowest and the highest value that each channel had so far in training: U[0, 1) before
    the images were normalised. It is fresh for every image, pixel, channel and pass in training and in
    ``remove_background``. In evaluation the answer must not depend on what was answered before, nor on an image's
    neighbours in a batch: there all images get one and the same picture of noise.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self, segmenter: UNet, classifier: nn.Module, image_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.segmenter, self.classifier, self.image_size = segmenter, classifier, image_size
        self.register_buffer("low", torch.full((image_size[0], 1, 1), float("inf")))
        self.register_buffer("high", torch.full((image_size[0], 1, 1), float("-inf")))

    def widen(self, image: torch.Tensor) -> None:
        """Take note of the range of some images float[B,C,H,W]."""
        self.low = torch.minimum(self.low, image.amin(dim=(0, 2, 3))[:, None, None])
        self.high = torch.maximum(self.high, image.amax(dim=(0, 2, 3))[:, None, None])

    @torch.no_grad()
    def foreground(self, image: torch.Tensor) -> torch.Tensor:
        """What the U-Net takes for foreground, bool[B,1,H,W]."""
        return self.segmenter(image) > 0  # type: ignore[no-any-return]

    @torch.no_grad()
    def remove_background(
        self, image: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The images with noise where the U-Net sees background.

        Args:
            image: float[B,C,H,W].
            noise: values in [0, 1) that broadcast to the images; None for fresh ones.
        """
        share = torch.rand_like(image) if noise is None else noise
        return torch.where(
            self.foreground(image),
            image,
            (self.low + (self.high - self.low) * share).to(image.dtype),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        noise = None
        if not self.training:
            generator = torch.Generator(image.device).manual_seed(seed_for("background"))
            noise = torch.rand(image.shape[1:], device=image.device, generator=generator)
        return self.classifier(self.remove_background(image, noise))  # type: ignore[no-any-return]


@ALGORITHMS.register
class SegmentClassify(Algorithm):
    """First the U-Net learns the masks (binary cross-entropy), then, frozen, it feeds the classifier (cross-entropy).

    Since the classifier learns on predicted masks, it knows the U-Net's mistakes.
    """

    name = "segment_classify"
    paper = Paper(
        "Training with explanations alone: a new paradigm to prevent shortcut learning",
        "Bassi, Ali, Cavalli, Decherchi", 2025, "https://github.com/PedroRASB/TrainingWithExplanationsAlone",
    )  # fmt: skip
    needs = Needs(masks=True)
    multi_label = True
    hparams = {
        **UNET_HPARAMS,
        "segmenter_share": HParam(
            0.4,
            Choice((0.25, 0.4, 0.55)),
            "share of the steps that train the U-Net, first of all",
            low=0.01,
            high=0.99,
        ),
    }
    network: Pipeline

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        segmenter = UNet(setting.image_size, 1, self.hp["unet_width"], self.hp["unet_depth"])
        self.network = Pipeline(segmenter, self.network, setting.image_size)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return unet_problem(info.image_size, spec.hparams["unet_width"], spec.hparams["unet_depth"])

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        ours = unet_fewest_rows(info.image_size, spec.hparams["unet_depth"])
        return max(ours, super().fewest_rows(spec, info))

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """The first step of the classifier, which has learned nothing before."""
        return max(round(hparams["segmenter_share"] * budget["steps"]), 1)

    @property
    def segmenting(self) -> bool:
        """Whether this step is the U-Net's."""
        return self.current_step < self.active_from(self.hp, {"steps": self.setting.steps})

    @property
    def explained(self) -> nn.Module:
        """The network that a heatmap of this method explains: the classifier, not the U-Net."""
        return self.network.classifier

    def explainable(self, image: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
        """That network, and what it sees of the images, on fresh noise."""
        return self.explained, self.network.remove_background(image)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        self.network.segmenter.train(self.segmenting)
        self.network.widen(batch.image)
        if self.segmenting:
            logits = self.network.segmenter(batch.image)
            return {
                "segmentation": F.binary_cross_entropy_with_logits(
                    logits.float(), batch.mask.float()
                )
            }
        return {"classification": classification_loss(self.predict(batch.image), batch.label)}

    def objective(self, batch: Batch) -> torch.Tensor:
        return classification_loss(self.predict(batch.image), batch.label)
