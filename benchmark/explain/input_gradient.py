"""The gradient of the explained score at the image."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import BATCH_STATISTICS, Choose, HeatmapExplainer, input_gradient


@EXPLAINERS.register
class InputGradient(HeatmapExplainer):
    """∂score / ∂image, float[B,C,H,W] (Simonyan et al. 2014; in a loss: Ross et al. 2017).

    Args:
        batch_statistics: as for LRP.
    """

    name = "input_gradient"
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
        gradient, _, logits = input_gradient(
            model, image, choose, create_graph, track_statistics, None, constant
        )
        return gradient, logits
