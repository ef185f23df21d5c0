"""ConvNeXt-Base (Liu et al. 2022), torchvision's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.core.registry import BACKBONES
from benchmark.models.base import SIDE, Backbone, Capabilities
from benchmark.models.pretrained import WEIGHTS_OPTION, refuse_with_weights, torchvision_network


@BACKBONES.register
class ConvNeXtBase(Backbone):
    """ConvNeXt-Base.

    Parameters have torchvision's names with the prefix ``net.``; ``net.classifier.2`` is
    ``classifier`` here.
    """

    name = "convnext_base"
    doc = "ConvNeXt-Base of torchvision"
    options = {"weights": WEIGHTS_OPTION, "side": SIDE}
    capabilities = Capabilities(cam="net.features.7", min_side=32)

    def build(self) -> nn.Linear:
        weights = self.chosen["weights"]
        channels = self.image_size[0]
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        net: Any = torchvision_network("convnext_base", weights, self.num_outputs)
        if channels != 3:
            net.features[0][0] = nn.Conv2d(channels, 128, 4, stride=4)
            nn.init.trunc_normal_(net.features[0][0].weight, std=0.02)
            nn.init.zeros_(net.features[0][0].bias)
        classifier: nn.Linear = net.classifier[2]
        del net.classifier[2]
        self.net: Any = net
        return classifier

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.net.features(image)  # type: ignore[no-any-return]

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.net.classifier(self.net.avgpool(feature_map))  # type: ignore[no-any-return]
