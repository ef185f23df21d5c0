"""Things to paste on pictures, each with its opacity: tags, borders, textures, ties."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

#: Digits of 3 × 5 pixels, a row per number, so that no font of the machine is needed.
GLYPHS = {
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 7, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 2, 2, 2), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
}  # fmt: skip


class Box(NamedTuple):
    """A rectangle in pixels, which need not be whole: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float


class Layer(NamedTuple):
    """Something to paste: ``colour`` uint8[3,H,W] and ``opacity`` uint8[H,W], 255 where it hides all below it."""

    colour: np.ndarray
    opacity: np.ndarray


def paste(image: np.ndarray, layer: Layer) -> np.ndarray:
    """Put a layer on a picture uint8[C,H,W], in place: round((layer·a + image·(255 − a)) / 255).

    A picture of one channel gets the mean of the colours.

    Returns:
        What was pasted, bool[1,H,W]: where the opacity is more than one half.
    """
    a = layer.opacity.astype(np.uint16)
    colour = layer.colour
    if image.shape[0] == 1:
        colour = colour.mean(axis=0, keepdims=True).round()
    elif image.shape[0] == 2:
        colour = colour[:2]
    image[:] = (colour.astype(np.uint16) * a + image * (255 - a) + 127) // 255
    return layer.opacity[None] > 127


def tag(
    side: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    height: float,
    corner: tuple[int, int],
) -> Layer:
    """Digits in a colour, as scanners and hospitals burn them into a picture.

    Args:
        side: height and width of the picture.
        text: digits.
        height: of the digits, as a share of the picture's.
        corner: (0 or 1, 0 or 1): top or bottom, left or right.
    """
    scale = max(1, round(height * side[0] / 5))
    bits = [[[(row >> (2 - x)) & 1 for x in range(3)] for row in GLYPHS[c]] for c in text]
    glyphs = np.concatenate(
        [np.pad(np.array(g, np.uint8), ((0, 0), (0, 1))) for g in bits], axis=1
    )[:, :-1]
    ink = np.kron(glyphs, np.ones((scale, scale), np.uint8))[: side[0], : side[1]]
    margin = min(max(1, side[0] // 32), side[0] - ink.shape[0], side[1] - ink.shape[1])
    top = margin if corner[0] == 0 else side[0] - margin - ink.shape[0]
    left = margin if corner[1] == 0 else side[1] - margin - ink.shape[1]
    opacity = np.zeros(side, np.uint8)
    opacity[top : top + ink.shape[0], left : left + ink.shape[1]] = ink * np.uint8(255)
    return Layer(_flat(side, colour), opacity)


def border(side: tuple[int, int], colour: tuple[int, int, int], width: float) -> Layer:
    """A frame whose width is a share of the picture's height."""
    pixels = max(1, round(width * side[0]))
    opacity = np.full(side, 255, np.uint8)
    opacity[pixels:-pixels, pixels:-pixels] = 0
    return Layer(_flat(side, colour), opacity)


def texture(
    rng: np.random.Generator, side: tuple[int, int], colour: tuple[int, int, int], angle: float
) -> np.ndarray:
    """Stripes across a picture in two shades of a colour, with noise, uint8[3,H,W]; period and phase are random."""
    y, x = np.mgrid[: side[0], : side[1]] / max(side)
    period, phase = rng.uniform(0.08, 0.16), rng.random()
    wave = 0.5 + 0.5 * np.sin(
        2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / period + phase)
    )
    shade = 0.45 + 0.45 * wave + rng.normal(0, 0.05, side)
    value = np.asarray(colour, np.float64)[:, None, None] * shade.clip(0, 1)
    return value.round().astype(np.uint8)  # type: ignore[no-any-return]


def drawn_tie(colour: tuple[int, int, int], hangs: bool) -> Image:
    """A plain tie on a transparent ground: one that hangs, or a bow."""
    from PIL import Image, ImageDraw

    size = (64, 160) if hangs else (128, 64)
    picture = Image.new("RGBA", size)
    pen = ImageDraw.Draw(picture)
    dark = tuple(value // 2 for value in colour)
    if hangs:
        pen.polygon([(18, 0), (46, 0), (40, 22), (24, 22)], fill=(*dark, 255))
        pen.polygon([(24, 22), (40, 22), (60, 136), (32, 159), (4, 136)], fill=(*colour, 255))
    else:
        pen.polygon([(0, 2), (64, 26), (64, 38), (0, 62)], fill=(*colour, 255))
        pen.polygon([(127, 2), (64, 26), (64, 38), (127, 62)], fill=(*colour, 255))
        pen.rectangle([52, 20, 76, 44], fill=(*dark, 255))
    return picture


def neck_tie(picture: Image, neck: Box, hangs: bool) -> tuple[Image, Box]:
    """A tie and where it goes: a bow is as wide as the neck and sits in its middle; a necktie is half as wide and
    hangs from there."""
    width = (neck.right - neck.left) * (0.5 if hangs else 1.0)
    height = width * picture.height / picture.width
    across, down = (neck.left + neck.right) / 2, (neck.top + neck.bottom) / 2
    top = down if hangs else down - height / 2
    return picture, Box(across - width / 2, top, across + width / 2, top + height)


def placed(picture: Image, box: Box, side: tuple[int, int]) -> Layer:
    """A picture with transparency, scaled into a box; what lies outside the picture below is cut off."""
    from PIL import Image

    left, top = round(box.left), round(box.top)
    width, height = max(1, round(box.right - box.left)), max(1, round(box.bottom - box.top))
    scaled = (
        picture.convert("RGBa").resize((width, height), Image.Resampling.BILINEAR).convert("RGBA")
    )
    canvas = Image.new("RGBA", (side[1], side[0]))
    canvas.paste(scaled, (left, top))
    array = np.asarray(canvas)
    return Layer(array[..., :3].transpose(2, 0, 1), array[..., 3])


def _flat(side: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, *side))
