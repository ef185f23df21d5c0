"""Gradient times image: LRP without ε, for networks of ReLUs."""

from __future__ import annotations

import torch

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import ImageGradientExplainer, Trace


@EXPLAINERS.register
class GradientXInput(ImageGradientExplainer):
    """image ⊙ ∂score / ∂image, float[B,C,H,W] (Shrikumar et al. 2016).

    Args:
        batch_statistics: as for LRP.
    """

    name = "gradient_x_input"
    title = "Gradient × input"

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        return trace.image * self.image_gradient(trace, target)
