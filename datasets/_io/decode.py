"""Pictures from files: PNG, JPEG and whatever else Pillow reads, 16-bit PNG, and DICOM; each at its final size."""

from __future__ import annotations

import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Raise it when the same recipe gives other pixels.
VERSION = 1
#: A JPEG may be decoded at a reduced size that is at least so many times the final one: Pillow's documentation calls
#: the result of a ``reducing_gap`` of 3 almost the same as that of a fair resampling.
GAP = 3.0
_DICOM = (".dcm", ".dicom")
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError)


@dataclass(frozen=True)
class Recipe:
    """How a file becomes an array; part of the key of what is kept.

    Args:
        side: height and width, pixels.
        channels: 3 for colour, 1 for grey.
        fit: ``stretch`` to the square; ``crop`` the largest square in the middle; ``pad`` to the smallest enclosing
            square, with black.
        middle: side of a square in the middle that is cut out first, in pixels of the file; 0 for none.
        equalise: equalise the histogram of grey values, before anything else.
        cutout: ``image`` has a fourth channel, how much of each pixel is foreground.
    """

    side: int
    channels: int = 3
    fit: str = "stretch"
    middle: int = 0
    equalise: bool = False
    cutout: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "version": VERSION}


def read_image(path: Path, recipe: Recipe) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture uint8[C,side,side], and the width and height of its file.

    Raises:
        UserError: the file is missing or damaged, or pydicom is needed and not installed.
    """
    try:
        if path.suffix.lower() in _DICOM:
            image, size = _grey(_dicom(path), recipe), None
        else:
            image, size = _open(path, recipe)
        fitted = np.asarray(_fit(image, recipe, size or image.size))
    except _UNREADABLE as error:
        raise unreadable(path, error) from None
    array = fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
    return array, size or image.size


def read_mask(path: Path, recipe: Recipe, size: tuple[int, int]) -> np.ndarray:
    """A mask bool[1,side,side]: True where the file has more than half of its own largest value.

    So a mask may hold 0 and 1, 0 and 255, or shades between them. It is fitted as its image is.

    Args:
        size: width and height of the image, which the mask must have too.

    Raises:
        UserError: the file is missing or damaged, or has another size than its image.
    """
    return fit_mask(mask_image(path, size), recipe)


def mask_image(path: Path, size: tuple[int, int]) -> Image:
    """A mask as a grey picture, 0 for background and 255 for the largest value in the file."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            values = np.asarray(
                opened if opened.mode in ("1", "L", "I;16", "I", "F") else opened.convert("L")
            )
    except _UNREADABLE as error:
        raise unreadable(path, error) from None
    if values.shape[::-1] != size:
        raise UserError(
            f"the mask {path} has {values.shape[1]}×{values.shape[0]} pixels but its image {size[0]}×{size[1]}; "
            "a mask must have the size of its image."
        )
    values = values.astype(np.float32)
    return Image.fromarray(
        (values * (255 / max(float(values.max()), 1e-9))).round().astype(np.uint8)
    )


def fit_mask(mask: Image, recipe: Recipe) -> np.ndarray:
    """A grey mask as bool[1,side,side]."""
    return np.asarray(_fit(mask, recipe, mask.size))[None] > 127  # type: ignore[no-any-return]


def fit_shades(mask: Image, recipe: Recipe) -> np.ndarray:
    """A grey mask as uint8[1,side,side], its edges soft."""
    return np.asarray(_fit(mask, recipe, mask.size))[None]


def equalise(grey: np.ndarray) -> np.ndarray:
    """Histogram equalisation: each value becomes the share of pixels that are not above it, from 0 to 255.

    With c(v) the number of pixels of value v or less, and v₀ the lowest value: round(255·(c(v) − c(v₀))/(n − c(v₀))).
    A picture of one value is returned black.

    Args:
        grey: unsigned integers of any depth, [H,W]; 16 bits keep all of their levels.
    """
    counts = np.bincount(grey.reshape(-1)).cumsum()
    lowest = counts[counts > 0][0]
    scale = 255 / (counts[-1] - lowest) if counts[-1] > lowest else 0.0
    table = ((counts - lowest).clip(0) * scale).round().astype(np.uint8)
    return table[grey]  # type: ignore[no-any-return]


def unreadable(path: Path, error: BaseException) -> UserError:
    """The sentence about a file that is not the picture it should be."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is not there; restore it, or take it out of the list of files.")
    why = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path} cannot be read as a picture ({why}); replace it, or take it out of the list of files."
    )


def _open(path: Path, recipe: Recipe) -> tuple[Image, tuple[int, int]]:
    """A picture in the mode that the recipe wants, perhaps at a reduced size, and the size of its file."""
    from PIL import Image

    try:
        opened = Image.open(path)
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None
    with opened:
        size = opened.size
        deep = opened.mode.startswith(("I", "F"))
        if recipe.channels == 1 or deep:
            grey = _grey(
                np.asarray(opened if deep or opened.mode in ("1", "L") else opened.convert("L")),
                recipe,
            )
            return (grey if recipe.channels == 1 else grey.convert("RGB")), size
        if opened.format == "JPEG":
            box = _box(size, recipe)
            shorter = min(box[2] - box[0], box[3] - box[1])
            factor = max((k for k in (1, 2, 4, 8) if shorter >= k * GAP * recipe.side), default=1)
            if factor > 1:
                opened.draft("RGB", (size[0] // factor, size[1] // factor))
        return opened.convert("RGB"), size


def _grey(values: np.ndarray, recipe: Recipe) -> Image:
    """Grey values of any depth as an 8-bit picture: equalised, or else those of more than 8 bits from darkest to
    brightest."""
    from PIL import Image

    if values.ndim != 2:
        raise ValueError(f"it holds {values.ndim} dimensions, expected one picture of two")
    if values.dtype == np.bool_:
        values = np.where(values, np.uint8(255), np.uint8(0))
    if values.dtype != np.uint8:
        values = values.astype(np.float64)
        low, high = float(values.min()), float(values.max())
        levels = 65535 if recipe.equalise else 255
        values = (
            ((values - low) * (levels / (high - low) if high > low else 0))
            .round()
            .astype(np.uint16)
        )
    return Image.fromarray(equalise(values) if recipe.equalise else values.astype(np.uint8))


def _dicom(path: Path) -> np.ndarray:
    """Grey values of a DICOM file, [H,W], bright for dense tissue."""
    try:
        import pydicom
    except ImportError:
        raise UserError(
            f"{path} is a DICOM file, and pydicom, which reads them, is not installed; "
            "`pip install 'shortcutbed[dicom]'` adds it."
        ) from None
    try:
        data = pydicom.dcmread(path)
        values = np.asarray(data.pixel_array)
    except FileNotFoundError:
        raise
    except Exception as error:  # pydicom and its decoders raise what they like
        raise ValueError(str(error)) from None
    if (
        str(getattr(data, "PhotometricInterpretation", "")) == "MONOCHROME1"
    ):  # the brightest value means black
        values = values.max() - values
    return values


def _box(size: tuple[int, int], recipe: Recipe) -> tuple[float, float, float, float]:
    """The part of a file of this size that is shown: left, top, right, bottom."""
    width, height = size
    if recipe.middle:
        shown_width, shown_height = min(recipe.middle, width), min(recipe.middle, height)
    elif recipe.fit == "crop":
        shown_width = shown_height = min(size)
    else:
        return 0, 0, width, height
    left, top = (width - shown_width) // 2, (height - shown_height) // 2
    return left, top, left + shown_width, top + shown_height


def _fit(image: Image, recipe: Recipe, size: tuple[int, int]) -> Image:
    """The picture at its final size.

    Args:
        image: perhaps decoded at a reduced size; size: that of its file.
    """
    from PIL import Image

    side = (recipe.side, recipe.side)
    if recipe.fit == "pad" and image.width != image.height:
        longer = max(image.size)
        square = Image.new(image.mode, (longer, longer))
        square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
        image, size = square, square.size
    left, top, right, bottom = _box(size, recipe)
    across, down = image.width / size[0], image.height / size[1]
    box = (left * across, top * down, right * across, bottom * down)
    if all(
        number == int(number) for number in box
    ):  # cut first, so that nothing outside the box has an influence
        image = image.crop(tuple(map(int, box)))  # type: ignore[arg-type]
        return (
            image
            if image.size == side
            else image.resize(side, Image.Resampling.BILINEAR, reducing_gap=GAP)
        )
    return image.resize(side, Image.Resampling.BILINEAR, box=box, reducing_gap=GAP)
