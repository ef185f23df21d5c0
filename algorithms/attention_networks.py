"""Networks with built-in attention, trained by cross-entropy: AG-Sononet and ViT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from algorithms.erm import ERM
from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    DatasetInfo,
    HParam,
    Paper,
    RunSpec,
    Setting,
    UserError,
)
from benchmark.models.ag_sononet import AGSononet
from benchmark.models.pretrained import WEIGHTS_OPTION


@ALGORITHMS.register
class AGSononetERM(ERM):
    """Cross-entropy on an attention-gated Sononet; the sweep's backbone is not used."""

    name = "ag_sononet"
    variants = {}  # not those of erm
    paper = Paper(
        title="Attention gated networks: learning to leverage salient regions in medical images",
        authors="Schlemper, Oktay, Schaap, Heinrich, Kainz, Glocker, Rueckert",
        year=2019,
        url="https://doi.org/10.1016/j.media.2019.01.012",
    )
    hparams = {
        "width": HParam(
            16,
            doc="channels of the first block (64 in the paper)",
            low=1,
            high=256,
            large=HParam(64, low=1, high=256),
        )
    }

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return AGSononet.fewest_rows(info.image_size, {"width": spec.hparams["width"]})

    def __init__(self, setting: Setting) -> None:
        def build(num_outputs: int | None = None, **options: Any) -> nn.Module:
            outputs = setting.num_classes if num_outputs is None else num_outputs
            return AGSononet(outputs, setting.image_size, width=setting.hparams["width"], **options)

        super().__init__(replace(setting, build_network=build))


@ALGORITHMS.register
class ViT(ERM):
    """Cross-entropy on ViT-B/16; the sweep's backbone is not used.

    Images must be square with a side that is a multiple of 16.
    """

    name = "vit"
    variants = {}  # not those of erm
    paper = Paper(
        title="An image is worth 16×16 words: transformers for image recognition at scale",
        authors="Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, "
        "Dehghani, Minderer, Heigold, Gelly, Uszkoreit, Houlsby",
        year=2021,
        url="https://arxiv.org/abs/2010.11929",
    )
    hparams = {"weights": WEIGHTS_OPTION}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        try:
            BACKBONES.get("vit_b_16").sides_inside({}, *info.image_size[1:])
        except UserError as error:
            return str(error)
        return None

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return 1  # layer normalisation alone

    def __init__(self, setting: Setting) -> None:
        def build(num_outputs: int | None = None, **options: Any) -> nn.Module:
            outputs = setting.num_classes if num_outputs is None else num_outputs
            kind = BACKBONES.get("vit_b_16")
            network: nn.Module = kind(
                outputs, setting.image_size, weights=setting.hparams["weights"], **options
            )
            return network

        super().__init__(replace(setting, build_network=build))
