"""Rows by environment, and the empirical risk in which every environment counts the same."""

from __future__ import annotations

import torch
from torch.nn import functional as F


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
