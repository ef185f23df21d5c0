"""One U-Net for two tasks: where the foreground is, and which class it shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from algorithms.segment_classify import UNET_HPARAMS
from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import RunSpec
from benchmark.losses.outputs import classification_loss
from benchmark.models.unet import TwoHeadedUNet, unet_fewest_rows, unet_problem


@ALGORITHMS.register
class MultitaskUNet(Algorithm):
    """Cross-entropy of the class + weight · binary cross-entropy of the mask, from one network that sees all pixels.

    Unlike in ``segment_classify`` nothing keeps the background from the classes. The sweep's backbone is not used.
    """

    name = "multitask_unet"
    paper = Paper(
        "Multi-task learning for segmentation and classification of tumors in 3D automated breast ultrasound images",
        "Zhou, Chen, Li, Liu, Xu, Wang, Yap, Shen", 2021, "https://doi.org/10.1016/j.media.2020.101918",
    )  # fmt: skip
    needs = Needs(masks=True)
    multi_label = True
    hparams = {
        **UNET_HPARAMS,
        "segmentation_weight": HParam(
            1.0, LogUniform(-1, 1), "weight of the mask's cross-entropy", low=0.0, high=1e9
        ),
    }
    network: TwoHeadedUNet

    def __init__(self, setting: Setting) -> None:
        hp = setting.hparams

        def build(dropout: float = 0.0, **options: Any) -> TwoHeadedUNet:
            return TwoHeadedUNet(
                setting.num_classes, setting.image_size, hp["unet_width"], hp["unet_depth"], dropout
            )

        super().__init__(replace(setting, build_network=build))

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return unet_problem(info.image_size, spec.hparams["unet_width"], spec.hparams["unet_depth"])

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return unet_fewest_rows(info.image_size, spec.hparams["unet_depth"])

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        logits, foreground = self.network.both(batch.image)
        segmentation = F.binary_cross_entropy_with_logits(foreground.float(), batch.mask.float())
        return {
            "classification": classification_loss(logits, batch.label),
            "segmentation": self.hp["segmentation_weight"] * segmentation,
        }

    def objective(self, batch: Batch) -> torch.Tensor:
        return sum(self.loss(batch).values())  # type: ignore[return-value]
