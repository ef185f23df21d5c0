"""MNIST as torchvision lays it out, read without torch: four idx files, plain or compressed, each checked."""

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

TRAIN_SIZE = HParam(
    0,
    doc="training images, taken at random; validation shrinks with them; 0 = all",
    low=0,
    high=60_000,
)
TEST_SIZE = HParam(0, doc="test digits, taken at random; 0 = all", low=0, high=10_000)

#: Part -> its files of images and of labels.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_FOLDER = Path("MNIST") / "raw"
#: First four bytes: zero, zero, 8 for unsigned bytes, number of dimensions.
_MAGIC = {"images": b"\0\0\x08\x03", "labels": b"\0\0\x08\x01"}


class MNISTSource(DatasetSource):
    """A data set made from MNIST's files in ``data_dir/MNIST/raw``; nothing is ever downloaded unless asked for."""

    def check(self) -> None:
        self.counts()

    def counts(self) -> dict[str, int]:
        """Number of digits in ``train`` and in ``test``, from the files' headers.

        Raises:
            UserError: no data folder, a file is missing, or it is not the idx file that it should be.
        """
        counts = {}
        for part, (images, labels) in FILES.items():
            found = [
                _header(self._file(name), kind)
                for name, kind in ((images, "images"), (labels, "labels"))
            ]
            if found[0] != found[1]:
                raise _damaged(
                    self._file(labels), f"it holds {found[1]} labels for {found[0]} images"
                )
            counts[part] = found[0]
        return counts

    def content(self) -> str:
        """Checksums of the uncompressed files: the same whether they are compressed or not."""
        return "-".join(_crc32(self._file(name)) for names in FILES.values() for name in names)

    def read(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Digits uint8[N,28,28] and their labels int64[N].

        Raises:
            UserError: a file is missing or damaged.
        """
        images, labels = (self._file(name) for name in FILES[part])
        digits = _content(labels, "labels").astype(np.int64)
        if digits.max() > 9:
            raise _damaged(labels, f"it holds the label {digits.max()}, expected 0 to 9")
        return _content(images, "images").reshape(-1, SIDE, SIDE), digits

    def download(self) -> None:
        """Fetch the files that are missing, through torchvision.

        Raises:
            UserError: no data folder, no network, or a file that is there is damaged.
        """
        self._folder()
        try:
            self.counts()
        except UserError:
            from torchvision.datasets import MNIST

            try:
                MNIST(str(self.data_dir), download=True)
            except (OSError, RuntimeError, ValueError) as error:
                why = " ".join(str(error).split())
                raise UserError(
                    f"MNIST could not be downloaded to {self._folder()} ({why}); "
                    "mend the network, or put the four files there by hand."
                ) from None
            self.counts()

    def _folder(self) -> Path:
        if self.data_dir is None:
            raise UserError(
                f"{self.name} needs MNIST, but no data folder was given; pass --data-dir DIR, where DIR holds "
                f"{_FOLDER}/, or add --download to fetch it into DIR."
            )
        return Path(self.data_dir) / _FOLDER

    def _file(self, name: str) -> Path:
        folder = self._folder()
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise UserError(
            f"{self.name} needs MNIST in {folder}, but {name} (or {name}.gz) is not there; put the four files there, "
            "or add --download to fetch them."
        )


def limit(asked: int, available: int, what: str) -> int:
    """``asked``, or ``available`` where 0 was asked.

    Raises:
        UserError: more are asked for than there are.
    """
    if asked > available:
        raise UserError(
            f"{what} = {asked} is more than the {available} that MNIST gives here; 0 takes all."
        )
    return asked or available


def _header(path: Path, kind: str) -> int:
    """The number of items that a file holds, its header and its size checked."""
    wanted = _MAGIC[kind]
    length = 4 + 4 * wanted[3]
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(length)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed: {error}") from None
    if len(head) < length or head[:4] != wanted:
        raise _damaged(
            path,
            f"it begins with {head[:4].hex() or 'nothing'}, expected {wanted.hex()} for {kind}",
        )
    count, *sides = struct.unpack(f">{wanted[3]}I", head[4:])
    if any(side != SIDE for side in sides):
        raise _damaged(path, f"its images are {'×'.join(map(str, sides))}, expected {SIDE}×{SIDE}")
    promised, size = length + count * SIDE ** len(sides), _size(path)
    if count == 0 or size != promised:
        raise _damaged(
            path, f"it holds {size} bytes, but its header promises {promised} for {count} {kind}"
        )
    return int(count)


def _size(path: Path) -> int:
    """Uncompressed size in bytes; a gzip file states it in its last four."""
    return struct.unpack("<I", _tail(path)[4:])[0] if path.suffix == ".gz" else path.stat().st_size


def _crc32(path: Path) -> str:
    """Checksum of the uncompressed file; a gzip file states it before its size."""
    value = (
        struct.unpack("<I", _tail(path)[:4])[0]
        if path.suffix == ".gz"
        else zlib.crc32(path.read_bytes())
    )
    return f"{value:08x}"


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8))
        return file.read().rjust(8, b"\0")


def _content(path: Path, kind: str) -> np.ndarray:
    """The bytes after the header, uint8[...]; a compressed file's checksum is verified on the way."""
    _header(path, kind)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be decompressed: {error}") from None
    return np.frombuffer(data, np.uint8, offset=4 + 4 * _MAGIC[kind][3])


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged ({why}); delete it and fetch it again with --download.")
