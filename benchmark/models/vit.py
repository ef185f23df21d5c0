"""Vision transformers (Dosovitskiy et al. 2021), built from torchvision's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities
from benchmark.models.pretrained import (
    NONE,
    WEIGHTS_OPTION,
    load_all_but_last,
    read_weights_file,
    refuse_with_weights,
    state_of_weights,
)

#: Standard deviation of torchvision's position embeddings before training.
POSITION_STD = 0.02
#: Sides of the patches that a stem of convolutions of stride 2 can make.
STEM_PATCHES = (2, 4, 8, 16, 32, 64)
#: Mean and standard deviation of pixel values with which AugReg's weights were trained.
HALF = 0.5

#: Options of networks for which others publish weights.
WEIGHTS_OPTIONS: dict[str, HParam] = {
    "file": HParam(
        "",
        doc="file of weights in the layout of timm, DeiT or DINO, in torch's folder of checkpoints",
        form=r"(?:[^/\\]+\.(?:pt|pth|bin))?",
        omit_default=True,
    ),
    "head": HParam(
        "new",
        doc="new: a last layer without training; published: that of the weights, for data with "
        "the same classes",
        choices=("new", "published"),
        omit_default=True,
    ),
    "pixels": HParam(
        "data",
        doc="normalisation with which the weights were trained: that of the data, or half: mean "
        "and standard deviation 0.5",
        choices=("data", "half"),
        omit_default=True,
    ),
}


@dataclass(frozen=True)
class Shape:
    """Size of a vision transformer.

    Args:
        patch: side of a patch, in pixels.
        dim: width of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_dim: hidden units of the feed-forward part of a block.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int


class VisionTransformer(Backbone):
    """Base class of the vision transformers with a class token; a subclass gives ``shape``.

    The features are the class token; the feature map is the grid of patch tokens, with side / patch
    positions a side. Grad-CAM uses the patch tokens that enter the last block, which are the inputs
    of its first layer normalisation; the logits do not depend on the patch tokens that leave it, so
    that their gradient would be 0.

    Position embeddings of published weights are interpolated to the image size. Parameters have
    torchvision's names with the prefix ``net.``; ``net.heads.head`` is ``classifier`` here.
    """

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        """Return the size of the network with these options."""
        raise NotImplementedError

    @classmethod
    def smallest_side(cls, options: Mapping[str, Any]) -> int:
        return cls.shape(options).patch

    @classmethod
    def without_weights(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        kept = super().without_weights(options)
        return {name: value for name, value in kept.items() if name not in ("file", "head")}

    @classmethod
    def check_options(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> None:
        super().check_options(image_size, options)
        published = options.get("weights", NONE) != NONE
        if published and options.get("file"):
            raise UserError(f"{cls.name}: weights and file are both given; leave one out.")
        if options.get("head") == "published" and not (published or options.get("file")):
            raise UserError(
                f"{cls.name}: head = published needs weights; set weights or file, or leave head "
                "out."
            )

    @classmethod
    def sides_inside(cls, options: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        patch = cls.shape(options).patch
        if height != width or height % patch:
            raise UserError(
                f"{cls.name} needs square images with a side that {patch} divides, got "
                f"{height}×{width}; resize them."
            )
        return super().sides_inside(options, height, width)

    def build(self) -> nn.Linear:
        from torchvision.models import VisionTransformer as Network
        from torchvision.models.vision_transformer import ConvStemConfig

        channels, height, _ = self.image_size
        shape = self.shape(self.chosen)
        weights = self.chosen.get("file") or self.chosen.get("weights", NONE)
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        stem = self.stem_widths()
        net: Any = Network(
            image_size=height,
            patch_size=shape.patch,
            num_layers=shape.depth,
            num_heads=shape.heads,
            hidden_dim=shape.dim,
            mlp_dim=shape.mlp_dim,
            num_classes=self.num_outputs,
            conv_stem_configs=[ConvStemConfig(width, 3, 2) for width in stem] or None,
        )
        if self.position_std() != POSITION_STD:
            nn.init.normal_(net.encoder.pos_embedding, std=self.position_std())
        if weights != NONE:
            self._load(net, weights)
        if channels != 3 and stem:
            net.conv_proj[0][0] = nn.Conv2d(channels, stem[0], 3, stride=2, padding=1, bias=False)
        elif channels != 3:
            net.conv_proj = nn.Conv2d(channels, net.hidden_dim, shape.patch, stride=shape.patch)
            nn.init.trunc_normal_(
                net.conv_proj.weight, std=math.sqrt(1 / (channels * shape.patch * shape.patch))
            )
            nn.init.zeros_(net.conv_proj.bias)
        classifier: nn.Linear = net.heads.head
        del net.heads
        self.net: Any = net
        return classifier

    def _load(self, net: nn.Module, weights: str) -> None:
        """Load published weights, and with ``head = published`` their last layer."""
        from torchvision.models.vision_transformer import interpolate_embeddings

        what = f"the weights {weights} of {self.name}"
        state: Any
        if self.chosen["file"]:
            from benchmark.models.dino import last_layer, torchvision_names

            read = read_weights_file(weights)
            state = torchvision_names(read)
            head = last_layer(read)
        else:
            state = state_of_weights(self.name, weights)
            head = {part: state[f"heads.head.{part}"] for part in ("weight", "bias")}
        try:
            state = interpolate_embeddings(self.image_size[1], self.shape(self.chosen).patch, state)
        except (ValueError, KeyError) as error:
            raise UserError(f"{what} do not fit this network ({error}).") from None
        load_all_but_last(net, state, what)
        if self.chosen["head"] == "new":
            return
        found = len(head["bias"]) if len(head) == 2 else 0
        if found != self.num_outputs:
            raise UserError(
                f"{what} have a last layer of {found} classes, but the data have "
                f"{self.num_outputs}; leave out head = published."
            )
        net.heads.head.load_state_dict(head)  # type: ignore[union-attr,operator]

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if self.chosen.get("pixels", "data") == "half":
            half = [HALF] * len(mean)
            self.renormalise((mean, std), (half, half))

    def stem_widths(self) -> list[int]:
        """Return the widths of the convolutions before the blocks; empty for a linear map."""
        return []

    def position_std(self) -> float:
        """Return the standard deviation of position embeddings before training."""
        return POSITION_STD

    def tokens(self, image: torch.Tensor) -> torch.Tensor:
        """Return the tokens after the last block, class token first: float[B,1+hw,D]."""
        if image.shape[1:] != torch.Size(self.image_size):
            raise UserError(
                f"{self.name} was built for images of shape {list(self.image_size)}, got "
                f"{list(image.shape[1:])}."
            )
        patches = self.net.conv_proj(self.renormalised(image)).flatten(2).transpose(1, 2)
        first = self.net.class_token.expand(len(image), -1, -1)
        return self.net.encoder(torch.cat([first, patches], dim=1))  # type: ignore[no-any-return]

    def token_grid(self) -> tuple[int, int]:
        """Return (h, w), the rows and columns of patches of an image."""
        side = self.image_size[1] // self.shape(self.chosen).patch
        return side, side

    def cam_module(self) -> nn.Module:
        blocks: nn.Sequential = self.net.encoder.layers
        return blocks[-2]

    def cam_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return tokens float[B,1+hw,D] without the class token on their grid, float[B,D,h,w]."""
        return output[:, 1:].transpose(1, 2).unflatten(2, self.token_grid())

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.cam_map(self.tokens(image))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return self.tokens(image)[:, 0]


@BACKBONES.register
class ViT(VisionTransformer):
    """A vision transformer of any size, trained from the beginning; the default suits 32 pixels.

    A small transformer learns objects in few steps with ``stem = "conv"``, convolutions of stride 2
    with batch normalisation in place of the linear map of patches (Xiao et al. 2021, Early
    convolutions help transformers see better), and with ``position_std = 0.5``, so that the first
    blocks tell positions apart.
    """

    name = "vit"
    doc = "vision transformer of any size (patch, dim, depth, heads), for small images"
    options = {
        "patch": HParam(4, doc="side of a patch, in pixels", low=1, high=64),
        "dim": HParam(96, doc="width of a token; a multiple of heads", low=8, high=4096),
        "depth": HParam(6, doc="number of blocks", low=2, high=64),
        "heads": HParam(4, doc="attention heads of a block", low=1, high=64),
        "mlp_ratio": HParam(
            2.0, doc="hidden units of the feed-forward part, divided by dim", low=0.5, high=16.0
        ),
        "stem": HParam(
            "patch",
            doc="patch: a linear map of each patch; conv: convolutions of stride 2, for a patch "
            "that is a power of 2",
            choices=("patch", "conv"),
            omit_default=True,
        ),
        "position_std": HParam(
            POSITION_STD,
            doc="standard deviation of position embeddings before training",
            low=0.0,
            high=10.0,
            omit_default=True,
        ),
    }
    capabilities = Capabilities(cam="net.encoder.layers.encoder_layer_4", attention=True)

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        chosen = {name: options.get(name, option.default) for name, option in cls.options.items()}
        dim = chosen["dim"]
        heads = chosen["heads"]
        if dim % heads:
            raise UserError(
                f"{cls.name}: dim = {dim} is not a multiple of heads = {heads}; set "
                f"dim = {max(dim // heads, 1) * heads}, for example."
            )
        patch = chosen["patch"]
        if chosen["stem"] == "conv" and patch not in STEM_PATCHES:
            raise UserError(
                f"{cls.name}: stem = conv halves the image several times, so that patch must be "
                f"one of {', '.join(map(str, STEM_PATCHES))}, got {patch}."
            )
        hidden = round(dim * chosen["mlp_ratio"])
        return Shape(patch, dim, chosen["depth"], heads, hidden)

    def stem_widths(self) -> list[int]:
        if self.chosen["stem"] == "patch":
            return []
        halvings = self.chosen["patch"].bit_length() - 1
        # the width doubles up to that of a token
        return [max(self.chosen["dim"] >> i, 8) for i in reversed(range(halvings))]

    def position_std(self) -> float:
        return float(self.chosen["position_std"])


@BACKBONES.register
class ViTS16(VisionTransformer):
    """ViT-S/16; torchvision publishes no weights for it."""

    name = "vit_s_16"
    doc = "ViT-S/16: 12 blocks of width 384"
    options = WEIGHTS_OPTIONS
    capabilities = Capabilities(
        cam="net.encoder.layers.encoder_layer_10", attention=True, min_side=16
    )

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        return Shape(patch=16, dim=384, depth=12, heads=6, mlp_dim=1536)


@BACKBONES.register
class ViTB16(VisionTransformer):
    """ViT-B/16."""

    name = "vit_b_16"
    doc = "ViT-B/16 of torchvision"
    options = {"weights": WEIGHTS_OPTION, **WEIGHTS_OPTIONS}
    capabilities = Capabilities(
        cam="net.encoder.layers.encoder_layer_10", attention=True, min_side=16
    )

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        return Shape(patch=16, dim=768, depth=12, heads=12, mlp_dim=3072)


@BACKBONES.register
class ViTL16(VisionTransformer):
    """ViT-L/16."""

    name = "vit_l_16"
    doc = "ViT-L/16 of torchvision"
    options = {"weights": WEIGHTS_OPTION, **WEIGHTS_OPTIONS}
    capabilities = Capabilities(
        cam="net.encoder.layers.encoder_layer_22", attention=True, min_side=16
    )

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        return Shape(patch=16, dim=1024, depth=24, heads=16, mlp_dim=4096)
