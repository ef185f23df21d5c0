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
from benchmark.models.pretrained import NONE, WEIGHTS_OPTION

#: Side of the patches of ViT-B/16, in pixels.
PATCH = 16
#: Options of the backbone ``vit`` with which it has the size of ViT-B.
VIT_B = {"dim": 768, "depth": 12, "heads": 12, "mlp_ratio": 4.0}


def vit_b(patch: int) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of the backbone that is ViT-B with patches of this side."""
    return ("vit_b_16", {}) if patch == PATCH else ("vit", {**VIT_B, "patch": patch})


@ALGORITHMS.register
class AGSononetERM(ERM):
    """Cross-entropy on an attention-gated Sononet; the sweep's backbone is not used."""

    name = "ag_sononet"
    title = "AG-Sononet"
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

    Images must be square with a side that is a multiple of ``patch``. With another patch than 16
    the rest of the network is that of ViT-B, and there are no published weights.
    """

    name = "vit"
    title = "ViT"
    variants = {}  # not those of erm
    paper = Paper(
        title="An image is worth 16×16 words: transformers for image recognition at scale",
        authors="Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, "
        "Dehghani, Minderer, Heigold, Gelly, Uszkoreit, Houlsby",
        year=2021,
        url="https://arxiv.org/abs/2010.11929",
    )
    hparams = {
        "weights": WEIGHTS_OPTION,
        "patch": HParam(16, doc="side of a patch, in pixels", low=1, high=64, omit_default=True),
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        patch = spec.hparams.get("patch", PATCH)
        if patch != PATCH and spec.hparams["weights"] != NONE:
            return f"published weights are for patches of {PATCH} pixels; set weights = none."
        name, options = vit_b(patch)
        try:
            BACKBONES.get(name).sides_inside(options, *info.image_size[1:])
        except UserError as error:
            return f"{str(error).removesuffix('.')}, or set patch, the side of a patch."
        return None

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return 1  # layer normalisation alone

    def __init__(self, setting: Setting) -> None:
        def build(num_outputs: int | None = None, **options: Any) -> nn.Module:
            outputs = setting.num_classes if num_outputs is None else num_outputs
            name, size = vit_b(setting.hparams["patch"])
            if setting.hparams["patch"] == PATCH:
                size["weights"] = setting.hparams["weights"]
            kind = BACKBONES.get(name)
            network: nn.Module = kind(outputs, setting.image_size, **size, **options)
            return network

        super().__init__(replace(setting, build_network=build))
