"""U-Net (Ronneberger, Fischer, Brox 2015) with batch normalisation, with one head or two."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.errors import UserError

#: Largest number of channels of the lowest map; its second convolution has 9 · 4096² weights.
WIDEST = 4096


def unet_problem(image_size: tuple[int, int, int], width: int, depth: int) -> str | None:
    """Return one sentence on why images (C,H,W) do not fit a U-Net, or None if they do."""
    side = min(image_size[1:])
    if side < 2**depth:
        return (
            f"a U-Net of depth {depth} needs images of at least {2**depth} pixels, and "
            f"these have {side}; use a depth of at most {max(side.bit_length() - 1, 1)}."
        )
    if width * 2**depth > WIDEST:
        return (
            f"a U-Net of width {width} and depth {depth} has {width * 2**depth:,} channels in its "
            f"lowest map, expected at most {WIDEST:,}; choose a smaller width or depth."
        )
    return None


def unet_fewest_rows(image_size: tuple[int, int, int], depth: int) -> int:
    """Return the smallest training batch: 2 if the lowest map has one position, else 1."""
    return 2 if max(image_size[1:]) >> depth <= 1 else 1


def _two_convolutions(channels: int, wide: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c in (channels, wide):
        layers += [nn.Conv2d(c, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Network from an image to a map of the same size, such as foreground logits.

    Convolutions use zero padding.

    Args:
        image_size: (C, H, W).
        num_outputs: channels of the map.
        width: channels at full size; they double at each level (64 in the paper).
        depth: how many times the side is halved (4 in the paper); sides need not be divisible.

    Raises:
        UserError: the image is too small for this depth, or the lowest map has too many channels.
    """

    def __init__(
        self,
        image_size: tuple[int, int, int],
        num_outputs: int = 1,
        width: int = 64,
        depth: int = 4,
    ) -> None:
        super().__init__()
        channels = image_size[0]
        problem = unet_problem(image_size, width, depth)
        if problem is not None:
            raise UserError(problem)
        wide = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _two_convolutions(a, b) for a, b in zip([channels, *wide], wide, strict=False)
        )
        pairs = list(zip(wide[1:], wide, strict=False))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, stride=2) for low, high in pairs)
        self.merge = nn.ModuleList(_two_convolutions(2 * high, high) for _, high in pairs)
        self.last = nn.Conv2d(width, num_outputs, 1)
        self.num_features = wide[-1]

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the map of each level, from full size to the lowest one."""
        maps = [self.down[0](image)]
        for level in self.down[1:]:
            maps.append(level(nn.functional.max_pool2d(maps[-1], 2)))
        return maps

    def decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return float[B,num_outputs,H,W] from the maps of ``encode``."""
        out = maps[-1]
        for up, merge, skip in zip(self.up, self.merge, maps[-2::-1], strict=True):
            out = merge(torch.cat([skip, up(out, output_size=skip.shape[2:])], dim=1))
        return self.last(out)  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(image))


class TwoHeadedUNet(nn.Module):
    """A U-Net whose lowest map is also used for classification.

    Args:
        num_classes: number of logits.
        image_size: (C, H, W).
        width: width of the U-Net.
        depth: depth of the U-Net.
        dropout: probability of dropping a feature before the last layer of the classification head.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int, int],
        width: int,
        depth: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet = UNet(image_size, 1, width, depth)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.unet.num_features, num_classes)

    def classify(self, bottom: torch.Tensor) -> torch.Tensor:
        """Return logits float[B,K] from the lowest map."""
        return self.classifier(self.dropout(bottom.mean(dim=(2, 3))))  # type: ignore[no-any-return]

    def both(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class logits float[B,K] and foreground logits float[B,1,H,W]."""
        maps = self.unet.encode(image)
        return self.classify(maps[-1]), self.unet.decode(maps)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classify(self.unet.encode(image)[-1])
