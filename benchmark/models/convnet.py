"""Small convolutional networks for images of 28 or 32 pixels."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities


@BACKBONES.register
class ConvNet(Backbone):
    """Six 3×3 convolutions with batch normalisation; the last map has a quarter of the side."""

    name = "convnet"
    doc = "six 3×3 convolutions with batch normalisation, for small images"
    options = {
        "width": HParam(
            16,
            low=1,
            high=1024,
            doc="channels of the first convolution; the last has four times as many",
        )
    }
    capabilities = Capabilities(cam="body", lrp=True, min_side=8)

    def build(self) -> nn.Linear:
        width = self.chosen["width"]
        layers: list[nn.Module] = []
        channels = self.image_size[0]
        for factor, stride in ((1, 2), (1, 1), (2, 2), (2, 1), (4, 1), (4, 1)):
            layers.append(nn.Conv2d(channels, factor * width, 3, stride, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(factor * width))
            layers.append(nn.ReLU())
            channels = factor * width
        self.body = nn.Sequential(*layers)
        return nn.Linear(channels, self.num_outputs)

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)  # type: ignore[no-any-return]


@BACKBONES.register
class MnistCnn(Backbone):
    """DomainBed's network for MNIST data sets (Gulrajani & Lopez-Paz 2021); 128 features."""

    name = "mnist_cnn"
    doc = "DomainBed's network for MNIST: four 3×3 convolutions with group normalisation"
    # LRP-ε is not defined for group normalisation
    capabilities = Capabilities(cam="body", min_side=8)

    def build(self) -> nn.Linear:
        layers: list[nn.Module] = []
        channels = self.image_size[0]
        for wide, stride in ((64, 1), (128, 2), (128, 1), (128, 1)):
            layers += [
                nn.Conv2d(channels, wide, 3, stride, padding=1),
                nn.ReLU(),
                nn.GroupNorm(8, wide),
            ]
            channels = wide
        self.body = nn.Sequential(*layers)
        return nn.Linear(channels, self.num_outputs)

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image)  # type: ignore[no-any-return]
