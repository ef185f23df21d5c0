"""Near-duplicates across splits, by a perceptual hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Two images are near-duplicates if at most this many of the 64 bits of their hashes differ.
MAX_BITS = 3
#: Hashes with fewer bits of one kind belong to flat images, which all look alike.
_MIN_CONTENT = 8
_CHUNK = 1024


@dataclass(frozen=True)
class NearDuplicates:
    """Images of one split that look like images of another one.

    Attributes:
        first: Name of the first split.
        second: Name of the second split.
        pairs: Rows of the first and of the second split.
        count: Number of images of the second split with a near-duplicate in the first.
    """

    first: str
    second: str
    pairs: tuple[tuple[int, int], ...]
    count: int


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Return 64 bits per image: whether each cell of an 8×9 grid is brighter than its neighbour.

    Args:
        image: uint8[N,C,H,W].

    Returns:
        uint64[N].
    """
    grey = image.astype(np.float32).mean(1)
    rows = np.array_split(np.arange(grey.shape[1]), 8)
    columns = np.array_split(np.arange(grey.shape[2]), 9)
    cells = np.stack(
        [grey[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean((1, 2)) for r in rows for c in columns], 1
    ).reshape(len(grey), 8, 9)
    bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(grey), 64)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def find_near_duplicates(hashes: Mapping[str, np.ndarray]) -> list[NearDuplicates]:
    """Return the near-duplicates between the training split and each other split.

    Args:
        hashes: hashes of each split, the training split first.
    """
    names = list(hashes)
    found = []
    for second in names[1:]:
        pairs = _pairs(hashes[names[0]], hashes[second])
        if pairs:
            count = len({row for _, row in pairs})
            found.append(NearDuplicates(names[0], second, tuple(pairs), count))
    return found


def _pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Return the nearest row of the first array for each row of the second that has one."""
    if not len(first) or not len(second):
        return []
    content = np.bitwise_count(second)
    usable = np.flatnonzero((content >= _MIN_CONTENT) & (content <= 64 - _MIN_CONTENT))
    pairs = []
    for start in range(0, len(usable), _CHUNK):
        rows = usable[start : start + _CHUNK]
        distance = np.bitwise_count(second[rows][:, None] ^ first[None])
        nearest = distance.argmin(1)
        close = distance[np.arange(len(rows)), nearest] <= MAX_BITS
        pairs += list(zip(nearest[close].tolist(), rows[close].tolist(), strict=True))
    return pairs
