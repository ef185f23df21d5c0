"""Confusion counts as records and logs store them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.summaries import DataSummary
from benchmark.core.text import one_line

#: Largest number of images in a cell of a confusion matrix. Sums of such numbers are exact.
MAX_IMAGES = 10**12


def parse_counts(
    nested: Any, data: DataSummary, where: str, place: str, own: bool = True
) -> np.ndarray:
    """Decode confusion counts as the smallest unsigned type that can represent them.

    A sweep has thousands of such tables, so their size matters.

    Args:
        nested: Parsed JSON, [confounder][label][predicted], or [label][confounder][2][2] for
            multi-label data.
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
    try:
        array = np.asarray(nested)
    except (ValueError, OverflowError, RecursionError):
        array = np.empty(0, object)
    rows = array.shape[shape.index(-1)] if array.ndim == len(shape) else 0
    fits = rows > 0 and all(
        expected in (-1, size) for expected, size in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "i" or (own and rows not in confounders):
        sizes = ", ".join("confounder" if n < 0 else str(n) for n in shape)
        problem = f"are {array.dtype}{list(array.shape)}, expected whole numbers [{sizes}]"
    elif any(type(count) is not int for count in _flatten(nested, array.ndim)):
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
