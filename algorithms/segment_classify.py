"""Segmentation, then classification without background: the teacher of TEA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    Choice,
    DatasetInfo,
    HParam,
    Needs,
    Paper,
    RunSpec,
    Setting,
    seed_for,
)
from benchmark.losses.outputs import classification_loss
from benchmark.models.unet import UNet, unet_fewest_rows, unet_problem

#: Defaults for small images; 64 channels and depth 4, those for large ones, are the paper's.
UNET_HPARAMS = {
    "unet_width": HParam(
        16,
        doc="channels of the U-Net at full size",
        low=1,
        high=512,
        large=HParam(64, low=1, high=512),
    ),
    "unet_depth": HParam(
        3,
        doc="number of times the U-Net halves the side",
        low=1,
        high=8,
        large=HParam(4, low=1, high=8),
    ),
}


class Pipeline(nn.Module):
    """Image → U-Net → image on a background of uniform noise → classifier.

    The noise is uniform between the lowest and the highest value of each channel in training so
    far, which is U[0, 1) before normalisation. In training and in ``remove_background`` it is drawn
    for every image, pixel, channel and pass. In evaluation all images get the same noise, so that
    a prediction depends neither on earlier ones nor on other images of the batch.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self, segmenter: UNet, classifier: nn.Module, image_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.classifier = classifier
        self.image_size = image_size
        self.register_buffer("low", torch.full((image_size[0], 1, 1), float("inf")))
        self.register_buffer("high", torch.full((image_size[0], 1, 1), float("-inf")))

    def widen(self, image: torch.Tensor) -> None:
        """Extend the range of the noise to that of images float[B,C,H,W]."""
        self.low = torch.minimum(self.low, image.amin(dim=(0, 2, 3))[:, None, None])
        self.high = torch.maximum(self.high, image.amax(dim=(0, 2, 3))[:, None, None])

    @torch.no_grad()
    def foreground(self, image: torch.Tensor) -> torch.Tensor:
        """Return the foreground that the U-Net predicts, bool[B,1,H,W]."""
        return self.segmenter(image) > 0  # type: ignore[no-any-return]

    @torch.no_grad()
    def remove_background(
        self, image: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Replace the background that the U-Net predicts by noise.

        Args:
            image: float[B,C,H,W].
            noise: values in [0, 1) that broadcast to the images; None to draw them.
        """
        if noise is None:
            noise = torch.rand_like(image)
        background = self.low + (self.high - self.low) * noise
        return torch.where(self.foreground(image), image, background.to(image.dtype))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        noise = None
        if not self.training:
            generator = torch.Generator(image.device).manual_seed(seed_for("background"))
            noise = torch.rand(image.shape[1:], device=image.device, generator=generator)
        return self.classifier(self.remove_background(image, noise))  # type: ignore[no-any-return]


@ALGORITHMS.register
class SegmentClassify(Algorithm):
    """A U-Net is trained on the masks, then a classifier on images without background.

    Both minimise a cross-entropy; the U-Net is frozen while the classifier is trained. The
    classifier is trained with predicted masks and so adapts to the U-Net's errors.
    """

    name = "segment_classify"
    title = "Segment, then classify"
    paper = Paper(
        title="Training with explanations alone: a new paradigm to prevent shortcut learning",
        authors="Bassi, Ali, Cavalli, Decherchi",
        year=2025,
        url="https://github.com/PedroRASB/TrainingWithExplanationsAlone",
    )
    needs = Needs(masks=True)
    multi_label = True
    hparams = {
        **UNET_HPARAMS,
        "segmenter_share": HParam(
            0.4,
            Choice((0.25, 0.4, 0.55)),
            "share of the steps, the first ones, that train the U-Net",
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
        unet_rows = unet_fewest_rows(info.image_size, spec.hparams["unet_depth"])
        return max(unet_rows, super().fewest_rows(spec, info))

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the first step that trains the classifier."""
        return max(round(hparams["segmenter_share"] * budget["steps"]), 1)

    @property
    def segmenting(self) -> bool:
        """True if this step trains the U-Net."""
        return self.current_step < self.active_from(self.hp, {"steps": self.setting.steps})

    @property
    def explained(self) -> nn.Module:
        """The network that heatmaps explain: the classifier, not the U-Net."""
        return self.network.classifier

    def explainable(self, image: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
        """Return the classifier and its input for the images, with noise that is drawn."""
        return self.explained, self.network.remove_background(image)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        self.network.segmenter.train(self.segmenting)
        self.network.widen(batch.image)
        if self.segmenting:
            foreground = self.network.segmenter(batch.image)
            segmentation = F.binary_cross_entropy_with_logits(
                foreground.float(), batch.mask.float()
            )
            return {"segmentation": segmentation}
        return {"classification": classification_loss(self.predict(batch.image), batch.label)}

    def objective(self, batch: Batch) -> torch.Tensor:
        return classification_loss(self.predict(batch.image), batch.label)
