"""Training environments with given proportions of groups, as in the eX2L experiments (Table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.core.errors import UserError
from datasets._sources.bias_assignment import random_stream

#: The share of each environment that is used for validation (DomainBed's holdout_fraction).
HOLDOUT = 0.2


def sample_environments(
    seed: int, group: np.ndarray, proportions: Sequence[Sequence[float]], holdout: float = HOLDOUT
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw disjoint environments of equal size, as large as the groups allow.

    Every environment has its proportions of the groups, up to rounding. Images that the proportions
    leave over belong to no environment.

    Args:
        seed: The seed of the trial.
        group: int64[N]; −1 for an image that must not be used.
        proportions: The share of each group, per environment.
        holdout: The share of each group of each environment that is used for validation.

    Returns:
        For ``train`` and ``val``: the rows and their environments, int64[n] each.

    Raises:
        UserError: If a group has too few images.
    """
    shares = np.asarray(proportions, dtype=np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    available = np.bincount(group[group >= 0], minlength=shares.shape[1])
    needed = shares.sum(axis=0)
    size = int(min(available[g] / needed[g] for g in range(len(needed)) if needed[g] > 0))
    if size < 2:
        raise UserError(
            f"the images of the groups ({', '.join(map(str, available))}) do not suffice for "
            "environments with these proportions; use the complete data set."
        )
    rows: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    environments: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for g in range(shares.shape[1]):
        shuffled = random_stream(seed, "environments", g).permutation(np.flatnonzero(group == g))
        ends = np.floor(np.cumsum(shares[:, g]) * size + 1e-9).astype(np.int64)
        for environment, part in enumerate(np.split(shuffled, ends)[: len(shares)]):
            held_out = round(len(part) * holdout)
            for split, selected in (("val", part[:held_out]), ("train", part[held_out:])):
                rows[split].append(selected)
                environments[split].append(np.full(len(selected), environment, np.int64))
    out = {}
    for split in rows:
        split_rows = np.concatenate(rows[split])
        order = np.argsort(split_rows, kind="stable")
        out[split] = split_rows[order], np.concatenate(environments[split])[order]
    return out
