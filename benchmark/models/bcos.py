"""B-cos networks (Böhle et al. 2024): each logit is a sum of contributions of the pixels.

A layer multiplies its input by a matrix that depends on the input. There are no other
nonlinearities and no biases, so that the whole network is one such matrix. Its row for a class,
times the input, is the explanation.

``scaled`` and ``uncentred_scale`` are overridable torch functions. An explanation overrides them to
treat the factors that depend on the input as constants (``benchmark/explain/rules.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities
from benchmark.models.pretrained import torchvision_network
from benchmark.models.resnet import SMALL_STEM

#: Added to the squared norm of a patch.
PATCH_EPS = 1e-6


def scaled(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return x · scale; an explanation treats the scale as a constant."""
    if has_torch_function((x, scale)):
        return handle_torch_function(scaled, (x, scale), x, scale)  # type: ignore[no-any-return]
    return x * scale


def uncentred_scale(
    x: torch.Tensor,
    running_var: torch.Tensor | None,
    weight: torch.Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """Return weight / √(variance + eps) per channel, float[1,C,1,1].

    Args:
        x: float[B,C,h,w].
        running_var: float[C], used in evaluation and updated in training. None: not updated.
        weight: float[C].
        training: whether the variance is that of the batch.
        momentum: share of the running variance that training replaces.
        eps: added to the variance.

    Raises:
        ValueError: training with one value per channel.
    """
    arguments = (running_var, weight, training, momentum, eps)
    if has_torch_function((x,)):
        return handle_torch_function(uncentred_scale, (x,), x, *arguments)  # type: ignore[no-any-return]
    if training:
        if x.numel() == x.shape[1]:
            raise ValueError(
                f"expected more than 1 value per channel when training, got shape {list(x.shape)}"
            )
        variance = _wide(x).var((0, 2, 3), correction=0)
        if running_var is not None:
            running_var.lerp_(variance.detach().to(running_var.dtype), momentum)
    else:
        assert running_var is not None
        variance = running_var
    return (weight * (variance + eps).rsqrt()).view(1, -1, 1, 1)


class BcosConv2d(nn.Conv2d):
    """Convolution with B = 2: (ŵ·x) |cos(x, ŵ)| for each patch x, with weights of unit norm."""

    def __init__(
        self, channels: int, out_channels: int, side: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(channels, out_channels, side, stride, padding, bias=False)
        self.side = side

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(self.weight, dim=(1, 2, 3), keepdim=True)
        linear = F.conv2d(x, self.weight / norm, None, self.stride, self.padding)
        squares = _wide(x).square().sum(1, keepdim=True)
        mean = F.avg_pool2d(squares, self.side, self.stride[0], int(self.padding[0]))
        patch = (mean * self.side**2 + PATCH_EPS).sqrt()
        return scaled(linear, (linear.abs() / patch).to(linear.dtype))


class UncentredBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation without a mean and without a shift: x · weight / √(variance + eps).

    The variance is the biased one, also in the running statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = None  # type: ignore[assignment]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        scale = uncentred_scale(x, self.running_var, self.weight, self.training, momentum, self.eps)
        return scaled(x, scale.to(x.dtype))


class Encode(nn.Module):
    """Normalised images float[B,C,H,W] → [x, 1 − x] float[B,2C,H,W] with x from 0 to 1.

    Bright and dark pixels then have vectors of different directions and of similar norms.

    Args:
        channels: channels of the images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, channels, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image * self.std + self.mean
        return torch.cat([x, 1 - x], dim=1)


class LogitBias(nn.Linear):
    """The identity and a constant bias −ln(K − 1), the logit of the frequency 1 / K.

    It has the form of a linear layer for the methods that retrain the last layer.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__(num_outputs, num_outputs)
        with torch.no_grad():
            self.weight.copy_(torch.eye(num_outputs))
            self.bias.fill_(-math.log(max(num_outputs - 1, 1)))
        self.requires_grad_(False)


class BcosBackbone(Backbone):
    """Base class of the B-cos networks: body, a 1×1 B-cos layer, and the mean over positions.

    ``features`` are the K outputs of that mean, the logits without their bias.
    """

    def __init__(
        self,
        num_outputs: int,
        image_size: tuple[int, int, int],
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(num_outputs, image_size, 0.0, **options)
        self.map_dropout = nn.Dropout(dropout)

    def build(self) -> nn.Linear:
        self.encode = Encode(self.image_size[0])
        channels = self.build_body(2 * self.image_size[0])
        self.last = BcosConv2d(channels, self.num_outputs, 1)
        return LogitBias(self.num_outputs)

    def build_body(self, channels: int) -> int:
        """Make the layers for encoded images of that many channels; return their output's."""
        raise NotImplementedError

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map of encoded images."""
        raise NotImplementedError

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.encode.mean.copy_(torch.tensor(mean).view_as(self.encode.mean))
        self.encode.std.copy_(torch.tensor(std).view_as(self.encode.std))

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(self.encode(image))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.last(self.map_dropout(feature_map)).mean((2, 3))  # type: ignore[no-any-return]


@BACKBONES.register
class BcosConvNet(BcosBackbone):
    """Six 3×3 B-cos convolutions with normalisation; the last map has a quarter of the side."""

    name = "bcos_convnet"
    doc = "B-cos network of six 3×3 layers, for small images"
    options = {
        "width": HParam(
            16,
            low=1,
            high=1024,
            doc="channels of the first layer; the last has four times as many",
        )
    }
    capabilities = Capabilities(cam="layers", bcos=True, min_side=8)

    def build_body(self, channels: int) -> int:
        layers: list[nn.Module] = []
        for factor, stride in ((1, 2), (1, 1), (2, 2), (2, 1), (4, 1), (4, 1)):
            width = factor * self.chosen["width"]
            layers += [BcosConv2d(channels, width, 3, stride, 1), UncentredBatchNorm2d(width)]
            channels = width
        self.layers = nn.Sequential(*layers)
        return channels

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class _BcosResNet(BcosBackbone):
    """torchvision's ResNet with B-cos layers; parameters have its names with prefix ``net.``."""

    options = {"small_stem": SMALL_STEM}
    capabilities = Capabilities(cam="net.layer4", bcos=True, min_side=16)
    builder: ClassVar[str]

    def build_body(self, channels: int) -> int:
        net: Any = torchvision_network(self.builder, "none", self.num_outputs)
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if self.chosen["small_stem"]:
            net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            net.maxpool = nn.Identity()
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        channels = net.fc.in_features
        del net.fc, net.avgpool
        use_bcos_layers(net)
        self.net: Any = net
        return channels

    def body(self, x: torch.Tensor) -> torch.Tensor:
        net = self.net
        out = net.maxpool(net.bn1(net.conv1(x)))
        return net.layer4(net.layer3(net.layer2(net.layer1(out))))  # type: ignore[no-any-return]


@BACKBONES.register
class BcosResNet18(_BcosResNet):
    """B-cos ResNet-18."""

    name = "bcos_resnet18"
    doc = "ResNet-18 with B-cos layers"
    builder = "resnet18"


@BACKBONES.register
class BcosResNet50(_BcosResNet):
    """B-cos ResNet-50."""

    name = "bcos_resnet50"
    doc = "ResNet-50 with B-cos layers"
    builder = "resnet50"


@BACKBONES.register
class BcosDenseNet121(BcosBackbone):
    """B-cos DenseNet-121; parameters have torchvision's names with prefix ``net.``."""

    name = "bcos_densenet121"
    doc = "DenseNet-121 with B-cos layers"
    options = {"small_stem": SMALL_STEM}
    capabilities = Capabilities(cam="net", bcos=True, min_side=29)

    @classmethod
    def smallest_side(cls, options: Any) -> int:
        return 8 if options.get("small_stem") else cls.capabilities.min_side

    def build_body(self, channels: int) -> int:
        full: Any = torchvision_network("densenet121", "none", self.num_outputs)
        net = full.features
        net.conv0 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if self.chosen["small_stem"]:
            net.conv0 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            net.pool0 = nn.Identity()
        nn.init.kaiming_normal_(net.conv0.weight)
        use_bcos_layers(net)
        self.net: Any = net
        return full.classifier.in_features  # type: ignore[no-any-return]

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def use_bcos_layers(network: nn.Module) -> None:
    """Replace the layers of a network of torchvision by those of B-cos, and keep the weights.

    ReLUs are removed, and max-pooling becomes mean pooling.
    """
    for name, child in network.named_children():
        layer: nn.Module
        if isinstance(child, nn.Conv2d):
            layer = BcosConv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size[0],
                child.stride[0],
                int(child.padding[0]),
            )
            layer.weight = child.weight
        elif isinstance(child, nn.BatchNorm2d):
            layer = UncentredBatchNorm2d(child.num_features)
        elif isinstance(child, nn.ReLU):
            layer = nn.Identity()
        elif isinstance(child, nn.MaxPool2d):
            layer = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
        else:
            use_bcos_layers(child)
            continue
        setattr(network, name, layer)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in at least float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
