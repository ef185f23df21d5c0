"""Masks of images in one file, found by the pixels of the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.arrays import ArrayFile
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.files import write_atomic

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class MaskFile:
    """Masks, one for each distinct image.

    An image is found by a digest of its pixels. Masks thus fit every trial and every split that
    shows the image, whatever its row there, and are not found for images that were decoded at
    another size or with another shortcut.

    Attributes:
        size: Height and width of the images.
        bits: Packed mask of an image, uint8[⌈H·W/8⌉], by the digest of the image.
        about: How the masks were made, for people.
    """

    size: tuple[int, int]
    bits: Mapping[bytes, np.ndarray]
    about: str = ""

    def masks(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks of images.

        Args:
            image: uint8[N,C,H,W].

        Returns:
            bool[N,1,H,W], and bool[N], True for images that have a mask. The mask of the others is
            empty.
        """
        height, width = self.size
        mask = np.zeros((len(image), 1, height, width), dtype=bool)
        known = np.zeros(len(image), dtype=bool)
        for row, digest in enumerate(image_digests(image)):
            bits = self.bits.get(digest)
            if bits is not None:
                known[row] = True
                mask[row, 0] = np.unpackbits(bits, count=height * width).reshape(self.size)
        return mask, known


def image_digests(image: np.ndarray) -> Iterable[bytes]:
    """Yield a digest of the pixels of each image of uint8[N,C,H,W]."""
    for pixels in image:
        shape = ",".join(map(str, pixels.shape)).encode()
        yield hashlib.blake2b(shape + pixels.tobytes(), digest_size=_DIGEST_BYTES).digest()


def packed(mask: np.ndarray) -> np.ndarray:
    """Return a mask bool[H,W] as uint8[⌈H·W/8⌉]."""
    return np.packbits(mask)


def write_mask_file(path: Path, masks: MaskFile) -> None:
    """Write masks.

    Args:
        path: A file that ends in .npz. It is replaced if it exists.
        masks: The masks.

    Raises:
        OSError: If it cannot be written.
    """
    digests = sorted(masks.bits)
    arrays = {
        "digest": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES),
        "mask": np.stack([masks.bits[digest] for digest in digests]),
        "size": np.array(masks.size, np.int64),
        "about": np.array(masks.about),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def read_mask_file(path: Path) -> MaskFile:
    """Read masks that ``write_mask_file`` wrote.

    Raises:
        UserError: If the file is missing or damaged, or another file.
    """
    try:
        with ArrayFile(path) as file:
            size = file.read("size", "i", [2])
            if size.min() < 1 or size.max() > 1 << 16:
                raise DamagedError(f"its size is {size.tolist()}")
            height, width = map(int, size)
            digest = file.read("digest", "u", [None, _DIGEST_BYTES])
            mask = file.read("mask", "u", [len(digest), -(-height * width // 8)])
            if digest.dtype != np.uint8 or mask.dtype != np.uint8:
                raise DamagedError("its arrays are not uint8")
            about = file.texts("about", [])[0]
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; write it with `python -m benchmark.data masks`."
        ) from None
    except DamagedError as error:
        raise UserError(
            f"{path} is damaged or no file of masks ({str(error).removesuffix('.')}); write it "
            "again with `python -m benchmark.data masks`."
        ) from None
    bits = {row.tobytes(): packed_mask for row, packed_mask in zip(digest, mask, strict=True)}
    return MaskFile((height, width), bits, about)
