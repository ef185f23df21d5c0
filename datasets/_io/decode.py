"""Decoding of image files: PNG, JPEG and other formats of Pillow, 16-bit PNG, and DICOM.

An image is decoded to what a viewer shows, at its final size: upright according to EXIF, the first
of several frames, transparent pixels on white, and the upper eight bits of 16-bit values, on the
same scale for all images. Colour profiles (ICC) and DICOM windows are not applied. CMYK is
converted to RGB by Pillow's plain formula.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmark.core.class_masks import RelativeBox
from benchmark.core.errors import UserError
from datasets._io import grey_scale, pixels
from datasets._io.pixels import UNREADABLE, ImageFact

if TYPE_CHECKING:
    from PIL.Image import Image

#: Increase it if the same recipe produces different pixels.
VERSION = 2
#: A JPEG may be decoded at a reduced size of at least this multiple of the final one. Pillow's
#: documentation calls a ``reducing_gap`` of 3 nearly indistinguishable from exact resampling.
REDUCING_GAP = 3.0
#: The largest number of pixels of a padded square. Larger images are reduced before padding.
MAX_PADDED_PIXELS = 180_000_000
_DICOM_ENDINGS = (".dcm", ".dicom")


@dataclass(frozen=True)
class Recipe:
    """The conversion of a file to an array. It is part of the key of cached images.

    Args:
        side: Height and width in pixels.
        channels: 3 for colour, 1 for grey.
        fit: ``stretch`` to the square; ``crop`` the largest central square; ``pad`` to the smallest
            enclosing square, with black.
        middle: Side of a central square that is cropped first, in pixels of the file; 0 for none.
        equalise: Equalise the histogram of grey values before anything else.
        cutout: Add a fourth channel with the share of foreground in each pixel.
        upright: Turn images according to their EXIF orientation. False if outlines refer to the
            stored pixels.
        bits: The number of bits of a 16-bit grey value that are in use, such as 12 for many X-rays.
            DICOM files declare it themselves.
        border: The number of pixels of the file that are cut off at each edge before anything else.
        share: With ``crop``, the share of the side of the square that is kept, around its centre.
            224/256 is the usual evaluation of ImageNet: resize to 256, crop 224.
    """

    side: int
    channels: int = 3
    fit: str = "stretch"
    middle: int = 0
    equalise: bool = False
    cutout: bool = False
    upright: bool = True
    bits: int = 16
    border: int = 0
    share: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the version of the decoder.

        Fields that earlier versions did not have are left out at their defaults, so that images
        that were cached by those are found.
        """
        value = {**asdict(self), "version": VERSION}
        for name, default in (("border", 0), ("share", 1.0)):
            if value[name] == default:
                del value[name]
        return value


class DecodedImage(NamedTuple):
    """A decoded image.

    Attributes:
        image: uint8[C,side,side].
        size: Width and height of the file, after turning upright.
        facts: Notable properties of the file.
    """

    image: np.ndarray
    size: tuple[int, int]
    facts: ImageFact


def read_image(path: Path, recipe: Recipe) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image.

    Returns:
        uint8[C,side,side], and the width and height of the file after turning upright.

    Raises:
        UserError: If the file is missing or damaged, its values fit no known scale, or pydicom is
            needed and not installed.
    """
    decoded = decode_image(path, recipe)
    return decoded.image, decoded.size


def decode_image(path: Path, recipe: Recipe) -> DecodedImage:
    """Decode an image and collect the facts about its file.

    Raises:
        UserError: As for ``read_image``.
    """
    try:
        if path.suffix.lower() in _DICOM_ENDINGS:
            image, facts = _open_dicom(path, recipe)
            size = image.size
        else:
            image, size, facts = _open(path, recipe)
        fitted = np.asarray(_fit(image, recipe, size))
    except UNREADABLE as error:
        raise unreadable_image(path, error) from None
    array = fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
    return DecodedImage(array, size, facts)


def decode_array(array: np.ndarray, recipe: Recipe) -> DecodedImage:
    """Decode an image that is stored as an array instead of a file.

    Args:
        array: uint8[H,W,3].
        recipe: The conversion.
    """
    from PIL import Image

    image = Image.fromarray(array)
    if recipe.channels == 1:
        image = image.convert("L")
    fitted = np.asarray(_fit(image, recipe, image.size))
    fitted = fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)
    return DecodedImage(fitted, image.size, ImageFact(0))


def convert_image(image: Image, recipe: Recipe, name: str) -> np.ndarray:
    """Convert an image in memory as ``read_image`` converts the image of a file.

    Args:
        image: An image of Pillow.
        recipe: The conversion.
        name: Name of the image, for messages.

    Returns:
        uint8[C,side,side].

    Raises:
        UserError: If the image cannot be decoded, or its values fit no known scale.
    """
    try:
        # A JPEG that is decoded at a reduced size would change the image of the caller.
        upright, size, _ = _convert(image.copy() if image.format == "JPEG" else image, recipe)
        fitted = np.asarray(_fit(upright, recipe, size))
    except UNREADABLE as error:
        raise unreadable_image(Path(name), error) from None
    return fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1)


def read_mask(path: Path, size: tuple[int, int]) -> Image:
    """Read a mask file.

    Args:
        path: The mask file.
        size: Width and height of its image after turning upright.

    Returns:
        A grey Pillow image, 0 for background and 255 for the largest value in the file.

    Raises:
        UserError: If the file is missing or damaged, or its size differs from that of the image.
    """
    from PIL import Image

    try:
        with pixels.open_image(path) as opened:
            pixels.load_first_frame(opened)
            orientation = pixels.read_orientation(opened)
            opened.load()
            values = pixels.foreground(opened)
    except UNREADABLE as error:
        raise unreadable_image(path, error) from None
    mask = pixels.turn_upright(Image.fromarray(values.round().astype(np.uint8)), orientation)
    check_mask_size(mask, path, size)
    return mask


def read_class_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a PNG whose pixels are class numbers, R + 256·G, such as the masks of ImageNet-S.

    Args:
        path: The file.
        size: Width and height of its image.

    Returns:
        int64[height,width].

    Raises:
        UserError: If the file is missing or damaged, or its size differs from that of the image.
    """
    from PIL import Image

    try:
        with pixels.open_image(path) as opened:
            array = np.asarray(opened.convert("RGB"))
    except UNREADABLE as error:
        raise unreadable_image(path, error) from None
    check_mask_size(Image.fromarray(array), path, size)
    return array[..., :2].astype(np.int64) @ np.array([1, 256])


def check_mask_size(mask: Image, path: Path, size: tuple[int, int]) -> None:
    """Raise a UserError if a mask does not have the size of its image."""
    if mask.size != size:
        swapped = mask.size == size[::-1] and size[0] != size[1]
        hint = " (perhaps the image is turned by its EXIF orientation)" if swapped else ""
        raise UserError(
            f"the mask {path} has {mask.width}×{mask.height} pixels but its image "
            f"{size[0]}×{size[1]}{hint}; a mask must have the size of its image as viewers show it."
        )


def fit_mask(mask: Image, recipe: Recipe) -> np.ndarray:
    """Fit a grey mask like its image and threshold it at one half, bool[1,side,side]."""
    return fit_soft_mask(mask, recipe) > 127


def fit_soft_mask(mask: Image, recipe: Recipe) -> np.ndarray:
    """Fit a grey mask like its image and keep the soft edges, uint8[1,side,side]."""
    return np.asarray(_fit(mask, recipe, mask.size))[None]


def unreadable_image(path: Path, error: BaseException) -> UserError:
    """Return the error for a file that cannot be decoded."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} does not exist; restore it or remove it from the list of files.")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path} cannot be read as an image ({reason}); replace it or remove it from the list of "
        "files."
    )


def _open(path: Path, recipe: Recipe) -> tuple[Image, tuple[int, int], ImageFact]:
    """Return the upright image, perhaps at a reduced size, the size of the file, and the facts."""
    with pixels.open_image(path) as opened:
        return _convert(opened, recipe)


def _convert(opened: Image, recipe: Recipe) -> tuple[Image, tuple[int, int], ImageFact]:
    """Return what ``_open`` returns, for an opened image."""
    from PIL import Image

    facts = pixels.load_first_frame(opened)
    orientation = pixels.read_orientation(opened) if recipe.upright else 1
    size = pixels.upright_size(opened.size, orientation)
    if opened.mode in pixels.DEEP_MODES:
        opened.load()
        values, more_facts = pixels.deep_grey_values(opened, recipe.bits, equalised=recipe.equalise)
        image = Image.fromarray(values)
    else:
        if opened.format == "JPEG" and recipe.channels == 3:
            _reduce_jpeg(opened, size, recipe)
        image, more_facts = pixels.flatten(opened)
        if recipe.channels == 1:
            image = image.convert("L")
            if recipe.equalise:
                image = Image.fromarray(grey_scale.equalise(np.asarray(image)))
    if recipe.channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    elif image is opened:  # The file is closed on return.
        image = opened.copy()
    image = pixels.turn_upright(image, orientation)
    facts |= more_facts
    if orientation > 1:
        facts |= ImageFact.TURNED
    return image, size, facts


def _reduce_jpeg(opened: Any, size: tuple[int, int], recipe: Recipe) -> None:
    """Let Pillow decode a JPEG at a reduced size if that is large enough."""
    left, top, right, bottom = _box(size, recipe)
    shorter = min(right - left, bottom - top)
    factors = (k for k in (1, 2, 4, 8) if shorter >= k * REDUCING_GAP * recipe.side)
    factor = max(factors, default=1)
    if factor > 1:
        opened.draft("RGB", (opened.width // factor, opened.height // factor))


def _open_dicom(path: Path, recipe: Recipe) -> tuple[Image, ImageFact]:
    """Return the image of a DICOM file, bright for dense tissue, and the facts about it."""
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
        bits = int(data.BitsStored)
        signed = bool(data.PixelRepresentation)
    except FileNotFoundError:
        raise
    except Exception as error:  # pydicom and its decoders raise many types
        raise ValueError(str(error)) from None
    kind = str(getattr(data, "PhotometricInterpretation", ""))
    if values.ndim != 2 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(
            f"it has {values.ndim} dimensions and the type {kind or 'unknown'}, expected one grey "
            "image"
        )
    values = values.astype(np.int64) + (1 << (bits - 1) if signed else 0)
    if kind == "MONOCHROME1":  # the largest value is black
        values = (1 << bits) - 1 - values
    facts = ImageFact(0)
    if recipe.equalise:
        grey = grey_scale.equalise(grey_scale.to_unsigned(values))
    else:
        grey = grey_scale.to_eight_bits(values, bits)
        if bits > 8 and int(grey.max()) - int(grey.min()) < grey_scale.DIM_LEVELS:
            facts |= ImageFact.DIM
    image = Image.fromarray(grey)
    return (image if recipe.channels == 1 else image.convert("RGB")), facts


def _box(size: tuple[int, int], recipe: Recipe) -> tuple[float, float, float, float]:
    """Return the visible part of a file of this size: left, top, right, bottom."""
    border = recipe.border
    width = size[0] - 2 * border
    height = size[1] - 2 * border
    if width < 1 or height < 1:
        raise ValueError(f"it has no pixels inside its border of {border}")
    if recipe.middle:
        box_width = min(recipe.middle, width)
        box_height = min(recipe.middle, height)
    elif recipe.fit == "crop":
        box_width = box_height = max(1, round(min(width, height) * recipe.share))
    else:
        return border, border, border + width, border + height
    left = border + (width - box_width) // 2
    top = border + (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def visible_part(size: tuple[int, int], recipe: Recipe) -> RelativeBox:
    """Return the part of a file that its decoded image shows; larger than the file if padded.

    Args:
        size: Width and height of the file.
        recipe: The conversion.
    """
    width, height = size
    left, top, right, bottom = _box(size, recipe)
    if recipe.fit == "pad":
        longer = max(size)
        left, top = -((longer - width) // 2), -((longer - height) // 2)
        right, bottom = left + longer, top + longer
    return RelativeBox(left / width, top / height, right / width, bottom / height)


def _fit(image: Image, recipe: Recipe, size: tuple[int, int]) -> Image:
    """Crop or pad an image and resize it to its final size.

    Args:
        image: An image, perhaps decoded at a reduced size.
        recipe: The conversion.
        size: Width and height of the file.
    """
    from PIL import Image

    target = (recipe.side, recipe.side)
    if recipe.fit == "pad" and image.width != image.height:
        image = _pad(image, recipe)
        size = image.size
    left, top, right, bottom = _box(size, recipe)
    x_scale = image.width / size[0]
    y_scale = image.height / size[1]
    box = (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)
    if all(number == int(number) for number in box):
        # Crop first, so that pixels outside the box have no influence.
        image = image.crop(tuple(map(int, box)))  # type: ignore[arg-type]
        if image.size == target:
            return image
        return image.resize(target, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    return image.resize(target, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)


def _pad(image: Image, recipe: Recipe) -> Image:
    """Pad an image to a square with black."""
    from PIL import Image

    longer = max(image.size)
    if longer**2 > MAX_PADDED_PIXELS:
        image = image.reduce(max(1, int(longer / (REDUCING_GAP * recipe.side))))
        longer = max(image.size)
    square = Image.new(image.mode, (longer, longer))
    square.paste(image, ((longer - image.width) // 2, (longer - image.height) // 2))
    return square
