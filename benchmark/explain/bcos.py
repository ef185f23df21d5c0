"""The contributions of the pixels to a logit of a B-cos network."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import HeatmapExplainer, Trace, explained_score
from benchmark.explain.rules import Rules


@EXPLAINERS.register
class Bcos(HeatmapExplainer):
    """Contribution of each pixel to the explained logit, float[B,1,H,W] (Böhle et al. 2024).

    It is the encoded image [x, 1 − x] times the gradient of the logit with |cos| and the scales of
    the normalisation held constant, summed over channels. The sum of a heatmap is the logit without
    its bias. With ``create_graph`` the heatmap has its full derivative to the weights, also through
    |cos| and the scales.
    """

    name = "bcos"
    title = "B-cos"
    requires = "bcos"
    signed = True
    evaluation_order = 1

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        rules = Rules(
            constant_scales=True, track_statistics=track_statistics, create_graph=create_graph
        )
        own_leaf = not (create_graph and image.requires_grad)
        encoded: list[torch.Tensor] = []

        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
            source = output.detach().requires_grad_() if own_leaf else output
            encoded.append(source)
            if own_leaf:
                rules.image = source
            return source

        handle = model.encode.register_forward_hook(keep)  # type: ignore[operator,union-attr]
        try:
            with rules.forward(model):
                logits = model(image)
        finally:
            handle.remove()
        return Trace(
            self, model, rules, create_graph, source=encoded[0], image=image, logits=logits
        )

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            score = explained_score(trace.logits, target)
        row = trace.rules.gradient(score, trace.source, create_graph=trace.create_graph)
        with torch.inference_mode(False), torch.set_grad_enabled(trace.create_graph):
            source = trace.source
            if trace.rules.image is not None:
                source = source.detach()
            return (source * row).sum(1, keepdim=True)
