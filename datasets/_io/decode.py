"""Pictures from files: PNG, JPEG and whatever else Pillow reads, 16-bit PNG, and DICOM; each at its final size.

A picture is what a viewer shows: upright as EXIF says, the first of several frames, transparent pixels on white
(``pixels.GROUND``), 16-bit values by their upper eight bits, on the same scale in every picture. Colour profiles (ICC)
and DICOM's windows are not applied; CMYK becomes RGB by Pillow's plain formula.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmark.core.errors import UserError
from datasets._io import grey_scale, pixels
from datasets._io.grey_scale import equalise as equalise
from datasets._io.pixels import UNREADABLE, Fact

if TYPE_CHECKING:
    from PIL.Image import Image

#: Raise it when the same recipe gives other pixels.
VERSION = 2
#: A JPEG may be decoded at a reduced size that is at least so many times the final one: Pillow's documentation calls
#: the result of a ``reducing_gap`` of 3 almost the same as that of a fair resampling.
GAP = 3.0
#: Pixels of a padded square at most; a picture that would need more is reduced before it is padded.
MOST_PADDED = 180_000_000
_DICOM = (".dcm", ".dicom")


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
        upright: turn pictures as their EXIF orientation says; False where outlines are known in stored pixels.
        bits: how many bits of a 16-bit grey value are in use; 12 for many X-rays. DICOM files say it themselves.
    """

    side: int
    channels: int = 3
    fit: str = "stretch"
    middle: int = 0
    equalise: bool = False
    cutout: bool = False
    upright: bool = True
    bits: int = 16

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "version": VERSION}


class Decoded(NamedTuple):
    """A picture uint8[C,side,side], width and height of its file when upright, and what was notable about it."""

    image: np.ndarray
    size: tuple[int, int]
    facts: Fact


def read_image(path: Path, recipe: Recipe) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture uint8[C,side,side], and the width and height of its file when it is upright.

    Raises:
        UserError: the file is missing or damaged, its values are on no known scale, or pydicom is needed and not
            installed.
    """
    decoded = decode_picture(path, recipe)
    return decoded.image, decoded.size


def decode_picture(path: Path, recipe: Recipe) -> Decoded:
    """``read_image``, and what was notable about the file.

    Raises:
        UserError: as ``read_image``.
    """
    try:
        if path.suffix.lower() in _DICOM:
            image, facts = _dicom_picture(path, recipe)
            size = image.size
        else:
            image, size, facts = _open(path, recipe)
        fitted = np.asarray(_fit(image, recipe, size))
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    array = fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
    return Decoded(array, size, facts)


def read_mask(path: Path, recipe: Recipe, size: tuple[int, int]) -> np.ndarray:
    """A mask bool[1,side,side]: True where the file has more than half of its own largest value.

    So a mask may hold 0 and 1, 0 and 255, or shades between them; ``pixels.foreground`` says what transparency and
    colours mean. It is turned as its own EXIF orientation says, and fitted as its image is.

    Args:
        size: width and height of the image when upright, which the mask must have too.

    Raises:
        UserError: the file is missing or damaged, or has another size than its image.
    """
    return fit_mask(mask_image(path, size), recipe)


def mask_image(path: Path, size: tuple[int, int]) -> Image:
    """A mask as a grey picture, 0 for background and 255 for the largest value in the file."""
    from PIL import Image

    try:
        with pixels.open_picture(path) as opened:
            pixels.prepared(opened)
            orientation = pixels.orientation(opened)
            opened.load()
            values = pixels.foreground(opened)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    mask = pixels.turned(Image.fromarray(values.round().astype(np.uint8)), orientation)
    if mask.size != size:
        turned = mask.size == size[::-1] and size[0] != size[1]
        why = " (perhaps the image is stored lying and turned by its EXIF data)" if turned else ""
        raise UserError(
            f"the mask {path} has {mask.width}×{mask.height} pixels but its image {size[0]}×{size[1]}{why}; "
            "a mask must have the size of its image as viewers show it."
        )
    return mask


def fit_mask(mask: Image, recipe: Recipe) -> np.ndarray:
    """A grey mask as bool[1,side,side]."""
    return np.asarray(_fit(mask, recipe, mask.size))[None] > 127  # type: ignore[no-any-return]


def fit_shades(mask: Image, recipe: Recipe) -> np.ndarray:
    """A grey mask as uint8[1,side,side], its edges soft."""
    return np.asarray(_fit(mask, recipe, mask.size))[None]


def unreadable(path: Path, error: BaseException) -> UserError:
    """The sentence about a file that is not the picture it should be."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is not there; restore it, or take it out of the list of files.")
    why = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path} cannot be read as a picture ({why}); replace it, or take it out of the list of files."
    )


def _open(path: Path, recipe: Recipe) -> tuple[Image, tuple[int, int], Fact]:
    """A picture upright and in the mode that the recipe wants, perhaps at a reduced size, and the size of its file."""
    from PIL import Image

    with pixels.open_picture(path) as opened:
        facts = pixels.prepared(opened)
        orientation = pixels.orientation(opened) if recipe.upright else 1
        size = pixels.upright_size(opened.size, orientation)
        if opened.mode in pixels.DEEP:
            opened.load()
            values, notable = pixels.deep_grey(opened, recipe.bits, recipe.equalise)
            image = Image.fromarray(values)
        else:
            if opened.format == "JPEG" and recipe.channels == 3:
                _draft(opened, size, recipe)
            image, notable = pixels.flattened(opened)
            if recipe.channels == 1:
                image = image.convert("L")
                if recipe.equalise:
                    image = Image.fromarray(equalise(np.asarray(image)))
        if recipe.channels == 3 and image.mode != "RGB":
            image = image.convert("RGB")
        elif image is opened:  # a grey picture; the file is closed on return
            image = opened.copy()
        image = pixels.turned(image, orientation)
    return image, size, facts | notable | (Fact.TURNED if orientation > 1 else Fact(0))


def _draft(opened: Any, size: tuple[int, int], recipe: Recipe) -> None:
    """Have a JPEG decoded at a reduced size where that is still large enough."""
    box = _box(size, recipe)
    shorter = min(box[2] - box[0], box[3] - box[1])
    factor = max((k for k in (1, 2, 4, 8) if shorter >= k * GAP * recipe.side), default=1)
    if factor > 1:
        opened.draft("RGB", (opened.width // factor, opened.height // factor))


def _dicom_picture(path: Path, recipe: Recipe) -> tuple[Image, Fact]:
    """The grey picture of a DICOM file in the mode that the recipe wants, bright for dense tissue."""
    from PIL import Image

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
        bits, signed = int(data.BitsStored), bool(data.PixelRepresentation)
    except FileNotFoundError:
        raise
    except Exception as error:  # pydicom and its decoders raise what they like
        raise ValueError(str(error)) from None
    kind = str(getattr(data, "PhotometricInterpretation", ""))
    if values.ndim != 2 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"it holds {values.ndim} dimensions of kind {kind or 'unknown'}, expected one grey picture of two"
        )
    values = values.astype(np.int64) + (1 << (bits - 1) if signed else 0)
    if kind == "MONOCHROME1":  # the brightest value means black
        values = (1 << bits) - 1 - values
    if recipe.equalise:
        grey, facts = equalise(grey_scale.ranked(values)), Fact(0)
    else:
        grey = grey_scale.to_eight_bits(values, bits)
        dim = bits > 8 and int(grey.max()) - int(grey.min()) < grey_scale.DIM
        facts = Fact.DIM if dim else Fact(0)
    image = Image.fromarray(grey)
    return (image if recipe.channels == 1 else image.convert("RGB")), facts


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
        if longer**2 > MOST_PADDED:
            image = image.reduce(max(1, int(longer / (GAP * recipe.side))))
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
