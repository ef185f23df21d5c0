"""A small MNIST: generated digits in the exact layout of the real files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def arrays(train: int = 600, test: int = 300) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Grey patches uint8[N,28,28], no two alike, and labels uint8[N], a tenth of each."""
    rng = np.random.default_rng(0)
    made = {}
    for part, count in (("train", train), ("test", test)):
        image = np.zeros((count, 28, 28), np.uint8)
        image[:, 6:22, 8:20] = rng.integers(0, 256, (count, 16, 12))
        made[part] = image, rng.permutation(np.arange(count) % 10).astype(np.uint8)
    return made


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    """An array as an idx file: magic number, sizes in big-endian order, bytes."""
    magic = 0x800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def make_tree(root: Path, compressed: bool = True, train: int = 600, test: int = 300) -> Path:
    """Write the four files under ``root/MNIST/raw``; returns ``root``."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, both in arrays(train, test).items():
        for kind, array in zip(("images", "labels"), both, strict=True):
            name, content = NAMES[part, kind], idx(array)
            if compressed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (raw / name).write_bytes(content)
    return root
