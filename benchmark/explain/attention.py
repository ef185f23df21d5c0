"""Activation-based attention: where a late layer that still has positions is active, whatever the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import Choose, HeatmapExplainer
from benchmark.explain.gradcam import own_map, run_to_cam
from benchmark.explain.rules import Rules


@EXPLAINERS.register
class Attention(HeatmapExplainer):
    """Σ_k A_k² over channels, divided by its Euclidean norm over positions: float[B,1,h,w].

    Zagoruyko & Komodakis 2017, F²_sum and equation 2. The target plays no part. All zeros stay zeros.
    """

    name = "attention"
    requires = "cam"

    def explain(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        create_graph: bool,
        track_statistics: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rules = Rules(track_statistics=track_statistics, create_graph=create_graph, to_image=False)
        activation, logits = run_to_cam(model, image, create_graph, rules)
        with (
            torch.autocast(activation.device.type, enabled=False),
            torch.set_grad_enabled(create_graph),
        ):
            activation = own_map(model, activation)
            wide = activation.to(torch.promote_types(activation.dtype, torch.float32))
            energy = wide.square().sum(1, keepdim=True)
            return F.normalize(energy.flatten(1), dim=1).view_as(energy), logits
