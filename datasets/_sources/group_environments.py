"""Training environments with given proportions of the groups, as the eX2L experiments make them (its Table 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.core.errors import UserError
from datasets._sources.bias_assignment import stream

#: Share of each environment that is for validation (DomainBed's holdout_fraction).
HOLDOUT = 0.2


def environments(
    seed: int, group: np.ndarray, proportions: Sequence[Sequence[float]], holdout: float = HOLDOUT
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows and environment of ``train`` and ``val``, int64[N] each: environments of one size, as large as can be.

    Every environment gets its proportions of the groups, up to rounding; no image is in two of them, and what the
    proportions leave over is in none.

    Args:
        seed: of the trial.
        group: int64[N]; −1 for an image that may not be used.
        proportions: per environment, the share of each group.
        holdout: share of each group of each environment that is for validation.

    Raises:
        UserError: a group has too few images.
    """
    shares = np.asarray(proportions, dtype=np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    available = np.bincount(group[group >= 0], minlength=shares.shape[1])
    needed = shares.sum(axis=0)
    size = int(min(available[g] / needed[g] for g in range(len(needed)) if needed[g] > 0))
    if size < 2:
        raise UserError(
            f"the images of the groups ({', '.join(map(str, available))}) do not suffice for environments with these "
            "proportions; take the whole data set."
        )
    rows: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    numbers: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for g in range(shares.shape[1]):
        pool = stream(seed, "environments", g).permutation(np.flatnonzero(group == g))
        ends = np.floor(np.cumsum(shares[:, g]) * size + 1e-9).astype(np.int64)
        for environment, part in enumerate(np.split(pool, ends)[: len(shares)]):
            held = round(len(part) * holdout)
            for name, chosen in (("val", part[:held]), ("train", part[held:])):
                rows[name].append(chosen)
                numbers[name].append(np.full(len(chosen), environment, np.int64))
    out = {}
    for name in rows:
        chosen, number = np.concatenate(rows[name]), np.concatenate(numbers[name])
        order = np.argsort(chosen, kind="stable")
        out[name] = chosen[order], number[order]
    return out
