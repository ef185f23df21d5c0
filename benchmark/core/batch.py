"""A batch of images with everything that is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.core.needs import Needs


@dataclass(frozen=True)
class Batch:
    """What a training step sees.

    Shapes and types: ``image`` float[B,C,H,W], normalised; ``label`` int64[B] (multi-label: float[B,K]);
    ``index`` int64[B], rows of the split; ``group`` (label × confounder), ``confounder`` and ``environment`` int64[B];
    ``mask`` bool[B,1,H,W], True where evidence is allowed (foreground). The last four are None unless the
    algorithm declared the need.
    """

    image: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor
    group: torch.Tensor | None = None
    confounder: torch.Tensor | None = None
    environment: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    def strip(self, needs: Needs) -> Batch:
        """This batch without the fields that ``needs`` does not declare, so that no method uses them unawares."""
        return replace(
            self,
            group=self.group if needs.groups else None,
            confounder=self.confounder if needs.confounder else None,
            environment=self.environment if needs.environments else None,
            mask=self.mask if needs.masks else None,
        )

    def rows(self, chosen: torch.Tensor) -> Batch:
        """The rows that ``chosen`` picks (bool[B] or int64[n])."""
        picked: dict[str, Any] = {
            k: None if value is None else value[chosen] for k, value in vars(self).items()
        }
        return Batch(**picked)

    def __len__(self) -> int:
        return len(self.label)
