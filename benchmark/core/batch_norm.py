"""Batch normalisation, of which torch has several classes and no public name for all of them."""

from __future__ import annotations

from torch import nn

#: For ``isinstance``: whatever normalises by the statistics of a batch.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
