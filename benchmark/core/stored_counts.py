"""Confusion counts as records and logs store them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.summaries import (
    DataSummary,
)
from benchmark.core.text import one_line

#: Images that a cell of a confusion matrix may count; sums of such numbers stay exact.
MOST_IMAGES = 10**12


def parse_counts(
    nested: Any, data: DataSummary, where: str, place: str, own: bool = True
) -> np.ndarray:
    """Confusion counts as the smallest unsigned type that holds them: a sweep has thousands of such tables.

    Args:
        nested: parsed JSON, [confounder][label][predicted], or with several labels [label][confounder][2][2].
        data: of the run.
        where: the file, for messages.
        place: where in the file.
        own: whether the run's own confounders are expected; otherwise any number of them may be there.

    Raises:
        DamagedError: another shape, or numbers that are no counts.
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
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "i" or (own and rows not in confounders):
        wanted = ", ".join("confounder" if n < 0 else str(n) for n in shape)
        problem = f"are {array.dtype}{list(array.shape)}, expected whole numbers [{wanted}]"
    elif any(type(count) is not int for count in _flat(nested, array.ndim)):
        problem = "hold true or false, expected whole numbers"
    elif (low := int(array.min())) < 0:
        problem = f"hold {low}, expected at least 0"
    elif (high := int(array.max())) > MOST_IMAGES:
        problem = f"hold {high}, expected at most {MOST_IMAGES:,}"
    else:
        return array.astype(np.min_scalar_type(high))
    raise DamagedError(f"{where} is damaged: counts of {one_line(place)[:200]} {problem}.")


def _flat(nested: Any, dimensions: int) -> Iterable[Any]:
    for _ in range(dimensions - 1):
        nested = itertools.chain.from_iterable(nested)
    return nested
