"""The interface of a heatmap."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import nn


class Explainer(Protocol):
    """``explainer(model, image, target)`` → float[B,C,H,W] or float[B,1,h,w]: where the evidence for ``target`` lies.

    It leaves no hook, no mode, no statistic and no Parameter of the model changed.

    Class attributes:
        name: the registry name.
        differentiable: whether ``create_graph=True`` gives a map with a gradient to the weights.
        signed: whether negative values mean evidence against the target.
        requires: the capability that a backbone must declare: ``"cam"``, ``"lrp"``, ``"attention"`` or ``""``.
    """

    name: ClassVar[str]
    differentiable: ClassVar[bool]
    signed: ClassVar[bool]
    requires: ClassVar[str]

    def __call__(
        self,
        model: nn.Module,
        image: torch.Tensor,
        target: torch.Tensor,
        create_graph: bool = False,
    ) -> torch.Tensor: ...
