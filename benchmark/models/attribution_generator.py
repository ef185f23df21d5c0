"""Networks of Attri-Net: attribution generator, critic and linear heads, steered by a task code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

#: Entries of the task code for each class, and layers of the network that transforms it.
CODE_REPEATS = 20
CODE_LAYERS = 8
LEAK = 0.2
#: Variance below which instance normalisation and the task code do not amplify.
NORM_EPS = 1e-5
CODE_EPS = 1e-8
#: Halvings of the critic, at most, and the smallest side that they may leave, in pixels.
CRITIC_HALVINGS = 5
CRITIC_SIDE = 7


class EqualizedLinear(nn.Module):
    """A linear layer with weights N(0, 1) that are scaled by √(gain / fan-in) at run time.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        gain: numerator of the squared scale.
        bias: initial value of each output's bias, float[outputs], or one number.
    """

    def __init__(
        self, inputs: int, outputs: int, gain: float = 2.0, bias: torch.Tensor | float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs) + bias)
        self.scale = math.sqrt(gain / inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class TaskCode(nn.Module):
    """A vector that tells the network which class to explain.

    A one-hot vector, each entry repeated 20 times, is scaled to a root mean square of 1 and passed
    through eight equalised linear layers.

    Args:
        num_classes: number of classes K; the code has d = 20 K entries.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dim = CODE_REPEATS * num_classes
        layers: list[nn.Module] = []
        for _ in range(CODE_LAYERS):
            layers.append(EqualizedLinear(self.dim, self.dim))
            layers.append(nn.LeakyReLU(LEAK))
        self.layers = nn.Sequential(*layers)

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        """Return the codes float[B,d] of classes int64[B]."""
        weight = self.layers[0].weight
        one_hot = F.one_hot(label, self.num_classes).to(weight.dtype)  # type: ignore[arg-type]
        code = one_hot.repeat_interleave(CODE_REPEATS, dim=1)
        code = code / (code.square().mean(1, keepdim=True) + CODE_EPS).sqrt()
        return self.layers(code)  # type: ignore[no-any-return]


class AdaIN(nn.Module):
    """Instance normalisation whose scale and shift depend on the task code (Huang & Belongie 2017).

    Args:
        channels: channels of the maps.
        code_dim: entries of the task code.
    """

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.channels = channels
        start = torch.cat([torch.ones(channels), torch.zeros(channels)])
        self.style = EqualizedLinear(code_dim, 2 * channels, bias=start)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Return float[B,C,h,w]; every row has the style of its own code float[B,d].

        One code float[1,d] is the style of all rows.
        """
        scale, shift = self.style(code)[:, :, None, None].split(self.channels, dim=1)
        mean = x.mean((2, 3), keepdim=True)
        centred = x - mean
        variance = centred.square().mean((2, 3), keepdim=True)
        return centred * (variance + NORM_EPS).rsqrt() * scale + shift


class Styled(nn.Module):
    """A layer, AdaIN, and a ReLU.

    Args:
        layer: convolution or transposed convolution.
        channels: its output channels.
        code_dim: entries of the task code.
        active: whether a ReLU follows.
    """

    def __init__(
        self, layer: nn.Module, channels: int, code_dim: int, *, active: bool = True
    ) -> None:
        super().__init__()
        self.layer = layer
        self.norm = AdaIN(channels, code_dim)
        self.active = active

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.layer(x), code)
        return x.relu() if self.active else x


class ResidualBlock(nn.Module):
    """x + (3×3, AdaIN, ReLU, 3×3, AdaIN)."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first = Styled(first, channels, code_dim)
        self.second = Styled(second, channels, code_dim, active=False)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.first(x, code), code)  # type: ignore[no-any-return]


class AttributionGenerator(nn.Module):
    """Image and class → attribution map M = tanh(x + network(x)) − x.

    x + M is a counterfactual image that should not have the class. Images have values in [−1, 1]
    and sides that 4 divides. With 5 classes and one channel, width 64 and 6 blocks have the
    9,225,504 parameters of the paper.

    Args:
        num_classes: number of classes.
        channels: channels of the images.
        width: channels at full size.
        blocks: number of residual blocks.
    """

    def __init__(
        self, num_classes: int, channels: int = 1, width: int = 64, blocks: int = 6
    ) -> None:
        super().__init__()
        self.code = TaskCode(num_classes)
        dim = self.code.dim
        down = [
            Styled(nn.Conv2d(channels, width, 7, padding=3, bias=False), width, dim),
            Styled(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), 2 * width, dim),
            Styled(nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), 4 * width, dim),
        ]
        middle = [ResidualBlock(4 * width, dim) for _ in range(blocks)]
        up = [
            Styled(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), 2 * width, dim),
            Styled(nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), width, dim),
        ]
        self.body = nn.ModuleList([*down, *middle, *up])
        self.last = nn.Conv2d(width, channels, 7, padding=3, bias=False)
        initialise(self)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the attribution maps float[B,C,H,W].

        Args:
            image: float[B,C,H,W] in [−1, 1].
            label: int64[B], the class of each map, or int64[1] if all have the same.
        """
        code = self.code(label)
        x = image
        for layer in self.body:
            x = layer(x, code)
        return torch.tanh(image + self.last(x)) - image


class Critic(nn.Module):
    """Image and class → realism, the critic of a Wasserstein GAN.

    It halves the side as often, at most five times, as leaves a side of at least 7. At 320 pixels
    with 5 classes it has the 45,610,272 parameters of the paper.

    Args:
        num_classes: number of classes.
        image_size: (C, H, W).
        width: channels of the first layer.
    """

    def __init__(self, num_classes: int, image_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.code = TaskCode(num_classes)
        channels = image_size[0]
        first = nn.Conv2d(channels, width, 4, 1, 1, bias=False)
        self.body = nn.ModuleList([Styled(first, width, self.code.dim)])
        for _ in range(critic_halvings(min(image_size[1:]))):
            layer = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
            self.body.append(Styled(layer, 2 * width, self.code.dim))
            width *= 2
        self.last = nn.Conv2d(width, 1, 3, 1, 1, bias=False)
        initialise(self)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return how real images are as members of classes, float[B].

        Args:
            image: float[B,C,H,W] in [−1, 1].
            label: int64[B], the class of each image, or int64[1] if all have the same.
        """
        code = self.code(label)
        x = image
        for layer in self.body:
            x = layer(x, code)
        return self.last(x).mean((1, 2, 3))  # type: ignore[no-any-return]


def critic_halvings(side: int) -> int:
    """Return how often the critic halves images of this side, in pixels."""
    side -= 1  # the first convolution, 4×4 with one pixel of padding
    halvings = 0
    while halvings < CRITIC_HALVINGS and side // 2 >= CRITIC_SIDE:
        side //= 2
        halvings += 1
    return halvings


def initialise(network: nn.Module) -> None:
    """Give every convolution weights of He's normal distribution with a = 2."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, a=2)


class LinearHeads(nn.Module):
    """A logistic regression of each class on its attribution map, averaged over cells.

    Args:
        num_classes: number of classes K.
        image_size: (C, H, W).
        pool: side of a cell, in pixels; it divides the side of the images.
    """

    def __init__(self, num_classes: int, image_size: Sequence[int], pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.cells = (image_size[1] // pool, image_size[2] // pool)
        size = self.cells[0] * self.cells[1]
        start = nn.Linear(size, num_classes)
        self.weight = nn.Parameter(start.weight.detach().clone())
        self.bias = nn.Parameter(start.bias.detach().clone())

    def forward(self, attribution: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the logits float[B] of classes int64[B] or int64[1] of maps float[B,C,H,W]."""
        cells = F.avg_pool2d(attribution.mean(1, keepdim=True), self.pool).flatten(1)
        return (cells * self.weight[label]).sum(1) + self.bias[label]

    def contributions(self, attribution: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return what each pixel adds to the logit, float[B,C,H,W]; its sum is logit − bias."""
        cells = self.weight[label].unflatten(1, self.cells)[:, None]
        large = cells.repeat_interleave(self.pool, 2).repeat_interleave(self.pool, 3)
        return attribution * large / (self.pool**2 * attribution.shape[1])
