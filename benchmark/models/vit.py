"""ViT-B/16 (Dosovitskiy et al. 2021), torchvision's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities
from benchmark.models.pretrained import (
    NONE,
    WEIGHTS_OPTION,
    load_all_but_last,
    refuse_with_weights,
    state_of_weights,
    torchvision_network,
)

PATCH = 16


@BACKBONES.register
class ViTB16(Backbone):
    """ViT-B/16.

    The features are the class token; the feature map is the grid of patch tokens, with side / 16
    positions a side. Grad-CAM uses the patch tokens that enter the last block, which are the inputs
    of its first layer normalisation; the logits do not depend on the patch tokens that leave it, so
    that their gradient would be 0.

    Position embeddings of published weights are interpolated to the image size.
    Parameters have torchvision's names with the prefix ``net.``; ``net.heads.head`` is
    ``classifier`` here.
    """

    name = "vit_b_16"
    doc = "ViT-B/16 of torchvision"
    options = {"weights": WEIGHTS_OPTION}
    capabilities = Capabilities(
        cam="net.encoder.layers.encoder_layer_10", attention=True, min_side=PATCH
    )

    @classmethod
    def sides_inside(cls, options: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        if height != width or height % PATCH:
            raise UserError(
                f"{cls.name} needs square images with a side that {PATCH} divides, got "
                f"{height}×{width}; resize them."
            )
        return super().sides_inside(options, height, width)

    def build(self) -> nn.Linear:
        channels, height, _ = self.image_size
        weights = self.chosen["weights"]
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        net: Any = torchvision_network("vit_b_16", NONE, self.num_outputs, image_size=height)
        if weights != NONE:
            from torchvision.models.vision_transformer import interpolate_embeddings

            state: Any = state_of_weights("vit_b_16", weights)
            state = interpolate_embeddings(height, PATCH, state)
            load_all_but_last(net, state, f"the weights {weights} of {self.name}")
        if channels != 3:
            net.conv_proj = nn.Conv2d(channels, net.hidden_dim, PATCH, stride=PATCH)
            nn.init.trunc_normal_(
                net.conv_proj.weight, std=math.sqrt(1 / (channels * PATCH * PATCH))
            )
            nn.init.zeros_(net.conv_proj.bias)
        classifier: nn.Linear = net.heads.head
        del net.heads
        self.net: Any = net
        return classifier

    def tokens(self, image: torch.Tensor) -> torch.Tensor:
        """Return the tokens after the last block, class token first: float[B,1+hw,D]."""
        if image.shape[1:] != torch.Size(self.image_size):
            raise UserError(
                f"{self.name} was built for images of shape {list(self.image_size)}, got "
                f"{list(image.shape[1:])}."
            )
        patches = self.net.conv_proj(image).flatten(2).transpose(1, 2)
        first = self.net.class_token.expand(len(image), -1, -1)
        return self.net.encoder(torch.cat([first, patches], dim=1))  # type: ignore[no-any-return]

    def cam_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return tokens float[B,1+hw,D] without the class token on their grid, float[B,D,h,w]."""
        side = self.image_size[1] // PATCH
        return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.cam_map(self.tokens(image))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return self.tokens(image)[:, 0]
