"""MNIST in the layout of torchvision, read without torch: four idx files, plain or compressed."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from benchmark.core.dataset import DatasetSource
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam

SOURCE = "MNIST: LeCun, Cortes and Burges (1998), The MNIST database of handwritten digits"
LICENCE = "MNIST: CC BY-SA 3.0"
SIDE = 28

TRAIN_SIZE_OPTION = HParam(
    0,
    doc="training images, drawn at random; validation shrinks with them; 0 = all",
    low=0,
    high=60_000,
)
TEST_SIZE_OPTION = HParam(0, doc="test digits, drawn at random; 0 = all", low=0, high=10_000)

#: The files of images and of labels of each part.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_FOLDER = Path("MNIST") / "raw"
#: The first four bytes: zero, zero, 8 for unsigned bytes, and the number of dimensions.
_MAGIC = {"images": b"\0\0\x08\x03", "labels": b"\0\0\x08\x01"}


class MNISTSource(DatasetSource):
    """A data set made from MNIST's files in ``data_dir/MNIST/raw``, downloaded only on request."""

    def check(self) -> None:
        self.counts()

    def counts(self) -> dict[str, int]:
        """Return the number of digits in ``train`` and ``test``, from the headers of the files.

        Raises:
            UserError: If no data folder was given, or a file is missing or damaged.
        """
        counts = {}
        for part, (images, labels) in FILES.items():
            num_images = _read_header(self._file(images), "images")
            num_labels = _read_header(self._file(labels), "labels")
            if num_images != num_labels:
                raise _damaged(
                    self._file(labels), f"it holds {num_labels} labels for {num_images} images"
                )
            counts[part] = num_images
        return counts

    def content(self) -> str:
        """Return checksums of the uncompressed contents, equal for plain and compressed files."""
        return "-".join(_crc32(self._file(name)) for names in FILES.values() for name in names)

    def read(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Read ``train`` or ``test``.

        Returns:
            The digits, uint8[N,28,28], and their labels, int64[N].

        Raises:
            UserError: If a file is missing or damaged.
        """
        images, labels = (self._file(name) for name in FILES[part])
        digits = _read_data(labels, "labels").astype(np.int64)
        if digits.max() > 9:
            raise _damaged(labels, f"it holds the label {digits.max()}, expected 0 to 9")
        return _read_data(images, "images").reshape(-1, SIDE, SIDE), digits

    def download(self) -> None:
        """Download missing files through torchvision.

        Raises:
            UserError: If no data folder was given, the download fails, or a file is damaged.
        """
        self._folder()
        try:
            self.counts()
        except UserError:
            from torchvision.datasets import MNIST

            try:
                MNIST(str(self.data_dir), download=True)
            except (OSError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UserError(
                    f"MNIST could not be downloaded to {self._folder()} ({reason}); check the "
                    "network, or put the four files there by hand."
                ) from None
            self.counts()

    def _folder(self) -> Path:
        if self.data_dir is None:
            raise UserError(
                f"{self.name} needs MNIST, but no data folder was given; pass --data-dir DIR, "
                f"where DIR holds {_FOLDER}/, or add --download to fetch it into DIR."
            )
        return Path(self.data_dir) / _FOLDER

    def _file(self, name: str) -> Path:
        folder = self._folder()
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise UserError(
            f"{self.name} needs MNIST in {folder}, but {name} (or {name}.gz) is not there; put the "
            "four files there, or add --download to fetch them."
        )


def subset_size(requested: int, available: int, option: str) -> int:
    """Return the size of a subset.

    Args:
        requested: The requested number; 0 for all.
        available: The number of digits.
        option: The name of the option, for messages.

    Raises:
        UserError: If more digits are requested than are available.
    """
    if requested > available:
        raise UserError(
            f"{option} = {requested} is more than the {available} digits that MNIST has for it; "
            "0 uses all."
        )
    return requested or available


def _read_header(path: Path, kind: str) -> int:
    """Check the header and the size of a file, and return the number of its items."""
    magic = _MAGIC[kind]
    length = 4 + 4 * magic[3]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(length)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed: {error}") from None
    if len(header) < length or header[:4] != magic:
        start = header[:4].hex() or "nothing"
        raise _damaged(path, f"it begins with {start}, expected {magic.hex()} for {kind}")
    count, *sides = struct.unpack(f">{magic[3]}I", header[4:])
    if any(side != SIDE for side in sides):
        raise _damaged(path, f"its images are {'×'.join(map(str, sides))}, expected {SIDE}×{SIDE}")
    expected = length + count * SIDE ** len(sides)
    size = _uncompressed_size(path)
    if count == 0 or size != expected:
        raise _damaged(
            path, f"it holds {size} bytes, but its header promises {expected} for {count} {kind}"
        )
    return int(count)


def _uncompressed_size(path: Path) -> int:
    """Return the uncompressed size in bytes; a gzip file stores it in its last four bytes."""
    if path.suffix == ".gz":
        return int(struct.unpack("<I", _last_bytes(path)[4:])[0])
    return path.stat().st_size


def _crc32(path: Path) -> str:
    """Return the checksum of the uncompressed file; a gzip file stores it before its size."""
    if path.suffix == ".gz":
        return f"{struct.unpack('<I', _last_bytes(path)[:4])[0]:08x}"
    return f"{zlib.crc32(path.read_bytes()):08x}"


def _last_bytes(path: Path) -> bytes:
    """Return the last eight bytes of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        return file.read().rjust(8, b"\0")


def _read_data(path: Path, kind: str) -> np.ndarray:
    """Return the bytes after the header; the checksum of a compressed file is verified."""
    _read_header(path, kind)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed: {error}") from None
    return np.frombuffer(data, np.uint8, offset=4 + 4 * _MAGIC[kind][3])


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}); delete it and fetch it again with --download.")
