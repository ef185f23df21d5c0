"""From what a file stores to what a viewer shows: turned upright, on a ground, at eight bits, first frame."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets._io import grey_scale

if TYPE_CHECKING:
    from PIL.Image import Image

#: The grey value behind transparent pixels: white, as on a page.
GROUND = 255
#: What Pillow raises on damaged files; its AVIF decoder raises a RuntimeError.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError, RuntimeError,
    MemoryError,
)  # fmt: skip
#: Pillow's modes of grey values with more than eight bits.
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_ORIENTATION = 0x0112
#: A mask whose largest value is not above this numbers its objects: every value but 0 is foreground.
_NUMBERED = 15
#: So many colours or fewer number the objects of a mask; the shades of soft edges are more.
_COLOURS = 16


class Fact(IntFlag):
    """What was done to a picture on the way from its file, or is notable about it."""

    TURNED = 1
    TRANSPARENT = 2
    FRAMES = 4
    DIM = 8
    UNIT_SCALE = 16
    BYTE_SCALE = 32
    WORD_SCALE = 64


#: Facts about pictures whose format does not say what white is.
SCALES = {
    grey_scale.Scale.UNIT: Fact.UNIT_SCALE,
    grey_scale.Scale.BYTE: Fact.BYTE_SCALE,
    grey_scale.Scale.WORD: Fact.WORD_SCALE,
}


@contextmanager
def open_picture(path: Path) -> Iterator[Image]:
    """A file opened by Pillow.

    Pillow gets an open file and no name: by its name it would map uncompressed TIFF into memory, and it scrambles the
    pixels of those whose orientation exchanges width and height (seen in Pillow 13.0). Nor does it compare the
    checksums of a PNG's pixels unless it is asked to.

    Raises:
        OSError: it is no picture, has more pixels than Pillow takes for sound, or is a PNG with a wrong checksum.
    """
    from PIL import Image

    with path.open("rb") as file:
        try:
            opened = Image.open(file)
            if opened.format == "PNG":
                opened.verify()  # after which the file must be opened again
                file.seek(0)
                opened = Image.open(file)
        except Image.DecompressionBombError as error:
            raise OSError(str(error)) from None
        except SyntaxError as error:  # from verify()
            raise OSError(f"damaged: {error}") from None
        with opened:
            yield opened


def prepared(opened: Image) -> Fact:
    """Load the first frame of a file. A plain JPEG is not loaded yet, since it may be decoded at a reduced size.

    A JPEG with a second image (format MPO: a preview, or depth) counts as one picture.

    Returns:
        Whether there are other frames, and whether Pillow turned it, which it does with TIFF.
    """
    if opened.format == "JPEG":
        return Fact(0)
    several = opened.format != "MPO" and bool(getattr(opened, "is_animated", False))
    turns = opened.format == "TIFF" and orientation(opened) > 1
    opened.load()
    turned_by_pillow = turns and orientation(opened) == 1
    return (Fact.FRAMES if several else Fact(0)) | (Fact.TURNED if turned_by_pillow else Fact(0))


def orientation(opened: Image) -> int:
    """The EXIF orientation of a file, 1 to 8; 1 where there is none, or no valid one.

    Ask after ``prepared``: PNG may store EXIF behind the pixels, and what Pillow turned has no orientation any more.
    """
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return value if value in range(1, 9) else 1


def turned(image: Image, orientation: int) -> Image:
    """A picture upright, from its EXIF orientation."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image if orientation == 1 else image.transpose(methods[orientation])


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture once it is turned."""
    return size if orientation < 5 else size[::-1]


def is_transparent(image: Image) -> bool:
    """Whether a picture stores transparency, in whichever way; its pixels may still be opaque."""
    palette = image.palette.mode if image.palette is not None else ""
    return (
        image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
        or "transparency" in image.info
        or palette.endswith("A")
    )


def flattened(image: Image) -> tuple[Image, Fact]:
    """A picture of eight bits without transparency: what is behind it is ``GROUND``."""
    from PIL.Image import alpha_composite, new

    if not is_transparent(image):
        return image, Fact(0)
    image = with_alpha(image)
    if np.asarray(image.getchannel("A")).min() == 255:
        return image.convert("RGB"), Fact(0)
    ground = new("RGBA", image.size, (GROUND, GROUND, GROUND, 255))
    return alpha_composite(ground, image).convert("RGB"), Fact.TRANSPARENT


def with_alpha(image: Image) -> Image:
    """A picture of eight bits in the mode RGBA."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def deep_grey(image: Image, bits: int, equalised: bool) -> tuple[np.ndarray, Fact]:
    """The grey values of a picture in one of the modes ``DEEP``, uint8[H,W], and what was notable.

    Args:
        image: loaded.
        bits: how many bits of a 16-bit value are in use.
        equalised: equalise the histogram, which needs no scale.

    Raises:
        ValueError: a pixel is not a finite number, or the values fit no scale.
    """
    values = np.asarray(image)
    transparent = Fact(0)
    if "transparency" in image.info and values.dtype.kind == "u":
        clear = values == image.info["transparency"]
        values = np.where(clear, values.dtype.type(2**bits - 1), values)
        transparent = Fact.TRANSPARENT if clear.any() else transparent
    if equalised:
        return grey_scale.equalise(grey_scale.ranked(values)), transparent
    if values.dtype.kind == "u" or image.format in ("PNG", "PPM"):
        grey = grey_scale.to_eight_bits(values, bits)
        scale = Fact(0)
    else:
        found = grey_scale.scale_of(values)
        grey, scale = grey_scale.scaled(values, found, bits), SCALES[found]
    dim = Fact.DIM if int(grey.max()) - int(grey.min()) < grey_scale.DIM else Fact(0)
    return grey, transparent | scale | dim


def foreground(image: Image) -> np.ndarray:
    """How much each pixel of a mask belongs to the foreground, float32[H,W], 255 for the largest value.

    Brightness says it, whatever its largest value is. Transparent pixels are background; where all that can be seen
    is black, the opacity says it. Where values or colours number objects (a largest value of 15 or less, a palette with
    colours, 16 colours or fewer), all but 0 and black is foreground.

    Args:
        image: loaded.

    Raises:
        ValueError: a pixel is not a finite number.
    """
    if image.mode in DEEP:
        values = np.asarray(image).astype(np.float32)
        grey_scale.check_finite(values)
        values = values.clip(0)
    else:
        values = _brightness(_seen_on_black(image) if is_transparent(image) else image)
    largest = float(values.max())
    if largest <= _NUMBERED and (values == values.round()).all():
        return (values > 0) * np.float32(255)
    return values * np.float32(255 / largest)


def _seen_on_black(image: Image) -> Image:
    """A mask with transparency in front of black, or its opacity where everything in it is black."""
    from PIL.Image import alpha_composite, new

    image = with_alpha(image)
    alpha = image.getchannel("A")
    black = new("RGBA", image.size, (0, 0, 0, 255))
    seen = alpha_composite(black, image).convert("RGB")
    clear = np.asarray(alpha).min() < 255
    return alpha if seen.getbbox() is None and clear else seen


def _brightness(image: Image) -> np.ndarray:
    """The largest of the three colours of each pixel, float32[H,W], or 0 and 1 where colours number objects."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.float32)
    colours = image.convert("RGB")
    array = np.asarray(colours)
    values = array.max(axis=2).astype(np.float32)
    numbered = image.mode == "P" or colours.getcolors(_COLOURS) is not None
    if numbered and (array != array[..., :1]).any():
        return (values > 0).astype(np.float32)
    return values
