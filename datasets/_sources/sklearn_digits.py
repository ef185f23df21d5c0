"""scikit-learn's 1,797 handwritten digits: read, divided, and drawn at any place and size."""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from datasets._sources.bias_assignment import stream

SOURCE = "scikit-learn's digits: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI"
LICENCE = "digits: CC BY 4.0"

#: Original digits of each class in training and in validation; the rest (44 to 53) are for the tests.
PER_CLASS = {"train": 100, "val": 30}

#: Importing sklearn.datasets instead of reading its file would cost each run a second.
_FILE = ("sklearn", "datasets/data/digits.csv.gz")
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image"}

REPEATS = HParam(
    8, doc="times each original digit is drawn in train; half as often in val", low=1, high=50
)


def package_file(package: str, path: str) -> Path:
    """A data file inside an installed package, found without importing the package.

    Raises:
        UserError: the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / path if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        name = _DISTRIBUTIONS[package]
        raise UserError(
            f"the file {path} that {name} ships was not found in this environment; "
            f"`pip install --force-reinstall {name}` puts it there."
        )
    return file


def digits_file() -> Path:
    """The file with the digits."""
    return package_file(*_FILE)


def checksum(files: Iterable[Path]) -> str:
    """A digest of a few small files."""
    return "-".join(f"{zlib.crc32(file.read_bytes()):08x}" for file in files)


@functools.lru_cache(maxsize=1)
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Ink float64[1797,8,8] in [0, 1] and digit int64[1797], in scikit-learn's order."""
    table = np.loadtxt(digits_file(), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(np.int64)


@dataclass(frozen=True)
class Drawn:
    """Digits drawn for one part of a data set.

    Shapes: ``row`` int64[N] of the original digit, ``digit`` int64[N], ``opacity`` uint8[N,side,side].
    """

    row: np.ndarray
    digit: np.ndarray
    opacity: np.ndarray


def draw_parts(
    seed: int, repeats: int, side: int, smallest: float, largest: float
) -> dict[str, Drawn]:
    """The digits of train, val and test, disjoint by original digit; those of the tests are drawn once each.

    Args:
        seed: of the trial.
        repeats: how often each original digit is drawn in train; half as often, but at least once, in val.
        side: of the square images, in pixels.
        smallest, largest: bounds of the digits' height and of their width, in pixels.
    """
    ink, digit = read_digits()
    times = {"train": repeats, "val": max(1, repeats // 2), "test": 1}
    parts = {}
    for part, rows in _divide(stream(seed, "divide"), digit).items():
        rows = np.repeat(rows, times[part])
        drawn = draw(stream(seed, part, "draw"), ink[rows], side, smallest, largest)
        parts[part] = Drawn(rows, digit[rows], drawn)
    return parts


def _divide(rng: np.random.Generator, digit: np.ndarray) -> dict[str, np.ndarray]:
    rows: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    first, second = PER_CLASS["train"], PER_CLASS["train"] + PER_CLASS["val"]
    for c in range(10):
        mixed = rng.permutation(np.flatnonzero(digit == c))
        for name, part in zip(rows, np.split(mixed, [first, second]), strict=True):
            rows[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in rows.items()}


def draw(
    rng: np.random.Generator, ink: np.ndarray, side: int, smallest: float, largest: float
) -> np.ndarray:
    """Each digit at a random size and place in a square: its opacity, uint8[N,side,side], 0 outside the strokes.

    The 8×8 pixels are interpolated bilinearly and the ramp at their borders made steeper, so that strokes have an edge
    at any size. Height and width are drawn apart, from U(smallest, largest); the digit's box stays inside the square.

    Args:
        rng: source of sizes and places.
        ink: float[N,8,8] in [0, 1].
    """
    rows, columns = (_stretch(rng, len(ink), side, smallest, largest) for _ in range(2))
    value = rows @ ink @ columns.transpose(0, 2, 1)
    # 0.22 is no multiple of 1/16: even areas of ink do not hang on the last bit of a sum
    return (np.clip((value - 0.22) / 0.4, 0, 1) * 255).round().astype(np.uint8)  # type: ignore[no-any-return]


def _stretch(
    rng: np.random.Generator, n: int, side: int, smallest: float, largest: float
) -> np.ndarray:
    """Weights float64[n,side,8] that stretch 8 samples over a random part of a line of ``side`` pixels."""
    size = rng.uniform(smallest, largest, n)
    start = rng.uniform(0, side - size)
    position = (np.arange(side) + 0.5 - start[:, None]) * 8 / size[:, None] - 0.5
    return np.maximum(0, 1 - np.abs(position[:, :, None] - np.arange(8)))  # type: ignore[no-any-return]
