"""Files of attention maps that were made before, for gals.

Maps are found by the pixels of their images, so that one file serves every trial, whatever the
order of its images::

    from algorithms._attention_file import write_attention
    from benchmark.core import DATASETS

    data = DATASETS.get("waterbirds")(data_dir).load(0)
    images = data.splits["train"].image  # uint8[N,C,H,W]
    write_attention("attention.npz", images, maps)  # maps float[N,h,w], not negative
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmark.core import UserError


def image_digest(image: np.ndarray) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of an image uint8[C,H,W]."""
    if image.dtype != np.uint8 or image.ndim != 3:
        raise UserError(
            f"an image is {image.dtype}{list(image.shape)}, expected uint8[C,H,W] as data sets "
            "load it."
        )
    shape = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def write_attention(path: str | Path, images: Iterable[np.ndarray], maps: np.ndarray) -> None:
    """Write attention maps for ``attention_file`` of gals.

    Args:
        path: the file, with the suffix ``.npz``.
        images: images uint8[C,H,W] as the data set loads them, before normalisation.
        maps: float[N,h,w], a map for each image; not negative, of any size and scale.

    Raises:
        UserError: If there are not as many maps as images, or a map is negative or not finite.
    """
    digest = np.array([image_digest(np.asarray(image)) for image in images])
    _check(str(path), digest, maps)
    np.savez_compressed(path, digest=digest, attention=np.asarray(maps, np.float32))


class AttentionFile:
    """The attention maps of a file that ``write_attention`` has written.

    Args:
        path: the file.

    Raises:
        UserError: If it does not exist or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                digest = arrays["digest"]
                self.maps: np.ndarray = arrays["attention"]
        except FileNotFoundError:
            raise UserError(f"there is no attention_file {path}.") from None
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"attention_file {path} cannot be read ({type(error).__name__}: {error}); write it "
                "with algorithms._attention_file.write_attention."
            ) from None
        _check(path, digest, self.maps)
        self.rows = {name: row for row, name in enumerate(digest.tolist())}

    def of(self, images: np.ndarray) -> np.ndarray:
        """Return the maps of images uint8[N,C,H,W], float32[N,1,h,w].

        Raises:
            UserError: If an image has no map.
        """
        rows = [self.rows.get(image_digest(image)) for image in images]
        missing = [i for i, row in enumerate(rows) if row is None]
        if missing:
            raise UserError(
                f"attention_file {self.path} has no map for {len(missing)} of {len(rows)} training "
                f"images, the first is image {missing[0]}; make it from the same images, of the "
                "same size."
            )
        return self.maps[np.array(rows, np.int64)][:, None].astype(np.float32)


def _check(path: str, digest: np.ndarray, maps: np.ndarray) -> None:
    """Raise a UserError unless there is a usable map for each image."""
    if digest.ndim != 1 or maps.ndim != 3 or len(maps) != len(digest) or not len(digest):
        raise UserError(
            f"{path}: attention has shape {list(maps.shape)} for {len(digest)} images, expected "
            "[N,h,w] with a map for each image."
        )
    if not np.issubdtype(maps.dtype, np.floating) or not np.isfinite(maps).all():
        raise UserError(f"{path}: attention is {maps.dtype}, expected finite real numbers.")
    if maps.min() < 0:
        raise UserError(f"{path}: attention has negative values, expected 0 or more.")
