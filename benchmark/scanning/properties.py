"""Plain properties of images and files, in families and tiers."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Images of files are resized to this side before pixels are measured.
SIDE = 112
#: Width of the border, and side of a corner, as shares of the side.
_BORDER_SHARE = 0.06
_CORNER_SHARE = 0.15
#: A row or column whose standard deviation is below this many grey levels is a margin.
_MARGIN_LEVELS = 2.0
_BLOCK = 8
_HISTOGRAM_BINS = 8
_HUE_BINS = 6


class Tier(enum.StrEnum):
    """How a property relates to the object of an image."""

    NOT_OBJECT = "cannot be the object"
    EITHER = "may be either"
    OBJECT = "usually the object"


@dataclass(frozen=True)
class Family:
    """A family of properties that is tested as a whole.

    Attributes:
        name: Name of the family.
        tier: Its tier.
        values: float64[N,D]; NaN where a property is undefined.
    """

    name: str
    tier: Tier
    values: np.ndarray


def pixel_families(image: np.ndarray, mask: np.ndarray | None = None) -> list[Family]:
    """Return the families of properties of pixels.

    Args:
        image: uint8[N,C,H,W].
        mask: bool[N,1,H,W], the foreground, or None.

    Returns:
        Families with the properties of every image. Grey images have no properties of colour.
    """
    pixels = image.astype(np.float32)
    grey = pixels.mean(1)
    none, either, content = Tier.NOT_OBJECT, Tier.EITHER, Tier.OBJECT
    found = [
        Family("border", none, _border(pixels)),
        Family("corners", none, _corners(pixels)),
        Family("margins", none, _margins(grey, mask)),
        Family("brightness", either, _column(grey.mean((1, 2)))),
        Family("contrast", either, _column(grey.std((1, 2)))),
        Family("tails", either, _tails(grey)),
        Family("histogram", either, _histogram(grey)),
        Family("entropy", either, _column(_entropy(grey))),
        *full_size_families(grey),
        Family("frequency", content, _frequency(grey)),
        Family("4×4 grid", content, _grid(grey, 4)),
        Family("8×8 layout", content, _layout(grey, 8)),
    ]
    if image.shape[1] == 3:
        hue, saturation = _hue_and_saturation(pixels)
        found += [
            Family("saturation", either, _column(saturation.mean((1, 2)))),
            Family("hue", either, _hue_histogram(hue, saturation)),
            Family("colour", either, pixels.mean((2, 3)).astype(np.float64)),
        ]
    if mask is not None:
        found += [
            Family("outside the mask", none, _moments(pixels, ~mask)),
            Family("inside the mask", either, _moments(pixels, mask)),
            Family("mask area", content, _column(mask[:, 0].mean((1, 2)))),
        ]
    return found


def full_size_families(grey: np.ndarray) -> list[Family]:
    """Return the families whose values depend on the size of an image.

    Args:
        grey: float32[N,H,W], at the size of the file if possible.
    """
    return [
        Family("sharpness", Tier.EITHER, _column(_sharpness(grey))),
        Family("blockiness", Tier.EITHER, _column(_blockiness(grey))),
    ]


def file_families(files: Sequence[Path]) -> list[Family]:
    """Return the families of properties of files: size, dimensions, and quality of JPEG files.

    Args:
        files: one file per image.
    """
    size = np.full(len(files), np.nan)
    dimensions = np.full((len(files), 2), np.nan)
    quality = np.full(len(files), np.nan)
    for row, path in enumerate(files):
        try:
            size[row] = np.log(max(path.stat().st_size, 1))
            dimensions[row], quality[row] = _opened(path)
        except OSError:  # reported by the other checks
            continue
    return [
        Family("file size", Tier.NOT_OBJECT, _column(size)),
        Family("dimensions", Tier.NOT_OBJECT, dimensions),
        Family("JPEG quality", Tier.NOT_OBJECT, _column(quality)),
    ]


def _opened(path: Path) -> tuple[tuple[float, float], float]:
    """Return the logarithms of width and height, and the mean of the quantisation tables."""
    from PIL import Image

    with Image.open(path) as opened:
        width, height = opened.size
        tables = getattr(opened, "quantization", None)
        steps = [float(np.mean(list(table))) for table in tables.values()] if tables else []
    return (np.log(width), np.log(height)), -float(np.mean(steps)) if steps else np.nan


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(len(values), 1)


def region_of(family: str, height: int, width: int) -> np.ndarray | None:
    """Return the region that the family ``border`` or ``corners`` measures, bool[H,W], or None."""
    region = np.zeros((height, width), bool)
    if family == "border":
        frame = max(1, round(min(height, width) * _BORDER_SHARE))
        region[:] = True
        region[frame:-frame, frame:-frame] = False
        return region
    if family == "corners":
        for rows, columns in _corner_slices(height, width):
            region[rows, columns] = True
        return region
    return None


def _corner_slices(height: int, width: int) -> list[tuple[slice, slice]]:
    down = max(1, round(height * _CORNER_SHARE))
    right = max(1, round(width * _CORNER_SHARE))
    return [
        (rows, columns)
        for rows in (slice(None, down), slice(-down, None))
        for columns in (slice(None, right), slice(-right, None))
    ]


def _border(pixels: np.ndarray) -> np.ndarray:
    where = region_of("border", *pixels.shape[2:])
    assert where is not None
    return _moments(pixels, np.broadcast_to(where, (len(pixels), 1, *where.shape)))


def _corners(pixels: np.ndarray) -> np.ndarray:
    corners = [pixels[:, :, rows, columns] for rows, columns in _corner_slices(*pixels.shape[2:])]
    parts = [part for c in corners for part in (c.mean((2, 3)), c.std((1, 2, 3))[:, None])]
    return np.concatenate(parts, 1).astype(np.float64)


def _margins(grey: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the share of the side that constant rows and columns take at each of the four edges.

    Rows and columns of the foreground are no margins.
    """
    found = []
    for axis in (2, 1):
        flat = grey.std(axis) < _MARGIN_LEVELS
        if mask is not None:
            flat &= ~mask[:, 0].any(axis)
        for ordered in (flat, flat[:, ::-1]):
            length = np.where(ordered.all(1), ordered.shape[1], (~ordered).argmax(1))
            found.append(length / ordered.shape[1])
    return np.stack(found, 1)


def _moments(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation of each channel over pixels, NaN if there are none."""
    count = where.sum((2, 3)).astype(np.float64)
    count[count == 0] = np.nan
    mean = (pixels * where).sum((2, 3), dtype=np.float64) / count
    square = (pixels**2 * where).sum((2, 3), dtype=np.float64) / count
    sd = np.sqrt(np.maximum(square - mean**2, 0.0))
    return np.concatenate([mean, sd], 1)


def _tails(grey: np.ndarray) -> np.ndarray:
    flat = grey.reshape(len(grey), -1)
    return np.stack([(flat <= 5).mean(1), (flat >= 250).mean(1)], 1).astype(np.float64)


def _histogram(grey: np.ndarray) -> np.ndarray:
    bins = np.minimum(grey / 256 * _HISTOGRAM_BINS, _HISTOGRAM_BINS - 1).astype(np.int64)
    flat = bins.reshape(len(grey), -1)
    return np.stack([(flat == b).mean(1) for b in range(_HISTOGRAM_BINS)], 1)


def _entropy(grey: np.ndarray) -> np.ndarray:
    entropy = np.zeros(len(grey))
    for row, image in enumerate(grey.astype(np.uint8)):
        share = np.bincount(image.ravel(), minlength=256) / image.size
        used = share[share > 0]
        entropy[row] = -(used * np.log2(used)).sum()
    return entropy


def _sharpness(grey: np.ndarray) -> np.ndarray:
    laplacian = (
        4 * grey[:, 1:-1, 1:-1]
        - grey[:, :-2, 1:-1]
        - grey[:, 2:, 1:-1]
        - grey[:, 1:-1, :-2]
        - grey[:, 1:-1, 2:]
    )
    return np.asarray(np.log1p(laplacian.var((1, 2))))


def _blockiness(grey: np.ndarray) -> np.ndarray:
    """Return how much larger steps between JPEG blocks are than steps within them."""
    if min(grey.shape[1:]) <= _BLOCK:
        return np.full(len(grey), np.nan)
    ratios = []
    for axis in (1, 2):
        steps = np.abs(np.diff(grey, axis=axis)).mean(3 - axis)
        position = np.arange(steps.shape[1]) % _BLOCK == _BLOCK - 1
        ratios.append(steps[:, position].mean(1) - steps[:, ~position].mean(1))
    return np.asarray(np.mean(ratios, 0))


def _frequency(grey: np.ndarray) -> np.ndarray:
    """Return the logarithm of the power in four rings of the spectrum."""
    spectrum = np.abs(np.fft.rfft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    down = np.abs(np.fft.fftfreq(grey.shape[1]))[:, None]
    right = np.fft.rfftfreq(grey.shape[2])[None]
    radius = np.hypot(down, right)
    edges = [0.0, 0.06, 0.12, 0.25, 1.0]
    rings = [(radius > low) & (radius <= high) for low, high in itertools.pairwise(edges)]
    # Small images have no pixels in the innermost ring.
    return np.stack([np.log1p(spectrum[:, ring].mean(1)) for ring in rings if ring.any()], 1)


def _grid(grey: np.ndarray, side: int) -> np.ndarray:
    """Return the mean of each cell of a grid."""
    rows = np.array_split(np.arange(grey.shape[1]), side)
    columns = np.array_split(np.arange(grey.shape[2]), side)
    cells = [
        grey[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean((1, 2)) for r in rows for c in columns
    ]
    return np.stack(cells, 1).astype(np.float64)


def _layout(grey: np.ndarray, side: int) -> np.ndarray:
    """Return the cells of a grid relative to the mean and contrast of the image."""
    cells = _grid(grey, side)
    spread = cells.std(1, keepdims=True)
    return (cells - cells.mean(1, keepdims=True)) / np.maximum(spread, 1.0)


def _hue_and_saturation(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hue in [0, 1) and the saturation in [0, 1] of colour images, float[N,H,W]."""
    red, green, blue = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    largest = pixels.max(1)
    spread = largest - pixels.min(1)
    safe = np.where(spread > 0, spread, 1.0)
    hue = np.where(
        largest == red,
        (green - blue) / safe % 6,
        np.where(largest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = np.divide(spread, largest, out=np.zeros_like(spread), where=largest > 0)
    return np.where(spread > 0, hue / 6, 0.0), saturation


def _hue_histogram(hue: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """Return the share of each hue, weighted by saturation; NaN for images without colour."""
    bins = np.minimum((hue * _HUE_BINS).astype(np.int64), _HUE_BINS - 1)
    weight = saturation.astype(np.float64)
    total = weight.sum((1, 2))
    total[total < 1e-6] = np.nan
    shares = [(weight * (bins == b)).sum((1, 2)) / total for b in range(_HUE_BINS)]
    return np.stack(shares, 1)
