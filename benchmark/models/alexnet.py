"""AlexNet (Krizhevsky 2014, "one weird trick"), torchvision's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES
from benchmark.models.base import SIDE, Backbone, Capabilities
from benchmark.models.pretrained import WEIGHTS_OPTION, refuse_with_weights, torchvision_network


@BACKBONES.register
class AlexNet(Backbone):
    """AlexNet; its feature map precedes the last max-pool: 13×13 for images of 224 pixels.

    Parameters have torchvision's names with the prefix ``net.``; ``net.classifier.6`` is
    ``classifier`` here.
    """

    name = "alexnet"
    doc = "AlexNet of torchvision"
    options = {
        "weights": WEIGHTS_OPTION,
        "inner_dropout": HParam(
            0.5, low=0.0, high=1.0, doc="dropout before each of the two hidden linear layers"
        ),
        "side": SIDE,
    }
    capabilities = Capabilities(cam="net.features.11", lrp=True, min_side=63)

    def build(self) -> nn.Linear:
        weights = self.chosen["weights"]
        channels = self.image_size[0]
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        net: Any = torchvision_network(
            "alexnet", weights, self.num_outputs, dropout=self.chosen["inner_dropout"]
        )
        if channels != 3:
            net.features[0] = nn.Conv2d(channels, 64, 11, stride=4, padding=2)
        classifier: nn.Linear = net.classifier[6]
        del net.classifier[6]
        self.net: Any = net
        return classifier

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.net.features[:12](image)  # type: ignore[no-any-return]

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        pooled = self.net.features[12](feature_map)
        if pooled.shape[2:] != (6, 6):  # the mean of single cells has no deterministic GPU kernel
            pooled = self.net.avgpool(pooled)
        return self.net.classifier(pooled.flatten(1))  # type: ignore[no-any-return]
