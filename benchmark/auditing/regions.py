"""Regions whose content can be exchanged between two images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Side of a corner, and width of the border, as shares of the side of the image.
CORNER_SHARE = 0.25
BORDER_SHARE = 0.1


@dataclass(frozen=True)
class Region:
    """A region of an image, or the distribution of its colours.

    Args:
        name: name of the region in the report.
        mask: bool[H,W]; None for the mean and the standard deviation of each channel.
        outside: True for all pixels that belong to the foreground neither of the image nor of the
            donor.
    """

    name: str
    mask: np.ndarray | None = None
    outside: bool = False

    def transplant(
        self, image: np.ndarray, donor: np.ndarray, foreground: np.ndarray | None = None
    ) -> np.ndarray:
        """Return images with the region of their donors.

        Args:
            image: uint8[N,C,H,W].
            donor: uint8[N,C,H,W], one donor for each image.
            foreground: bool[N,1,H,W], foreground of the image or of its donor; used by ``outside``.
        """
        if self.outside:
            assert foreground is not None
            return np.where(foreground, image, donor)
        if self.mask is not None:
            return np.where(self.mask, donor, image)
        pixels = image.astype(np.float32)
        given = donor.astype(np.float32)
        axes = (2, 3)
        centred = pixels - pixels.mean(axes, keepdims=True)
        factor = given.std(axes, keepdims=True) / np.maximum(pixels.std(axes, keepdims=True), 1.0)
        moved = centred * factor + given.mean(axes, keepdims=True)
        result: np.ndarray = moved.round().clip(0, 255).astype(np.uint8)
        return result


def regions_of(height: int, width: int, *, masked: bool = False) -> list[Region]:
    """Return the regions that an audit exchanges.

    They are four corners, the border, the colours, and for images with masks the background.
    """
    down = max(1, round(height * CORNER_SHARE))
    right = max(1, round(width * CORNER_SHARE))
    corners = {
        "top left corner": (slice(None, down), slice(None, right)),
        "top right corner": (slice(None, down), slice(-right, None)),
        "bottom left corner": (slice(-down, None), slice(None, right)),
        "bottom right corner": (slice(-down, None), slice(-right, None)),
    }
    found = []
    for name, (rows, columns) in corners.items():
        mask = np.zeros((height, width), bool)
        mask[rows, columns] = True
        found.append(Region(name, mask))
    border = np.ones((height, width), bool)
    frame = max(1, round(min(height, width) * BORDER_SHARE))
    border[frame:-frame, frame:-frame] = False
    found.append(Region("border", border))
    found.append(Region("colours and contrast"))
    if masked:
        found.append(Region("background", outside=True))
    return found
