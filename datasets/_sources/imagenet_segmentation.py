"""ImageNet-Segmentation: photographs and foreground masks in one MATLAB file (HDF5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import UserError
from datasets._io.image_pool import Item
from datasets._sources.imagenet import Photographs

FILE = "gtsegs_ijcv.mat"
HOW = "fetch gtsegs_ijcv.mat from the page of ImageNet-Segmentation (Guillaumin et al. 2014) again"


def read_index(path: Path, name: str) -> Photographs:
    """Return the images of the file.

    Their classes are synsets of which not all are among the 1,000 of ILSVRC 2012. Labels are
    therefore 0, and the split is declared unlabelled.

    Args:
        path: The file.
        name: Its name below the data folder.

    Raises:
        UserError: If the file is damaged or h5py is not installed.
    """
    with _open(path) as file:
        images = len(file["/value/img"])
        if images < 1 or len(file["/value/gt"]) != images:
            raise ValueError(f"{images} images and {len(file['/value/gt'])} masks")
    items = [Item(name, drawn=str(row)) for row in range(images)]
    return Photographs(items, np.zeros(images, np.int64))


def read_photograph(path: Path, row: int) -> np.ndarray:
    """Return an image, uint8[H,W,3]. MATLAB stores the axes in the opposite order."""
    with _open(path) as file:
        image = np.asarray(file[file["/value/img"][row, 0]])
        if image.ndim == 2:
            image = np.broadcast_to(image, (3, *image.shape))
        if image.ndim != 3 or len(image) != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {row} is {image.dtype}{list(image.shape)}")
        return np.ascontiguousarray(image.transpose(2, 1, 0))


def read_foreground(path: Path, row: int, size: tuple[int, int]) -> np.ndarray:
    """Return the mask of an image, bool[H,W].

    Args:
        path: The file.
        row: The number of the image, from 0.
        size: Width and height of the image.
    """
    with _open(path) as file:
        cell = np.asarray(file[file["/value/gt"][row, 0]])
        mask = np.asarray(file[cell[0, 0]]) if cell.dtype == object else cell
        if mask.shape != size:
            raise ValueError(f"mask {row} has the shape {mask.shape}, its image {size}")
        return np.ascontiguousarray(mask.T) == 1


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open the file; everything that is wrong with its content becomes a UserError."""
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path} is an HDF5 file, and h5py, which reads them, is not installed; "
            "`pip install 'shortcutbed[hdf5]'` adds it."
        ) from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {HOW}.") from None
    except (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is damaged or another file ({reason}), expected the images and masks of "
            f"ImageNet-Segmentation in /value/img and /value/gt; {HOW}."
        ) from None
