"""Explanations of networks that explain themselves, such as Attri-Net and B-cos networks."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import HeatmapExplainer, Trace
from benchmark.explain.rules import Rules


@EXPLAINERS.register
class Native(HeatmapExplainer):
    """The explanation that a network gives of itself: ``network.native_heatmap(image, target)``.

    float[B,C,H,W], signed. It is part of what the network computes, not an approximation of it.
    """

    name = "native"
    title = "Native"
    requires = "native"
    signed = True
    evaluation_order = 0

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        rules = Rules(track_statistics=track_statistics, create_graph=create_graph, to_image=False)
        with rules.forward(model):
            logits = model(image)
        return Trace(self, model, rules, create_graph, source=image, image=image, logits=logits)

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.set_grad_enabled(trace.create_graph):
            return trace.model.native_heatmap(trace.image, target)  # type: ignore[operator,no-any-return]
