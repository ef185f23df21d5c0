"""Conversion of stored pixels to the image that a viewer shows.

Images are turned upright, put on a white background and reduced to eight bits and their first
frame.
"""

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

#: The grey value behind transparent pixels: white.
BACKGROUND = 255
#: Exceptions that Pillow raises on damaged files. Its AVIF decoder raises a RuntimeError.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    OverflowError,
    RuntimeError,
    MemoryError,
)
#: Pillow's modes of grey values with more than eight bits.
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_ORIENTATION_TAG = 0x0112
#: A mask whose largest value is at most this numbers its objects: all values except 0 are
#: foreground.
_MAX_OBJECT_NUMBER = 15
#: A mask with at most this many colours numbers its objects by colour. Soft edges have more shades.
_MAX_OBJECT_COLOURS = 16


class ImageFact(IntFlag):
    """Conversions that an image went through, and other notable properties of its file."""

    TURNED = 1
    TRANSPARENT = 2
    FRAMES = 4
    DIM = 8
    UNIT_SCALE = 16
    BYTE_SCALE = 32
    WORD_SCALE = 64


#: The facts about images whose format does not define the value of white.
SCALE_FACTS = {
    grey_scale.Scale.UNIT: ImageFact.UNIT_SCALE,
    grey_scale.Scale.BYTE: ImageFact.BYTE_SCALE,
    grey_scale.Scale.WORD: ImageFact.WORD_SCALE,
}


@contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """Open an image file with Pillow.

    Pillow is given an open file instead of a path. Given a path, it maps uncompressed TIFF files
    into memory and scrambles the pixels of those whose orientation swaps width and height (seen in
    Pillow 13.0). Pillow compares the checksums of PNG pixels only on request.

    Raises:
        OSError: If the file is not an image, has more pixels than Pillow accepts, or is a PNG with
            a wrong checksum.
    """
    from PIL import Image

    with path.open("rb") as file:
        try:
            opened = Image.open(file)
            if opened.format == "PNG":
                opened.verify()  # A verified image must be opened again.
                file.seek(0)
                opened = Image.open(file)
        except Image.DecompressionBombError as error:
            raise OSError(str(error)) from None
        except SyntaxError as error:  # from verify()
            raise OSError(f"damaged: {error}") from None
        with opened:
            yield opened


def load_first_frame(opened: Image) -> ImageFact:
    """Load the first frame of a file.

    A plain JPEG is not loaded yet because it may be decoded at a reduced size. A JPEG with a second
    image (format MPO, such as a preview) counts as a single image.

    Returns:
        FRAMES if there are other frames, and TURNED if Pillow turned the image, which it does for
        TIFF.
    """
    facts = ImageFact(0)
    if opened.format == "JPEG":
        return facts
    if opened.format != "MPO" and getattr(opened, "is_animated", False):
        facts |= ImageFact.FRAMES
    needs_turning = opened.format == "TIFF" and read_orientation(opened) > 1
    opened.load()
    if needs_turning and read_orientation(opened) == 1:
        facts |= ImageFact.TURNED
    return facts


def read_orientation(opened: Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none or it is invalid.

    Call it after ``load_first_frame``: PNG may store EXIF after the pixels, and an image that
    Pillow turned has no orientation any more.
    """
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except UNREADABLE:
        return 1
    return value if value in range(1, 9) else 1


def turn_upright(image: Image, orientation: int) -> Image:
    """Turn an image according to its EXIF orientation."""
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
    """Return the width and height of an image after it is turned."""
    return size if orientation < 5 else size[::-1]


def is_transparent(image: Image) -> bool:
    """Return True if an image stores transparency in any form; its pixels may still be opaque."""
    palette = image.palette.mode if image.palette is not None else ""
    return (
        image.mode in ("RGBA", "RGBa", "LA", "La", "PA")
        or "transparency" in image.info
        or palette.endswith("A")
    )


def flatten(image: Image) -> tuple[Image, ImageFact]:
    """Put an eight-bit image on the white background, and report whether that changed it."""
    from PIL.Image import alpha_composite, new

    if not is_transparent(image):
        return image, ImageFact(0)
    image = with_alpha(image)
    if np.asarray(image.getchannel("A")).min() == 255:
        return image.convert("RGB"), ImageFact(0)
    background = new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
    return alpha_composite(background, image).convert("RGB"), ImageFact.TRANSPARENT


def with_alpha(image: Image) -> Image:
    """Convert an eight-bit image to the mode RGBA."""
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def deep_grey_values(
    image: Image, bits: int, *, equalised: bool = False
) -> tuple[np.ndarray, ImageFact]:
    """Convert an image in one of the modes ``DEEP_MODES`` to eight bits.

    Args:
        image: A loaded image.
        bits: The number of bits of a 16-bit value that are in use.
        equalised: Equalise the histogram, for which no scale is needed.

    Returns:
        uint8[H,W], and the facts about the image.

    Raises:
        ValueError: If a pixel is not finite, or the values fit no scale.
    """
    values = np.asarray(image)
    facts = ImageFact(0)
    if "transparency" in image.info and values.dtype.kind == "u":
        transparent = values == image.info["transparency"]
        values = np.where(transparent, values.dtype.type(2**bits - 1), values)
        if transparent.any():
            facts |= ImageFact.TRANSPARENT
    if equalised:
        return grey_scale.equalise(grey_scale.to_unsigned(values)), facts
    if values.dtype.kind == "u" or image.format in ("PNG", "PPM"):
        grey = grey_scale.to_eight_bits(values, bits)
    else:
        scale = grey_scale.detect_scale(values)
        grey = grey_scale.rescale(values, scale, bits)
        facts |= SCALE_FACTS[scale]
    if int(grey.max()) - int(grey.min()) < grey_scale.DIM_LEVELS:
        facts |= ImageFact.DIM
    return grey, facts


def foreground(image: Image) -> np.ndarray:
    """Return the degree to which each pixel of a mask belongs to the foreground.

    It is the brightness, relative to the brightest pixel. Transparent pixels are background. If all
    visible pixels are black, the opacity is used instead. If values or colours number the objects
    (a largest value of 15 or less, a palette with colours, or at most 16 colours), all pixels
    except black ones are foreground.

    Args:
        image: A loaded mask.

    Returns:
        float32[H,W], 255 for the largest value.

    Raises:
        ValueError: If a pixel is not finite.
    """
    if image.mode in DEEP_MODES:
        values = np.asarray(image).astype(np.float32)
        grey_scale.check_finite(values)
        values = values.clip(0)
    else:
        values = _brightness(_on_black(image) if is_transparent(image) else image)
    largest = float(values.max())
    if largest <= _MAX_OBJECT_NUMBER and (values == values.round()).all():
        return (values > 0) * np.float32(255)
    return values * np.float32(255 / largest)


def _on_black(image: Image) -> Image:
    """Put a transparent mask on black; return its opacity if everything in it is black."""
    from PIL.Image import alpha_composite, new

    image = with_alpha(image)
    alpha = image.getchannel("A")
    black = new("RGBA", image.size, (0, 0, 0, 255))
    visible = alpha_composite(black, image).convert("RGB")
    has_transparent_pixels = np.asarray(alpha).min() < 255
    return alpha if visible.getbbox() is None and has_transparent_pixels else visible


def _brightness(image: Image) -> np.ndarray:
    """Return the largest of the three colours, float32[H,W]; 0 and 1 if colours number objects."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")).astype(np.float32)
    colours = image.convert("RGB")
    array = np.asarray(colours)
    values = array.max(axis=2).astype(np.float32)
    few_colours = image.mode == "P" or colours.getcolors(_MAX_OBJECT_COLOURS) is not None
    if few_colours and (array != array[..., :1]).any():
        return (values > 0).astype(np.float32)
    return values
