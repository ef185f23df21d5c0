"""Division of data into training, validation and test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from datasets._sources.bias_assignment import random_stream


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


def divide_by_cluster(
    seed: int, label: np.ndarray, cluster: np.ndarray, shares: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Divide images so that no cluster, such as a patient, is in two splits.

    The shares are those of the clusters of each class. A cluster with images of several classes
    counts for the class of its first image.

    Args:
        seed: The seed of the trial.
        label: int64[N].
        cluster: int64[N].
        shares: The share of every split except ``train``, which gets the rest. Each of these splits
            gets at least one cluster of each class.

    Returns:
        The rows of ``train`` and of each split in ``shares``, sorted.
    """
    clusters, first_row = np.unique(cluster, return_index=True)
    selected: dict[str, list[np.ndarray]] = {"train": [], **{name: [] for name in shares}}
    for value in np.unique(label).tolist():
        members = clusters[label[first_row] == value]
        remaining = random_stream(seed, "divide", value).permutation(members)
        for name, share in shares.items():
            count = max(1, round(share * len(members)))
            selected[name].append(remaining[:count])
            remaining = remaining[count:]
        selected["train"].append(remaining)
    return {
        name: np.flatnonzero(np.isin(cluster, np.concatenate(parts)))
        for name, parts in selected.items()
    }


def check_clusters(
    table: Path, label: np.ndarray, names: Sequence[str], cluster: np.ndarray, kind: str
) -> None:
    """Check that every class has enough clusters to be in train, val and test.

    Args:
        table: The table, for messages.
        label: int64[N].
        names: The names of the classes.
        cluster: int64[N].
        kind: A plural noun for the clusters, such as ``patients``.

    Raises:
        UserError: If a class has fewer than three clusters.
    """
    _, first_row = np.unique(cluster, return_index=True)
    for value, name in enumerate(names):
        count = int((label[first_row] == value).sum())
        if count < 3:
            raise UserError(
                f"{table} has too few {kind} of the class {name} ({count}), expected at least 3, "
                "one for each of train, val and test; use the complete table."
            )
