"""scikit-learn's 1,797 handwritten digits: read, divided, and drawn at any position and size."""

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
from datasets._sources.bias_assignment import random_stream

SOURCE = (
    "scikit-learn's digits: Alpaydin and Kaynak (1998), "
    "Optical Recognition of Handwritten Digits, UCI"
)
LICENCE = "digits: CC BY 4.0"

#: Original digits of each class in training and in validation. The others (44 to 53) are tests.
PER_CLASS = {"train": 100, "val": 30}

#: Reading the file avoids importing sklearn.datasets, which takes a second.
_PACKAGE = "sklearn"
_FILE = "datasets/data/digits.csv.gz"
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image"}

REPEATS_OPTION = HParam(
    8, doc="times each original digit is drawn in train; half as often in val", low=1, high=50
)


@dataclass(frozen=True)
class DrawnDigits:
    """Digits drawn for one part of a data set.

    Args:
        row: int64[N], the row of the original digit.
        digit: int64[N].
        opacity: uint8[N,side,side], 0 outside the strokes.
    """

    row: np.ndarray
    digit: np.ndarray
    opacity: np.ndarray


def package_file(package: str, path: str) -> Path:
    """Return a data file inside an installed package, without importing the package.

    Raises:
        UserError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    file = Path(spec.origin).parent / path if spec is not None and spec.origin else None
    if file is None or not file.is_file():
        name = _DISTRIBUTIONS[package]
        raise UserError(
            f"the file {path} of {name} was not found in this environment; "
            f"`pip install --force-reinstall {name}` restores it."
        )
    return file


def digits_file() -> Path:
    """Return the file of the digits."""
    return package_file(_PACKAGE, _FILE)


def checksum(files: Iterable[Path]) -> str:
    """Return a digest of a few small files."""
    return "-".join(f"{zlib.crc32(file.read_bytes()):08x}" for file in files)


@functools.lru_cache(maxsize=1)
def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read the digits in scikit-learn's order.

    Returns:
        The ink, float64[1797,8,8] in [0, 1], and the digits, int64[1797].
    """
    table = np.loadtxt(digits_file(), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(np.int64)


def draw_parts(
    seed: int, repeats: int, side: int, min_size: float, max_size: float
) -> dict[str, DrawnDigits]:
    """Draw the digits of train, val and test, whose original digits are disjoint.

    Args:
        seed: The seed of the trial.
        repeats: How often each original digit is drawn in train. In val it is drawn half as often,
            but at least once, and in test once.
        side: The side of the square images in pixels.
        min_size: The smallest height and width of a digit in pixels.
        max_size: The largest height and width.
    """
    ink, digit = read_digits()
    times = {"train": repeats, "val": max(1, repeats // 2), "test": 1}
    parts = {}
    for part, original_rows in _divide(random_stream(seed, "divide"), digit).items():
        rows = np.repeat(original_rows, times[part])
        rng = random_stream(seed, part, "draw")
        parts[part] = DrawnDigits(
            rows, digit[rows], draw_digits(rng, ink[rows], side, min_size, max_size)
        )
    return parts


def draw_digits(
    rng: np.random.Generator, ink: np.ndarray, side: int, min_size: float, max_size: float
) -> np.ndarray:
    """Draw each digit at a random size and position in a square.

    The 8×8 pixels are interpolated bilinearly, and the ramp at their borders is made steeper, so
    that strokes have an edge at any size. Height and width are independent, from U(min_size,
    max_size), and the bounding box stays inside the square.

    Args:
        rng: The generator of sizes and positions.
        ink: float[N,8,8] in [0, 1].
        side: The side of the square in pixels.
        min_size: The smallest height and width in pixels.
        max_size: The largest height and width.

    Returns:
        The opacity, uint8[N,side,side], 0 outside the strokes.
    """
    rows = _interpolation_weights(rng, len(ink), side, min_size, max_size)
    columns = _interpolation_weights(rng, len(ink), side, min_size, max_size)
    value = rows @ ink @ columns.transpose(0, 2, 1)
    # 0.22 is not a multiple of 1/16, so uniform areas do not depend on the last bit of a sum.
    return (np.clip((value - 0.22) / 0.4, 0, 1) * 255).round().astype(np.uint8)  # type: ignore[no-any-return]


def _interpolation_weights(
    rng: np.random.Generator, n: int, side: int, min_size: float, max_size: float
) -> np.ndarray:
    """Return weights float64[n,side,8] that stretch 8 samples over a random part of a line."""
    size = rng.uniform(min_size, max_size, n)
    start = rng.uniform(0, side - size)
    position = (np.arange(side) + 0.5 - start[:, None]) * 8 / size[:, None] - 0.5
    return np.maximum(0, 1 - np.abs(position[:, :, None] - np.arange(8)))  # type: ignore[no-any-return]


def _divide(rng: np.random.Generator, digit: np.ndarray) -> dict[str, np.ndarray]:
    """Divide the rows of each class into train, val and test."""
    rows: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    ends = [PER_CLASS["train"], PER_CLASS["train"] + PER_CLASS["val"]]
    for c in range(10):
        shuffled = rng.permutation(np.flatnonzero(digit == c))
        for name, part in zip(rows, np.split(shuffled, ends), strict=True):
            rows[name].append(part)
    return {name: np.sort(np.concatenate(parts)) for name, parts in rows.items()}
