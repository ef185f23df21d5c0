"""Masks of the evidence for each class, stored sparsely and rasterised for the rows of a batch.

An image may have several boxes and segmentations of each class, and most images have none. Storing
them as coordinates takes a few bytes per box, where a dense array takes a byte per class and pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np


class RelativeBox(NamedTuple):
    """A rectangle, in shares of the width and the height of its image.

    Attributes:
        left: Left edge.
        top: Top edge.
        right: Right edge.
        bottom: Bottom edge.
    """

    left: float
    top: float
    right: float
    bottom: float


#: The whole image.
WHOLE = RelativeBox(0.0, 0.0, 1.0, 1.0)
#: Images whose masks are drawn at once when they are counted.
_ROWS_PER_PIECE = 64


class RunLengths(NamedTuple):
    """A segmentation as alternating runs of background and object, column by column, as in COCO.

    Attributes:
        counts: Lengths of the runs, beginning with background.
        height: Height of the segmentation in pixels, which may differ from that of its image.
        width: Width in pixels.
    """

    counts: Sequence[int]
    height: int
    width: int

    @classmethod
    def from_mask(cls, mask: np.ndarray) -> RunLengths:
        """Return the runs of a mask bool[H,W]."""
        flat = np.concatenate([[False], mask.T.reshape(-1)])
        ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), mask.size)
        counts = np.diff(ends, prepend=0).tolist()
        return cls(counts, mask.shape[0], mask.shape[1])


Shape: TypeAlias = RelativeBox | RunLengths


class LabelledShape(NamedTuple):
    """A part of the evidence for a class on an image.

    Attributes:
        label: Number of the class.
        shape: Where the evidence is.
    """

    label: int
    shape: Shape


class ClassMasks:
    """Base class: the masks of N images and K classes.

    Args:
        shape: (N, K, H, W).
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def rasterise(self, rows: np.ndarray) -> np.ndarray:
        """Return the masks of some images.

        Args:
            rows: int64[n].

        Returns:
            bool[n,K,H,W], a new array. The mask of a class is empty if its evidence is not known.
        """
        raise NotImplementedError

    def known(self) -> np.ndarray:
        """Return which classes of which images may have evidence, bool[N,K], without drawing it.

        The masks of all others are empty.
        """
        raise NotImplementedError

    def counts(self) -> np.ndarray:
        """Return how many images have each pixel in the mask of each class, int64[K,H,W]."""
        counts = np.zeros(self.shape[1:], np.int64)
        rows = np.flatnonzero(self.known().any(1))
        for start in range(0, len(rows), _ROWS_PER_PIECE):
            counts += self.rasterise(rows[start : start + _ROWS_PER_PIECE]).sum(0)
        return counts

    def take(self, rows: np.ndarray) -> ClassMasks:
        """Return the masks of some images as a store of its own, without copying them."""
        return _TakenRows(self, rows)

    def without(self, excluded: np.ndarray) -> ClassMasks:
        """Return the same masks without some pixels of each image.

        Args:
            excluded: bool[N,1,H,W], True for the pixels that no mask has.
        """
        return _WithoutPixels(self, excluded)


class _TakenRows(ClassMasks):
    """The masks of some images of another store."""

    def __init__(self, masks: ClassMasks, rows: np.ndarray) -> None:
        super().__init__((len(rows), *masks.shape[1:]))
        self._masks = masks
        self._rows = rows

    def rasterise(self, rows: np.ndarray) -> np.ndarray:
        return self._masks.rasterise(self._rows[rows])

    def known(self) -> np.ndarray:
        return self._masks.known()[self._rows]  # type: ignore[no-any-return]


class _WithoutPixels(ClassMasks):
    """The masks of another store, from which some pixels are removed."""

    def __init__(self, masks: ClassMasks, excluded: np.ndarray) -> None:
        super().__init__(masks.shape)
        self._masks = masks
        self._excluded = excluded

    def rasterise(self, rows: np.ndarray) -> np.ndarray:
        return self._masks.rasterise(rows) & ~np.asarray(self._excluded[rows])

    def known(self) -> np.ndarray:
        return self._masks.known()


class OwnClassMasks(ClassMasks):
    """The foreground as the evidence for the one class of each image.

    Args:
        mask: bool[N,1,H,W].
        label: int64[N].
        num_classes: K.
    """

    def __init__(self, mask: np.ndarray, label: np.ndarray, num_classes: int) -> None:
        super().__init__((len(label), num_classes, *mask.shape[2:]))
        self._mask = mask
        self._label = label

    def rasterise(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), *self.shape[1:]), bool)
        out[np.arange(len(rows)), self._label[rows]] = self._mask[rows, 0]
        return out

    def known(self) -> np.ndarray:
        return self._label[:, None] == np.arange(self.shape[1])  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Boxes:
    """Boxes in pixels of the rasterised masks, sorted by image.

    Attributes:
        start: int64[N+1], position of the first box of each image.
        label: int16[P].
        box: float32[P,4], left, top, right, bottom.
    """

    start: np.ndarray
    label: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class _Runs:
    """Segmentations, sorted by image.

    Attributes:
        start: int64[N+1], position of the first segmentation of each image.
        label: int16[P].
        size: int32[P,2], height and width.
        view: float32[P,4], the part of the image that the rasterised mask shows.
        first: int64[P+1], position of the first run of each segmentation.
        end: uint32[R], the pixel after each run.
    """

    start: np.ndarray
    label: np.ndarray
    size: np.ndarray
    view: np.ndarray
    first: np.ndarray
    end: np.ndarray


class SparseClassMasks(ClassMasks):
    """Boxes and segmentations of each class and image. The mask of a class is their union.

    A pixel belongs to a shape if its centre does. A shape that is smaller than a pixel takes the
    pixel that it lies in, so that it does not disappear from small images.

    Args:
        shapes: The shapes of each of N images.
        num_classes: K.
        image_size: (H, W) of the rasterised masks.
        views: For each image the part that the rasterised mask shows, which is larger than the
            image if it was padded; by default the whole image.
    """

    def __init__(
        self,
        shapes: Sequence[Iterable[LabelledShape]],
        num_classes: int,
        image_size: tuple[int, int],
        views: Sequence[RelativeBox] | None = None,
    ) -> None:
        super().__init__((len(shapes), num_classes, *image_size))
        boxes: list[tuple[int, int, RelativeBox, RelativeBox]] = []
        runs: list[tuple[int, int, RunLengths, RelativeBox]] = []
        for row, shapes_of_image in enumerate(shapes):
            view = WHOLE if views is None else views[row]
            for label, shape in shapes_of_image:
                if not 0 <= label < num_classes:
                    raise ValueError(
                        f"a shape of image {row} has the class {label}, expected 0 to "
                        f"{num_classes - 1}"
                    )
                if isinstance(shape, RelativeBox):
                    boxes.append((row, label, shape, view))
                else:
                    runs.append((row, label, shape, view))
        self._boxes = self._pack_boxes(boxes)
        self._runs = self._pack_runs(runs)

    @property
    def nbytes(self) -> int:
        """The memory that the store takes, in bytes."""
        tables = (self._boxes, self._runs)
        return sum(array.nbytes for table in tables for array in vars(table).values())

    def rasterise(self, rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows), *self.shape[1:]), bool)
        for mask, row in zip(out, rows.tolist(), strict=True):
            for piece in range(self._boxes.start[row], self._boxes.start[row + 1]):
                self._draw_box(mask[self._boxes.label[piece]], self._boxes.box[piece])
            for piece in range(self._runs.start[row], self._runs.start[row + 1]):
                self._draw_runs(mask[self._runs.label[piece]], piece)
        return out

    def known(self) -> np.ndarray:
        out = np.zeros(self.shape[:2], bool)
        for table in (self._boxes, self._runs):
            image = np.repeat(np.arange(len(self)), np.diff(table.start))
            out[image, table.label] = True
        return out

    def _starts(self, rows: Sequence[int]) -> np.ndarray:
        return np.searchsorted(np.array(rows, np.int64), np.arange(len(self) + 1))

    def _pack_boxes(self, boxes: Sequence[tuple[int, int, RelativeBox, RelativeBox]]) -> _Boxes:
        height, width = self.shape[2:]
        box = np.array([shape for _, _, shape, _ in boxes], np.float64).reshape(-1, 4)
        view = np.array([seen for *_, seen in boxes], np.float64).reshape(-1, 4)
        origin = view[:, [0, 1, 0, 1]]
        extent = view[:, [2, 3, 2, 3]] - origin
        pixels = (box - origin) / extent * (width, height, width, height)
        return _Boxes(
            start=self._starts([row for row, *_ in boxes]),
            label=np.array([label for _, label, *_ in boxes], np.int16),
            box=pixels.astype(np.float32),
        )

    def _pack_runs(self, runs: Sequence[tuple[int, int, RunLengths, RelativeBox]]) -> _Runs:
        ends = [
            np.cumsum(shape.counts, dtype=np.int64).astype(np.uint32) for _, _, shape, _ in runs
        ]
        return _Runs(
            start=self._starts([row for row, *_ in runs]),
            label=np.array([label for _, label, *_ in runs], np.int16),
            size=np.array(
                [(shape.height, shape.width) for _, _, shape, _ in runs], np.int32
            ).reshape(-1, 2),
            view=np.array([view for *_, view in runs], np.float32).reshape(-1, 4),
            first=np.cumsum([0, *map(len, ends)], dtype=np.int64),
            end=np.concatenate(ends) if ends else np.zeros(0, np.uint32),
        )

    def _draw_box(self, mask: np.ndarray, box: np.ndarray) -> None:
        """Fill a box in a mask bool[H,W]."""
        height, width = mask.shape
        left, right = _covered(float(box[0]), float(box[2]), width)
        top, bottom = _covered(float(box[1]), float(box[3]), height)
        mask[top:bottom, left:right] = True

    def _draw_runs(self, mask: np.ndarray, piece: int) -> None:
        """Add a segmentation to a mask bool[H,W]."""
        runs = self._runs
        end = runs.end[runs.first[piece] : runs.first[piece + 1]]
        height, width = runs.size[piece].tolist()
        left, top, right, bottom = runs.view[piece].tolist()
        y = (top + (np.arange(mask.shape[0]) + 0.5) / mask.shape[0] * (bottom - top)) * height
        x = (left + (np.arange(mask.shape[1]) + 0.5) / mask.shape[1] * (right - left)) * width
        row = np.floor(y).astype(np.int64)[:, None]
        column = np.floor(x).astype(np.int64)[None]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        drawn = inside & (np.searchsorted(end, column * height + row, side="right") % 2 == 1)
        if not drawn.any():
            middle = _middle_of_longest_run(end)
            if middle is None:
                return
            i = int(((middle % height + 0.5) / height - top) / (bottom - top) * mask.shape[0])
            j = int(((middle // height + 0.5) / width - left) / (right - left) * mask.shape[1])
            if not (0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]):
                return  # outside the visible part
            drawn[i, j] = True
        mask |= drawn


def _covered(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the first and the last + 1 of the pixels whose centres lie in an interval.

    If there are none, it is the pixel of the interval's centre.
    """
    if high <= 0 or low >= size:
        return 0, 0
    first = max(int(np.ceil(low - 0.5)), 0)
    last = min(int(np.ceil(high - 0.5)), size)
    if first < last:
        return first, last
    pixel = min(max(int((low + high) / 2), 0), size - 1)
    return pixel, pixel + 1


def _middle_of_longest_run(end: np.ndarray) -> int | None:
    """Return the pixel in the middle of the longest run of an object, or None without an object."""
    counts = np.diff(end.astype(np.int64), prepend=0)[1::2]
    if not counts.any():
        return None
    longest = int(counts.argmax())
    return int(end[2 * longest + 1]) - int(counts[longest] + 1) // 2
