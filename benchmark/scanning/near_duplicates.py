"""Near-duplicates across splits, by a perceptual hash and the correlation of thumbnails.

The hash alone finds copies that were compressed, resized or brightened, but also pairs of images of
one kind that resemble each other, such as frontal X-rays of different patients. Thumbnails of the
candidates are therefore compared as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

#: Candidates are images of which at most this many of the 64 bits of their hashes differ.
MAX_BITS = 3
#: Two candidates are near-duplicates if the correlation of their thumbnails is at least this large.
MIN_CORRELATION = 0.99
#: Hashes with fewer bits of one kind belong to flat images, which all look alike.
_MIN_CONTENT = 8
_THUMBNAIL = 24
_IMAGES_PER_PART = 256
_CANDIDATES_PER_PART = 20_000


@dataclass(frozen=True)
class NearDuplicates:
    """Images of one split that look like images of another one.

    Attributes:
        first: Name of the first split.
        second: Name of the second split.
        pairs: Rows of the first and of the second split: for each image of the second split that
            has near-duplicates, the most similar one.
    """

    first: str
    second: str
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Sketches:
    """What is compared of the images of a split.

    Attributes:
        bits: uint64[N], the results of ``difference_hash``.
        thumbnail: float16[N,T], small grey images with mean 0 and norm 1.
    """

    bits: np.ndarray
    thumbnail: np.ndarray


def sketch(image: np.ndarray) -> Sketches:
    """Return the sketches of images uint8[N,C,H,W]."""
    bits = [np.zeros(0, np.uint64)]
    thumbnails = []
    for start in range(0, len(image), _IMAGES_PER_PART):
        grey = np.asarray(image[start : start + _IMAGES_PER_PART]).astype(np.float32).mean(1)
        bits.append(_bits_of(grey))
        thumbnails.append(_thumbnails_of(grey))
    joined = np.concatenate(thumbnails) if thumbnails else np.zeros((0, 1), np.float16)
    return Sketches(np.concatenate(bits), joined)


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Return 64 bits per image: whether each cell of an 8×9 grid is darker than the next one.

    Args:
        image: uint8[N,C,H,W].

    Returns:
        uint64[N].
    """
    return sketch(image).bits


def _bits_of(grey: np.ndarray) -> np.ndarray:
    cells = _cells(grey, 8, 9)
    bits = (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(grey), 64)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _thumbnails_of(grey: np.ndarray) -> np.ndarray:
    rows, columns = (min(_THUMBNAIL, side) for side in grey.shape[1:])
    flat = _cells(grey, rows, columns).reshape(len(grey), -1)
    flat -= flat.mean(1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(norm, 1e-6), np.float16)


def _cells(grey: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the means of the cells of a grid, float32[N,rows,columns]."""
    down = np.array_split(np.arange(grey.shape[1]), rows)
    right = np.array_split(np.arange(grey.shape[2]), columns)
    cells = [grey[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean((1, 2)) for r in down for c in right]
    return np.stack(cells, 1).reshape(len(grey), rows, columns)


def find_near_duplicates(
    sketches: Mapping[str, Sketches], pairs: Iterable[tuple[str, str]] | None = None
) -> list[NearDuplicates]:
    """Return the near-duplicates between splits.

    Args:
        sketches: sketches of the images of each split.
        pairs: names of the splits to compare; by default all pairs.
    """
    found = []
    for first, second in pairs or itertools.combinations(sketches, 2):
        rows = tuple(_most_similar(sketches[first], sketches[second]))
        if rows:
            found.append(NearDuplicates(first, second, rows))
    return found


def _most_similar(first: Sketches, second: Sketches) -> Iterator[tuple[int, int]]:
    """Yield the most similar row of ``first`` for each row of ``second`` with near-duplicates."""
    content = np.bitwise_count(second.bits)
    usable = np.flatnonzero((content >= _MIN_CONTENT) & (content <= 64 - _MIN_CONTENT))
    for start in range(0, len(usable) if len(first.bits) else 0, _IMAGES_PER_PART):
        rows = usable[start : start + _IMAGES_PER_PART]
        distance = np.bitwise_count(second.bits[rows][:, None] ^ first.bits[None])
        which, candidate = np.nonzero(distance <= MAX_BITS)
        correlation = _correlations(first.thumbnail, candidate, second.thumbnail, rows[which])
        similar = correlation >= MIN_CORRELATION
        order = np.lexsort((-correlation[similar], which[similar]))
        found, position = np.unique(which[similar][order], return_index=True)
        best = candidate[similar][order][position]
        yield from zip(best.tolist(), rows[found].tolist(), strict=True)


def _correlations(
    first: np.ndarray, rows: np.ndarray, second: np.ndarray, others: np.ndarray
) -> np.ndarray:
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(rows), _CANDIDATES_PER_PART):
        part = slice(start, start + _CANDIDATES_PER_PART)
        one = first[rows[part]].astype(np.float32)
        parts.append((one * second[others[part]]).sum(1))
    return np.concatenate(parts)
