"""The gradient of the explained score at the image."""

from __future__ import annotations

import torch

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import ImageGradientExplainer, Trace


@EXPLAINERS.register
class InputGradient(ImageGradientExplainer):
    """∂score / ∂image, float[B,C,H,W] (Simonyan et al. 2014; in a loss: Ross et al. 2017).

    Args:
        batch_statistics: as for LRP.
    """

    name = "input_gradient"
    title = "Input gradient"
    evaluation_order = 30

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        return self.image_gradient(trace, target)
