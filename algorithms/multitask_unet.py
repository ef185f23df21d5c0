"""One U-Net for two tasks: segmentation of the foreground and classification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from algorithms.segment_classify import UNET_HPARAMS
from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
    Setting,
)
from benchmark.losses.outputs import classification_loss
from benchmark.models.unet import TwoHeadedUNet, unet_fewest_rows, unet_problem


@ALGORITHMS.register
class MultitaskUNet(Algorithm):
    """Cross-entropy of the class + weight · binary cross-entropy of the mask.

    Unlike in ``segment_classify``, the classification head sees the background. The sweep's
    backbone is not used.
    """

    name = "multitask_unet"
    title = "Multi-task U-Net"
    paper = Paper(
        title="Multi-task learning for segmentation and classification of tumors in 3D "
        "automated breast ultrasound images",
        authors="Zhou, Chen, Li, Liu, Xu, Wang, Yap, Shen",
        year=2021,
        url="https://doi.org/10.1016/j.media.2020.101918",
    )
    needs = Needs(masks=True)
    multi_label = True
    hparams = {
        **UNET_HPARAMS,
        "segmentation_weight": HParam(
            1.0, LogUniform(-1, 1), "weight of the mask's cross-entropy", low=0.0, high=1e9
        ),
    }
    objective = Algorithm.total_loss
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
