"""Activation-based attention: the positions at which a late layer with positions is active."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import Trace
from benchmark.explain.gradcam import CamExplainer, own_map


@EXPLAINERS.register
class Attention(CamExplainer):
    """Σ_k A_k² over channels, divided by its Euclidean norm over positions: float[B,1,h,w].

    Zagoruyko & Komodakis 2017, F²_sum and equation 2. The map does not depend on the target. A map
    of zeros stays one.
    """

    name = "attention"
    title = "Attention"

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        activation = trace.source
        with (
            torch.autocast(activation.device.type, enabled=False),
            torch.set_grad_enabled(trace.create_graph),
        ):
            activation = own_map(trace.model, activation)
            wide = activation.to(torch.promote_types(activation.dtype, torch.float32))
            energy = wide.square().sum(1, keepdim=True)
            return F.normalize(energy.flatten(1), dim=1).view_as(energy)
