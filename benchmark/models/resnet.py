"""ResNet-18 and ResNet-50 (He et al. 2016), torchvision's."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES
from benchmark.models.base import SIDE, Backbone, Capabilities
from benchmark.models.pretrained import WEIGHTS_OPTION, refuse_with_weights, torchvision_network

SMALL_STEM = HParam(
    False, doc="a 3×3 first convolution without stride and no first pooling, for small images"
)


class _ResNet(Backbone):
    """Parameters have torchvision's names with prefix ``net.``; ``net.fc`` is ``classifier``."""

    options = {"weights": WEIGHTS_OPTION, "small_stem": SMALL_STEM, "side": SIDE}
    capabilities = Capabilities(cam="net.layer4", lrp=True, min_side=16)
    builder: ClassVar[str]

    def build(self) -> nn.Linear:
        weights = self.chosen["weights"]
        channels = self.image_size[0]
        if self.chosen["small_stem"]:
            refuse_with_weights(self.name, weights, "small_stem, which changes the first layer")
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        net: Any = torchvision_network(self.builder, weights, self.num_outputs)
        if self.chosen["small_stem"]:
            net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if weights == "none":
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        classifier: nn.Linear = net.fc
        del net.fc, net.avgpool  # ``pool`` computes the mean over positions
        self.net: Any = net
        return classifier

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        net = self.net
        out = net.maxpool(net.relu(net.bn1(net.conv1(image))))
        return net.layer4(net.layer3(net.layer2(net.layer1(out))))  # type: ignore[no-any-return]


@BACKBONES.register
class ResNet18(_ResNet):
    """ResNet-18."""

    name = "resnet18"
    doc = "ResNet-18 of torchvision"
    builder = "resnet18"


@BACKBONES.register
class ResNet50(_ResNet):
    """ResNet-50."""

    name = "resnet50"
    doc = "ResNet-50 of torchvision"
    builder = "resnet50"
