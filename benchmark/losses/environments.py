"""Rows of each environment, and the risk averaged over environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from benchmark.core.dataset import DatasetInfo
    from benchmark.core.spec import RunSpec


def lacks_pairs(spec: RunSpec, info: DatasetInfo, what: str) -> str | None:
    """Return why batches do not hold two images of every environment, or None if they do.

    Args:
        spec: the run.
        info: its data.
        what: part of the method that needs two images, such as ``"the penalty"``.

    Returns:
        A sentence for the user, or None.
    """
    rows = spec.hparams["batch_size"]
    environments = len(info.environment_names)
    if rows >= 2 * environments:
        return None
    return (
        f"{what} needs two images of every environment in a batch, but batch_size = {rows} and "
        f"there are {environments} environments; use a batch_size of at least {2 * environments}."
    )


def rows_of_each(
    environment: torch.Tensor, count: int, sizes: Sequence[int] | None = None
) -> list[torch.Tensor]:
    """Return the rows of every environment present, ordered by environment, then by row.

    Args:
        environment: int64[B], values below ``count``.
        count: number of environments.
        sizes: number of rows of each environment, as in ``Batch.environment_sizes``; None to read
            them from ``environment``, which waits for a GPU.

    Returns:
        int64[n] for each environment with n ≥ 1 rows.
    """
    order = torch.argsort(environment, stable=True)
    if sizes is None:
        sizes = torch.bincount(environment, minlength=count).tolist()
    return [rows for rows in order.split(list(sizes)) if len(rows)]


def mean_risk(logits: torch.Tensor, label: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    """Return the cross-entropy averaged within each set of rows, then over the sets.

    Args:
        logits: float[B,K].
        label: int64[B].
        rows: at least one set, none of them empty, as from ``rows_of_each``.
    """
    losses = F.cross_entropy(logits, label, reduction="none")
    return torch.stack([losses[chosen].mean() for chosen in rows]).mean()


def mean_risk_of_parts(
    logits: torch.Tensor, label: torch.Tensor, part: torch.Tensor, count: int
) -> torch.Tensor:
    """Return what ``mean_risk`` does, for parts whose sizes only the device knows.

    Sums over a one-hot matrix need no sizes, so that the step does not wait for a GPU.

    Args:
        logits: float[B,K].
        label: int64[B].
        part: int64[B], values below ``count``.
        count: number of parts; those without rows do not count.
    """
    losses = F.cross_entropy(logits, label, reduction="none")
    member = F.one_hot(part, count).to(losses.dtype)
    sizes = member.sum(0)
    risks = (member * losses[:, None]).sum(0) / sizes.clamp_min(1)
    return risks.sum() / (sizes > 0).sum()
