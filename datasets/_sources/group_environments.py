"""Training environments with different proportions of groups, as in the eX2L experiments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.core.errors import UserError
from datasets._sources.bias_assignment import random_stream

#: The share of each environment that is used for validation (DomainBed's holdout_fraction).
HOLDOUT = 0.2


def redraw_parts(seed: int, part: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Redraw train, val and test of a release so that all have the same proportions of groups.

    The parts keep their sizes up to rounding. The test does not depend on the seed, so all trials
    have the same test images.

    Args:
        seed: The seed of the trial.
        part: int64[N], the parts of the release: 0 (train), 1 (val) or 2 (test).
        group: int64[N].

    Returns:
        int64[N], the new parts.
    """
    train, val, _ = np.bincount(part, minlength=3) / len(part)
    redrawn = np.full_like(part, 2)
    for g in np.unique(group):
        rows = random_stream(0, "test", g).permutation(np.flatnonzero(group == g))
        kept = rows[: round(len(rows) * (train + val))]
        shuffled = random_stream(seed, "val", g).permutation(kept)
        num_train = round(len(rows) * train)
        redrawn[shuffled[:num_train]] = 0
        redrawn[shuffled[num_train:]] = 1
    return redrawn


def assign_environments(
    seed: int, part: np.ndarray, group: np.ndarray, first_shares: Sequence[float]
) -> np.ndarray:
    """Divide the images of a release between two environments at random.

    Every part of the release is divided separately, with the same shares.

    Args:
        seed: The seed of the trial.
        part: int64[N]; 0 is the training part.
        group: int64[N] in 0 … G − 1.
        first_shares: The share of each of the G groups that belongs to the first environment.

    Returns:
        int64[N], 0 or 1.

    Raises:
        UserError: If an environment has no training image of a group.
    """
    environment = np.ones_like(group)
    for g, share in enumerate(first_shares):
        for number in np.unique(part):
            rows = np.flatnonzero((group == g) & (part == number))
            shuffled = random_stream(seed, "environments", number, g).permutation(rows)
            environment[shuffled[: round(len(rows) * share)]] = 0
        in_first = environment[(group == g) & (part == 0)] == 0
        if in_first.all() or not in_first.any():
            raise UserError(
                f"{len(in_first)} training images of a group do not suffice for two environments; "
                "use the complete data set."
            )
    return environment
