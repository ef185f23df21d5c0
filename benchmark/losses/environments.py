"""Rows by environment, and the empirical risk in which every environment counts the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from benchmark.core.dataset import DatasetInfo
    from benchmark.core.spec import RunSpec


def lacks_pairs(spec: RunSpec, info: DatasetInfo, what: str) -> str | None:
    """Why a method cannot run whose batches need two images of every environment, in a sentence, or None.

    Args:
        what: the part of the method that needs them: ``"the penalty"``.
    """
    rows, environments = spec.hparams["batch_size"], len(info.environment_names)
    if rows >= 2 * environments:
        return None
    return (
        f"{what} needs two images of every environment in a batch, but batch_size = {rows} and there are "
        f"{environments} environments; a batch_size of {2 * environments} or more would do."
    )


def rows_of_each(environment: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The rows of every environment that is present, in the order of the environments and, within one, of the batch.

    Args:
        environment: int64[B], values below ``count``.
        count: number of environments.

    Returns:
        int64[n] for each environment with n ≥ 1 rows. Reads the counts back from the device once.
    """
    order = torch.argsort(environment, stable=True)
    sizes = torch.bincount(environment, minlength=count).tolist()
    return [rows for rows in order.split(sizes) if len(rows)]


def mean_risk(logits: torch.Tensor, label: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    """Cross-entropy averaged within each set of rows, then over the sets.

    Args:
        logits: float[B,K].
        label: int64[B].
        rows: at least one set, none empty, as ``rows_of_each`` gives them.
    """
    losses = F.cross_entropy(logits, label, reduction="none")
    return torch.stack([losses[chosen].mean() for chosen in rows]).mean()
