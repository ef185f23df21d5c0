"""A convolutional autoencoder, whose latent representation explanations shift."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


def _convolution(channels: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Autoencoder(nn.Module):
    """Images → a small latent map → images of the same size, without connections past the map.

    Each level of the encoder halves the side, rounded up. The decoder enlarges by repetition.

    Args:
        image_size: (C, H, W).
        width: channels at full size; they double at each level.
        depth: number of levels.
        latent: channels of the latent map.
    """

    def __init__(
        self, image_size: tuple[int, int, int], width: int = 16, depth: int = 3, latent: int = 32
    ) -> None:
        super().__init__()
        channels, height, width_of_image = image_size
        self.sizes = [(height, width_of_image)]
        for _ in range(depth):
            h, w = self.sizes[-1]
            self.sizes.append((-(-h // 2), -(-w // 2)))
        wide = [width * 2**level for level in range(depth + 1)]
        self.down = nn.Sequential(_convolution(channels, width))
        for few, many in pairwise(wide):
            self.down.append(_convolution(few, many, stride=2))
        self.to_latent = nn.Conv2d(wide[-1], latent, 1)
        self.from_latent = _convolution(latent, wide[-1])
        self.up = nn.ModuleList(
            _convolution(many, few) for few, many in reversed([*pairwise(wide)])
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the latent map float[B,L,h,w] of images float[B,C,H,W]."""
        return self.to_latent(self.down(image))  # type: ignore[no-any-return]

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the images float[B,C,H,W] of latent maps; their values have no bounds."""
        x = self.from_latent(latent)
        for layers, size in zip(self.up, self.sizes[-2::-1], strict=True):
            x = layers(F.interpolate(x, size, mode="nearest"))
        return self.last(x)  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction float[B,C,H,W]."""
        return self.decode(self.encode(image))
