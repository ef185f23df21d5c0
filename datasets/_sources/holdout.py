"""Division of training data into training and validation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def hold_out(
    groups: Iterable[np.ndarray], share: float, minimum: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of each group for validation.

    Args:
        groups: The rows of each group in random order, int64[n].
        share: The share of each group that is held out: its first rows, rounded.
        minimum: The smallest number of rows to hold out from a group.

    Returns:
        The rows of train and of val, sorted.
    """
    train = []
    val = []
    for rows in groups:
        count = max(minimum, round(len(rows) * share))
        val.append(rows[:count])
        train.append(rows[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))
