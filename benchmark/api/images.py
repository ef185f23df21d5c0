"""Images given by users: files and arrays, checked and converted for a network."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import UserError, shown
from benchmark.core.summaries import InputSummary

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

#: One image: a file, a Pillow image, uint8[H,W] or uint8[H,W,C], or a tensor uint8[C,H,W].
ImageLike = Any

#: Endings of the files that ``expand_files`` finds in folders.
IMAGE_ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".dcm",
    ".dicom",
)


@dataclass(frozen=True)
class NamedImages:
    """Images for a network, before normalisation.

    Args:
        names: the file of each image, or ``image 0`` for an array.
        pixels: uint8[N,C,H,W].
    """

    names: tuple[str, ...]
    pixels: np.ndarray


def expand_files(paths: Iterable[str | Path]) -> list[Path]:
    """Replace each folder by the image files in it, sorted by name.

    Raises:
        UserError: a path does not exist, or a folder has no image file.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise UserError(
                    f"{path} has no image file, expected files that end in "
                    f"{', '.join(IMAGE_ENDINGS)}."
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"there is no image {path}; check the path.")
    return files


def read_images(images: ImageLike | Sequence[ImageLike], accepted: InputSummary) -> NamedImages:
    """Read images and convert them to the size and the channels that a network accepts.

    Files are decoded as those of the data set that the network was trained on: upright, transparent
    pixels on white, converted to grey for networks that accept grey images, and resized by the same
    rule. Arrays are resized likewise, but must have the right number of channels.

    Args:
        images: one image or a sequence of images: paths of files, Pillow images, arrays uint8[H,W]
            or uint8[H,W,C], or tensors uint8[C,H,W]. An array uint8[N,H,W,C] or a tensor
            uint8[N,C,H,W] is a sequence of N images.
        accepted: the images that the network accepts.

    Raises:
        UserError: an image cannot be read, or has another type, shape or number of channels than
            those above; or no array has a value above 1, as if images were scaled to [0, 1].
    """
    given = _as_list(images)
    if not given:
        raise UserError("there are no images, expected at least one file or array.")
    names = []
    pixels = []
    for number, image in enumerate(given):
        is_file = isinstance(image, str | os.PathLike)
        name = str(image) if is_file else f"image {number}"
        names.append(name)
        pixels.append(_read_one(image, name, accepted))
    stacked = np.stack(pixels)
    arrays = [hasattr(image, "ndim") for image in given]
    if any(arrays) and stacked[arrays].max() == 1:
        raise UserError(
            "the arrays have no value above 1, expected values from 0 to 255; do not scale or "
            "normalise images before."
        )
    return NamedImages(tuple(names), stacked)


def _as_list(images: Any) -> list[Any]:
    """Return the images one by one."""
    if isinstance(images, str | os.PathLike) or _is_pillow(images):
        return [images]
    dimensions = getattr(images, "ndim", None)
    if dimensions is not None:
        return list(images) if dimensions == 4 else [images]
    try:
        return list(images)
    except TypeError:
        raise UserError(
            f"{shown(images)} is no image, expected a file, a Pillow image, an array uint8[H,W,C] "
            "or a sequence of them."
        ) from None


def _read_one(image: Any, name: str, accepted: InputSummary) -> np.ndarray:
    """Return uint8[C,H,W] of the size that the network accepts."""
    channels, height, width = accepted.image_size
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image), accepted)
    if _is_pillow(image):
        return _convert(image, name, accepted)
    array = _checked_array(image, name)
    if array.shape[2] != channels:
        raise UserError(
            f"{name} has {array.shape[2]} channels, but the network accepts {channels}; convert "
            "it first."
        )
    if array.shape[:2] == (height, width) and not accepted.equalise:
        return np.ascontiguousarray(array.transpose(2, 0, 1))
    if channels == 2:  # such as coloured MNIST, for which no file format has a mode
        raise UserError(
            f"{name} is {array.shape[0]}×{array.shape[1]} pixels, expected {height}×{width} for "
            "images of two channels; resize it first."
        )
    from PIL.Image import fromarray

    return _convert(fromarray(array if channels == 3 else array[..., 0]), name, accepted)


def _checked_array(image: Any, name: str) -> np.ndarray:
    """Return an array or a tensor as uint8[H,W,C].

    Raises:
        UserError: it has another type or number of dimensions.
    """
    is_tensor = hasattr(image, "detach")
    expected = "uint8[C,H,W]" if is_tensor else "uint8[H,W] or uint8[H,W,C]"
    if not is_tensor and not isinstance(image, np.ndarray):
        raise UserError(
            f"{name} is {shown(image)}, expected a file, a Pillow image, an array or a tensor."
        )
    array: np.ndarray = image.detach().cpu().numpy() if is_tensor else image
    if array.dtype != np.uint8:
        raise UserError(
            f"{name} is {array.dtype}{list(array.shape)}, expected {expected} with values from 0 "
            "to 255; do not normalise images before."
        )
    if array.ndim == 2 and not is_tensor:
        array = array[..., None]
    if array.ndim != 3 or not array.size:
        raise UserError(f"{name} is uint8{list(array.shape)}, expected {expected}.")
    return array.transpose(1, 2, 0) if is_tensor else array


def _is_pillow(image: Any) -> bool:
    return hasattr(image, "getbands") and hasattr(image, "convert")


def _read_file(path: Path, accepted: InputSummary) -> np.ndarray:
    decode = _decoder()
    if not path.is_file():
        raise UserError(f"there is no image {path}; check the path.")
    pixels: np.ndarray = decode.read_image(path, _recipe(accepted, str(path)))[0]
    return pixels


def _convert(image: Image, name: str, accepted: InputSummary) -> np.ndarray:
    pixels: np.ndarray = _decoder().convert_image(image, _recipe(accepted, name), name)
    return pixels


def _recipe(accepted: InputSummary, name: str) -> Any:
    channels, height, width = accepted.image_size
    if channels not in (1, 3) or height != width:
        raise UserError(
            f"{name} cannot be converted to images of {channels} channels and {height}×{width} "
            f"pixels; pass an array uint8[{height},{width},{channels}]."
        )
    return _decoder().Recipe(
        height,
        channels=channels,
        fit=accepted.fit,
        middle=accepted.middle,
        equalise=accepted.equalise,
        bits=accepted.bits,
    )


def _decoder() -> Any:
    """Return the module that decodes the images of data sets.

    It belongs to the package ``datasets``, which this package does not import statically.
    """
    return importlib.import_module("datasets._io.decode")


def normalised(pixels: np.ndarray, accepted: InputSummary) -> torch.Tensor:
    """Return normalised images float[N,C,H,W], as in training.

    Args:
        pixels: uint8[N,C,H,W].
        accepted: mean and standard deviation of each channel.
    """
    import torch

    mean = torch.tensor(accepted.mean, dtype=torch.float32).view(1, -1, 1, 1)
    std = torch.tensor(accepted.std, dtype=torch.float32).view(1, -1, 1, 1)
    image = torch.from_numpy(np.array(pixels)).to(torch.float32)
    # The same order of operations as in training, so that the last bits are equal.
    return image.mul_(1 / (255 * std)).add_(-mean / std)
