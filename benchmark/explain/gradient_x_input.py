"""Gradient times image: LRP without ε, for networks of ReLUs."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import BATCH_STATISTICS, Choose, HeatmapExplainer, input_gradient


@EXPLAINERS.register
class GradientXInput(HeatmapExplainer):
    """image ⊙ ∂score / ∂image, float[B,C,H,W] (Shrikumar et al. 2016).

    Args:
        batch_statistics: as for LRP.
    """

    name = "gradient_x_input"
    signed = True
    options = {"batch_statistics": BATCH_STATISTICS}

    def explain(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        create_graph: bool,
        track_statistics: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        constant = self.chosen["batch_statistics"] == "constant"
        gradient, factor, logits = input_gradient(
            model, image, choose, create_graph, track_statistics, None, constant
        )
        return factor * gradient, logits
