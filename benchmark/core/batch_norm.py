"""Batch normalisation layers, for which torch has no common public base class."""

from __future__ import annotations

from torch import nn

#: All batch normalisation layers, for ``isinstance``.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
