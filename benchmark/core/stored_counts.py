"""Confusion counts as records and logs store them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.text import one_line

if TYPE_CHECKING:
    from benchmark.core.summaries import DataSummary

#: Largest number of images in a cell of a confusion matrix. Sums of such numbers are exact.
MAX_IMAGES = 10**12
#: Larger tables, those of more than 100 classes, are stored as their cells that are not 0.
MAX_DENSE_CELLS = 10_000
#: Largest number of cells of a table that is stored by its cells.
MAX_CELLS = 10**8


def counts_to_json(counts: np.ndarray) -> Any:
    """Return confusion counts as JSON.

    Returns:
        Nested lists, or for tables of more than ``MAX_DENSE_CELLS`` cells the ``shape``, the
        positions ``cell`` of all counts that are not 0 in the flattened table, and these ``count``.
    """
    if counts.size <= MAX_DENSE_CELLS:
        return counts.tolist()
    flat = counts.reshape(-1)
    cell = np.flatnonzero(flat)
    return {"shape": list(counts.shape), "cell": cell.tolist(), "count": flat[cell].tolist()}


def _expand(stored: Mapping[str, Any]) -> Any:
    """Return the table that ``counts_to_json`` wrote, int64; None if it is invalid."""
    shape, cell, count = (stored.get(name) for name in ("shape", "cell", "count"))
    lists = [shape, cell, count]
    if not all(isinstance(x, list) and all(type(n) is int for n in x) for x in lists):
        return None
    assert isinstance(shape, list) and isinstance(cell, list) and isinstance(count, list)
    size = math.prod(shape)
    if not shape or min(shape) < 1 or size > MAX_CELLS or len(cell) != len(count):
        return None
    if len(set(cell)) < len(cell) or not all(0 <= n < size for n in cell):
        return None
    if not all(0 <= n <= MAX_IMAGES for n in count):
        return None
    table = np.zeros(size, np.min_scalar_type(max(count, default=0)))
    table[cell] = count
    return table.reshape(shape).astype(np.int64)


def read_counts(nested: Any, where: str) -> np.ndarray:
    """Decode confusion counts of data that are not known, such as those of a run that trains.

    Raises:
        DamagedError: If they are no table of whole numbers with three or four dimensions.
    """
    try:
        array = np.asarray(_expand(nested) if isinstance(nested, dict) else nested)
    except (ValueError, OverflowError, RecursionError):
        array = np.empty(0, object)
    if array.ndim not in (3, 4) or array.dtype.kind != "i":
        raise DamagedError(f"{where} is damaged: its counts are no table of whole numbers.")
    return array


def parse_counts(
    nested: Any, data: DataSummary, where: str, place: str, own: bool = True
) -> np.ndarray:
    """Decode confusion counts as the smallest unsigned type that can represent them.

    A sweep has thousands of such tables, so their size matters.

    Args:
        nested: Parsed JSON, [confounder][label][predicted], or [label][confounder][2][2] for
            multi-label data, or the cells of a large table as ``counts_to_json`` writes them.
        data: Data of the run.
        where: Name of the file, for messages.
        place: Position in the file, for messages.
        own: True to accept only the confounders of ``data``; False to accept any number of them.

    Raises:
        DamagedError: If the table has another shape or contains invalid counts.
    """
    classes = len(data.label_names)
    confounders = {1, len(data.confounder_names) or 1}
    shape = (classes, -1, 2, 2) if data.multi_label else (-1, classes, classes)
    sparse = isinstance(nested, dict)
    try:
        array = np.asarray(_expand(nested) if sparse else nested)
    except (ValueError, OverflowError, RecursionError):
        array = np.empty(0, object)
    rows = array.shape[shape.index(-1)] if array.ndim == len(shape) else 0
    fits = rows > 0 and all(
        expected in (-1, size) for expected, size in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "i" or (own and rows not in confounders):
        sizes = ", ".join("confounder" if n < 0 else str(n) for n in shape)
        problem = f"are {array.dtype}{list(array.shape)}, expected whole numbers [{sizes}]"
    elif not sparse and any(type(count) is not int for count in _flatten(nested, array.ndim)):
        problem = "contain true or false, expected whole numbers"
    elif (low := int(array.min())) < 0:
        problem = f"contain {low}, expected at least 0"
    elif (high := int(array.max())) > MAX_IMAGES:
        problem = f"contain {high}, expected at most {MAX_IMAGES:,}"
    else:
        return array.astype(np.min_scalar_type(high))
    raise DamagedError(f"{where} is damaged: counts of {one_line(place)[:200]} {problem}.")


def _flatten(nested: Any, dimensions: int) -> Iterable[Any]:
    for _ in range(dimensions - 1):
        nested = itertools.chain.from_iterable(nested)
    return nested
