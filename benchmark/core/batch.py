"""A batch of images with their annotations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.core.needs import Needs

#: Optional fields of a batch, and the fields of ``Needs`` that declare them.
ANNOTATIONS = {
    "group": "groups",
    "confounder": "confounder",
    "environment": "environments",
    "environment_sizes": "environments",
    "mask": "masks",
    "class_mask": "class_masks",
}


@dataclass(frozen=True)
class Batch:
    """The input of a training step.

    Attributes ``group``, ``confounder``, ``environment``, ``environment_sizes``, ``mask`` and
    ``class_mask`` are None unless the algorithm declares that it needs them.

    Attributes:
        image: float[B,C,H,W], normalised.
        label: int64[B], or float[B,K] of 0 and 1 for multi-label data, NaN where it is not known.
        index: int64[B], rows of the split.
        group: int64[B], ``label * num_confounders + confounder``.
        confounder: int64[B].
        environment: int64[B].
        environment_sizes: Number of rows of each environment, if it is known without reading
            ``environment`` back from a GPU.
        mask: bool[B,1,H,W], True for the foreground, where evidence is allowed.
        class_mask: bool[B,K,H,W], the evidence for each class; empty where it is not known.
    """

    image: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor
    group: torch.Tensor | None = None
    confounder: torch.Tensor | None = None
    environment: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    class_mask: torch.Tensor | None = None
    environment_sizes: tuple[int, ...] | None = None

    def strip(self, needs: Needs) -> Batch:
        """Return this batch without the optional fields that ``needs`` does not declare."""
        hidden: dict[str, Any] = {
            name: None for name, need in ANNOTATIONS.items() if not getattr(needs, need)
        }
        return replace(self, **hidden)

    def rows(self, index: torch.Tensor | slice) -> Batch:
        """Return some rows of this batch.

        Args:
            index: bool[B], int64[n] with the positions of the rows, or a slice.
        """
        fields: dict[str, Any] = {
            name: value[index] if isinstance(value, torch.Tensor) else None
            for name, value in vars(self).items()
        }
        return Batch(**fields)

    def __len__(self) -> int:
        return len(self.label)
