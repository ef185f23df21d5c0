"""Shortcuts planted in arrays of images: tags, borders, colours, backgrounds, ties and JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from benchmark.core.errors import UserError
from datasets._sources import compositing
from datasets._sources.compositing import Box, Layer, Size, TieKind


class Shortcut(StrEnum):
    """The kinds of shortcuts."""

    TAG = "tag"
    BORDER = "border"
    COLOUR = "colour"
    BACKGROUND = "background"
    TIE = "tie"
    JPEG = "jpeg"


SHORTCUTS = tuple(shortcut.value for shortcut in Shortcut)
#: Clearly distinct colours of the confounders. The eleventh confounder has the first colour again.
COLOURS = (
    (230, 30, 30), (40, 90, 240), (250, 200, 20), (30, 170, 60), (160, 40, 200),
    (250, 130, 20), (20, 200, 210), (250, 120, 190), (120, 80, 40), (240, 240, 240),
)  # fmt: skip
#: The JPEG quality of each confounder. The first ones differ most; the eleventh is the first again.
JPEG_QUALITIES = (10, 80, 30, 95, 5, 50, 20, 90, 15, 70)
#: The shortcuts that change the object itself, which stays the foreground.
ON_THE_OBJECT = (Shortcut.COLOUR, Shortcut.JPEG)
#: The sizes of shortcuts at size 1, as shares of the image's height or width.
TAG_SIZE = 0.16
BORDER_SIZE = 0.06
TIE_SIZE = 0.35
_MAX_BORDER_SIZE = 0.45
#: The opacity of the colour shortcut, which must leave the object recognisable.
_COLOUR_OPACITY = 0.5


@dataclass(frozen=True)
class Planted:
    """Images with a shortcut.

    Args:
        image: uint8[N,C,H,W].
        pasted: bool[N,1,H,W], True where the shortcut was pasted.
    """

    image: np.ndarray
    pasted: np.ndarray


def plant(
    image: np.ndarray,
    confounder: np.ndarray,
    shortcut: str,
    seed: int,
    mask: np.ndarray | None = None,
    size: float = 1.0,
    opacity: float = 1.0,
    unmarked: int | None = None,
    first: int = 0,
) -> Planted:
    """Copy images and plant a shortcut that reveals the confounder.

    ``tag`` is the number of the confounder in its colour, in the top left corner. ``border`` is a
    frame in its colour. ``colour`` tints the foreground, or everything without masks.
    ``background`` replaces everything except the foreground with stripes whose colour and direction
    depend on the confounder. ``tie`` is a tie in its colour at the centre of the foreground's
    width, a third of the way down: a necktie for even confounders and a bow tie for odd ones.
    ``jpeg`` compresses the whole image as a JPEG file whose quality depends on the confounder.

    Args:
        image: uint8[N,C,H,W].
        confounder: int64[N].
        shortcut: One of SHORTCUTS.
        seed: The seed of the period and phase of the stripes.
        mask: bool[N,1,H,W], the foreground; required for ``background``.
        size: The size of tag, border and tie, relative to their default.
        opacity: The opacity of the shortcut, relative to its default.
        unmarked: A confounder that is shown by the absence of a shortcut.
        first: The number of the first image, if the images are one of several pieces.

    Raises:
        UserError: If the shortcut is unknown, or is ``background`` and there are no masks.
    """
    if shortcut not in SHORTCUTS:
        raise UserError(
            f"there is no shortcut {shortcut!r}, expected one of {', '.join(SHORTCUTS)}."
        )
    kind = Shortcut(shortcut)
    if kind is Shortcut.BACKGROUND and mask is None:
        raise UserError("the shortcut background needs masks; use another one, such as tag.")
    out = np.array(image)
    height, width = out.shape[2:]
    pasted = np.zeros((len(out), 1, height, width), bool)
    strength = opacity * (_COLOUR_OPACITY if kind is Shortcut.COLOUR else 1.0)
    for i, number in enumerate(confounder.tolist()):
        if number == unmarked:
            continue
        if kind is Shortcut.JPEG:
            out[i] = _blend(out[i], compressed(out[i], number), opacity)
            pasted[i] = True
            continue
        foreground = None if mask is None else np.asarray(mask[i, 0])
        layer = _layer(kind, number, (height, width), foreground, size, seed + first + i)
        pasted[i] = layer.opacity[None] > 127
        weakened = (layer.opacity * strength).astype(np.uint8)
        compositing.paste(out[i], Layer(layer.colour, weakened))
    return Planted(out, pasted)


def compressed(image: np.ndarray, number: int) -> np.ndarray:
    """Return an image after JPEG compression at the quality of confounder ``number``.

    Args:
        image: uint8[C,H,W]. Three channels are compressed together as colours; otherwise, each one
            is compressed as a grey image.
        number: The confounder.

    Returns:
        uint8[C,H,W].
    """
    quality = JPEG_QUALITIES[number % len(JPEG_QUALITIES)]
    if len(image) == 3:
        return _through_jpeg(image.transpose(1, 2, 0), quality).transpose(2, 0, 1)
    return np.stack([_through_jpeg(channel, quality) for channel in image])


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return uint8[H,W] or uint8[H,W,3] after it was a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.array(image)


def _blend(image: np.ndarray, changed: np.ndarray, opacity: float) -> np.ndarray:
    """Return a mixture of two images uint8[C,H,W], of which ``changed`` has a share ``opacity``."""
    mixed = image + opacity * (changed.astype(np.float64) - image)
    return np.asarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def _layer(
    shortcut: Shortcut,
    number: int,
    image_size: Size,
    foreground: np.ndarray | None,
    size: float,
    seed: int,
) -> Layer:
    """Return the shortcut of confounder ``number`` at full opacity."""
    colour = COLOURS[number % len(COLOURS)]
    if shortcut is Shortcut.TAG:
        return compositing.tag(image_size, str(number + 1), colour, TAG_SIZE * size)
    if shortcut is Shortcut.BORDER:
        width = min(BORDER_SIZE * size, _MAX_BORDER_SIZE)
        return compositing.border(image_size, colour, width)
    if shortcut is Shortcut.COLOUR:
        where = np.ones(image_size, bool) if foreground is None else foreground
        return Layer(compositing.uniform(image_size, colour), where * np.uint8(255))
    if shortcut is Shortcut.BACKGROUND:
        assert foreground is not None
        rng = np.random.default_rng(seed)
        angle = number * np.pi / len(COLOURS)
        stripes = compositing.stripes(rng, image_size, colour, angle)
        return Layer(stripes, ~foreground * np.uint8(255))
    kind = TieKind.NECKTIE if number % 2 == 0 else TieKind.BOW_TIE
    tie = compositing.draw_tie(colour, kind)
    box = compositing.tie_box(tie, _neck(image_size, foreground, size), kind)
    return compositing.image_layer(tie, box, image_size)


def _neck(image_size: Size, foreground: np.ndarray | None, size: float) -> Box:
    """Return the place of a tie: centred in the foreground, or in the image, a third down."""
    top = 0
    left = 0
    bottom, right = image_size
    if foreground is not None and foreground.any():
        rows = np.flatnonzero(foreground.any(1))
        columns = np.flatnonzero(foreground.any(0))
        top = rows[0]
        bottom = rows[-1] + 1
        left = columns[0]
        right = columns[-1] + 1
    half = max(2.0, TIE_SIZE * size * (right - left) / 2)
    x = (left + right) / 2
    y = top + (bottom - top) / 3
    return Box(x - half, y - half / 2, x + half, y + half / 2)
