"""DenseNet-121 (Huang et al. 2017), torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from benchmark.core.registry import BACKBONES
from benchmark.models.base import SIDE, Backbone, Capabilities
from benchmark.models.pretrained import WEIGHTS_OPTION, refuse_with_weights, torchvision_network
from benchmark.models.resnet import SMALL_STEM


@BACKBONES.register
class DenseNet121(Backbone):
    """DenseNet-121.

    Parameters have torchvision's names with the prefix ``net.``; ``net.classifier`` is
    ``classifier`` here. The last ReLU, which torchvision applies as a function, is a module, since
    Grad-CAM uses its output.
    """

    name = "densenet121"
    doc = "DenseNet-121 of torchvision"
    options = {"weights": WEIGHTS_OPTION, "small_stem": SMALL_STEM, "side": SIDE}
    capabilities = Capabilities(cam="last_relu", lrp=True, min_side=29)

    @classmethod
    def smallest_side(cls, options: Mapping[str, Any]) -> int:
        return 8 if options.get("small_stem") else cls.capabilities.min_side

    def build(self) -> nn.Linear:
        weights = self.chosen["weights"]
        channels = self.image_size[0]
        if self.chosen["small_stem"]:
            refuse_with_weights(self.name, weights, "small_stem, which changes the first layer")
        if channels != 3:
            refuse_with_weights(self.name, weights, f"images of {channels} channels")
        net: Any = torchvision_network("densenet121", weights, self.num_outputs)
        if self.chosen["small_stem"]:
            net.features.conv0 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            net.features.pool0 = nn.Identity()
        elif channels != 3:
            net.features.conv0 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if weights == "none":
            nn.init.kaiming_normal_(net.features.conv0.weight)
        classifier: nn.Linear = net.classifier
        del net.classifier
        self.net: Any = net
        self.last_relu = nn.ReLU()
        return classifier

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.last_relu(self.net.features(image))  # type: ignore[no-any-return]
