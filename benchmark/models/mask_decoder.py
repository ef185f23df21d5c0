"""A decoder on the maps of a frozen classifier that predicts a mask of its input (NEM, NEMt)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.models.base import Backbone

#: Side of the images, in pixels, for which the side of the smoothing kernel is given.
KERNEL_IMAGE_SIDE = 224


def maps_by_size(network: Backbone, image: torch.Tensor) -> list[torch.Tensor]:
    """Return the last map of each size smaller than the image, smallest first, and the image.

    The maps are those between the layers and blocks that follow one another in the network, not
    those inside of a block: of a ResNet, the stem after its ReLU and the four stages.

    Args:
        network: a convolutional backbone.
        image: float[B,C,H,W].

    Returns:
        float[B,C_i,h_i,w_i] for each size.
    """
    found: dict[tuple[int, int], torch.Tensor] = {}

    def keep(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            found[output.shape[2], output.shape[3]] = output

    handles = [module.register_forward_hook(keep) for module in _layers_in_a_row(network)]
    try:
        network.feature_map(image)
    finally:
        for handle in handles:
            handle.remove()
    sizes = sorted(size for size in found if size[0] * size[1] < image[0, 0].numel())
    return [*(found[size] for size in sizes), image]


def _layers_in_a_row(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a network, of its body, and of plain ``nn.Sequential`` in them."""
    for child in network.children():
        yield child
        is_body = isinstance(network, Backbone) and not isinstance(child, nn.Dropout | nn.Linear)
        if is_body or type(child) is nn.Sequential:
            yield from _layers_in_a_row(child)


class DecoderBlock(nn.Module):
    """Enlarge a map to the size of the next one, append that one, and convolve twice.

    Args:
        inputs: channels of the map that is enlarged.
        skip: channels of the map that is appended.
        outputs: channels of the result.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs + skip, outputs):
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.SiLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        large = F.interpolate(x, skip.shape[2:], mode="nearest")
        return self.layers(torch.cat([large, skip], dim=1))  # type: ignore[no-any-return]


class MaskDecoder(nn.Module):
    """Maps of a classifier, smallest first → a mask of the image, before smoothing.

    On the maps of a ResNet-50 at 224 pixels, with width 16, it has 9.01 million parameters.

    Args:
        channels: channels of the maps, in the order of ``maps_by_size``.
        width: channels of the last block; each earlier one has twice as many as the next.
    """

    def __init__(self, channels: Sequence[int], width: int = 16) -> None:
        super().__init__()
        count = len(channels) - 1
        widths = [width * 2 ** (count - 1 - i) for i in range(count)]
        inputs = [channels[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            DecoderBlock(*sizes) for sizes in zip(inputs, channels[1:], widths, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mask float[B,1,H,W], values from 0 to 1."""
        x = maps[0]
        for block, skip in zip(self.blocks, maps[1:], strict=True):
            x = block(x, skip)
        return torch.sigmoid(self.last(x))


def kernel_side(side: int, neighbourhood: int = 21) -> int:
    """Return the side of the smoothing kernel for images of this side, in pixels, at least 1.

    Args:
        side: side of the images.
        neighbourhood: side of the kernel for images of 224 pixels.
    """
    return max(round(side * neighbourhood / KERNEL_IMAGE_SIDE), 1)


def smooth(
    mask: torch.Tensor, side: int, *, generator: torch.Generator | None = None, random: bool
) -> torch.Tensor:
    """Convolve each mask with one kernel of sum 1; opposite borders of the image touch.

    Args:
        mask: float[B,1,H,W].
        side: side of the kernel, in pixels.
        generator: source of the random kernel; None for torch's default generator.
        random: whether the kernel is drawn from a uniform distribution, once for the batch; else
            it is the box filter, its expectation.

    Returns:
        float[B,1,H,W].
    """
    if random:
        kernel = torch.rand(1, 1, side, side, device=mask.device, generator=generator)
    else:
        kernel = torch.ones(1, 1, side, side, device=mask.device)
    kernel = (kernel / kernel.sum()).to(mask.dtype)
    before = (side - 1) // 2
    after = side - 1 - before
    # circular padding of F.pad allows at most the size of the image
    padded = F.pad(mask, (before, after, before, after), mode="circular")
    return F.conv2d(padded, kernel)
