"""Layers that are pasted on images with an opacity: tags, borders, textures and ties."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Colour: TypeAlias = tuple[int, int, int]
#: Height and width of an image in pixels.
Size: TypeAlias = tuple[int, int]

#: Digits of 3 × 5 pixels, a number per row, so that no font is needed.
GLYPHS = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 2, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
}


class TieKind(Enum):
    """The kind of a tie: a necktie hangs from the neck, a bow tie sits on it."""

    NECKTIE = "necktie"
    BOW_TIE = "bow tie"


class Box(NamedTuple):
    """A rectangle in pixels, which may be fractional."""

    left: float
    top: float
    right: float
    bottom: float


class Layer(NamedTuple):
    """Something to paste.

    Attributes:
        colour: uint8[3,H,W].
        opacity: uint8[H,W], 255 where the layer hides the image.
    """

    colour: np.ndarray
    opacity: np.ndarray


def paste(image: np.ndarray, layer: Layer) -> None:
    """Paste a layer on an image, in place: round((layer·a + image·(255 − a)) / 255).

    Args:
        image: uint8[C,H,W]. An image of one channel gets the mean of the colours.
        layer: The layer.
    """
    a = layer.opacity.astype(np.uint16)
    colour = layer.colour
    if image.shape[0] == 1:
        colour = colour.mean(axis=0, keepdims=True).round()
    elif image.shape[0] == 2:
        colour = colour[:2]
    image[:] = (colour.astype(np.uint16) * a + image * (255 - a) + 127) // 255


def paste_cutouts(cutout: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Paste cut-out objects on backgrounds: round((object·a + background·(255 − a)) / 255).

    Args:
        cutout: uint8[N,4,H,W], the object and its share of each pixel.
        background: uint8[N,3,H,W].

    Returns:
        uint8[N,3,H,W].
    """
    a = cutout[:, 3:].astype(np.uint16)
    value = (cutout[:, :3] * a + background * (255 - a) + 127) // 255
    return value.astype(np.uint8)  # type: ignore[no-any-return]


def tag(size: Size, text: str, colour: Colour, height: float) -> Layer:
    """Return digits in the top left corner, like the marks that scanners burn into X-rays.

    Args:
        size: Height and width of the image.
        text: The digits.
        colour: Their colour.
        height: Their height, as a share of the image's height.
    """
    scale = max(1, round(height * size[0] / 5))
    glyphs = []
    for character in text:
        bits = [[(row >> (2 - x)) & 1 for x in range(3)] for row in GLYPHS[character]]
        glyphs.append(np.pad(np.array(bits, np.uint8), ((0, 0), (0, 1))))
    line = np.concatenate(glyphs, axis=1)[:, :-1]
    ink = np.kron(line, np.ones((scale, scale), np.uint8))[: size[0], : size[1]]
    margin = min(max(1, size[0] // 32), size[0] - ink.shape[0], size[1] - ink.shape[1])
    opacity = np.zeros(size, np.uint8)
    opacity[margin : margin + ink.shape[0], margin : margin + ink.shape[1]] = ink * np.uint8(255)
    return Layer(uniform(size, colour), opacity)


def border(size: Size, colour: Colour, width: float) -> Layer:
    """Return a frame whose width is a share of the image's height."""
    pixels = max(1, round(width * size[0]))
    opacity = np.full(size, 255, np.uint8)
    opacity[pixels:-pixels, pixels:-pixels] = 0
    return Layer(uniform(size, colour), opacity)


def stripes(rng: np.random.Generator, size: Size, colour: Colour, angle: float) -> np.ndarray:
    """Return noisy stripes in two shades of a colour.

    Args:
        rng: The generator of the period, the phase and the noise.
        size: Height and width of the image.
        colour: The colour.
        angle: The direction in radians.

    Returns:
        uint8[3,H,W].
    """
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    period = rng.uniform(0.08, 0.16)
    phase = rng.random()
    position = (x * np.cos(angle) + y * np.sin(angle)) / period + phase
    shade = 0.45 + 0.45 * (0.5 + 0.5 * np.sin(2 * np.pi * position)) + rng.normal(0, 0.05, size)
    value = np.asarray(colour, np.float64)[:, None, None] * shade.clip(0, 1)
    return value.round().astype(np.uint8)  # type: ignore[no-any-return]


def draw_tie(colour: Colour, kind: TieKind) -> Image:
    """Draw a plain tie on a transparent background."""
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (64, 160) if kind is TieKind.NECKTIE else (128, 64))
    pen = ImageDraw.Draw(image)
    light = (*colour, 255)
    dark = (*(value // 2 for value in colour), 255)
    if kind is TieKind.NECKTIE:
        pen.polygon([(18, 0), (46, 0), (40, 22), (24, 22)], fill=dark)
        pen.polygon([(24, 22), (40, 22), (60, 136), (32, 159), (4, 136)], fill=light)
    else:
        pen.polygon([(0, 2), (64, 26), (64, 38), (0, 62)], fill=light)
        pen.polygon([(127, 2), (64, 26), (64, 38), (127, 62)], fill=light)
        pen.rectangle([52, 20, 76, 44], fill=dark)
    return image


def tie_box(tie: Image, neck: Box, kind: TieKind) -> Box:
    """Return the place of a tie.

    A bow tie is as wide as the neck and centred on it. A necktie is half as wide and hangs from the
    centre.
    """
    hangs = kind is TieKind.NECKTIE
    width = (neck.right - neck.left) * (0.5 if hangs else 1.0)
    height = width * tie.height / tie.width
    x = (neck.left + neck.right) / 2
    y = (neck.top + neck.bottom) / 2
    top = y if hangs else y - height / 2
    return Box(x - width / 2, top, x + width / 2, top + height)


def image_layer(image: Image, box: Box, size: Size) -> Layer:
    """Scale a transparent image into a box; parts outside the image below are cropped."""
    from PIL import Image

    width = max(1, round(box.right - box.left))
    height = max(1, round(box.bottom - box.top))
    scaled = image.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("RGBA", (size[1], size[0]))
    canvas.paste(scaled.convert("RGBA"), (round(box.left), round(box.top)))
    array = np.asarray(canvas)
    return Layer(array[..., :3].transpose(2, 0, 1), array[..., 3])


def uniform(size: Size, colour: Colour) -> np.ndarray:
    """Return an image of one colour, uint8[3,H,W], read-only."""
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, *size))
