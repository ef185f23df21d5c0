"""Grad-CAM and Grad-CAM++: weighted sums of the channels of a late layer with positions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import HeatmapExplainer, Trace, explained_score, to_map
from benchmark.explain.rules import Rules
from benchmark.models.base import Backbone, Capabilities

_OPTIONS = {
    "constant_weights": HParam(
        False, doc="in a loss, let the gradient flow through the activations alone"
    )
}


def run_to_cam(
    model: nn.Module, image: torch.Tensor, rules: Rules, *, create_graph: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of the CAM layer and the logits, from one forward pass.

    Without ``create_graph`` the layers up to the CAM layer keep no graph.
    """
    seen: list[torch.Tensor] = []

    def catch(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not create_graph or not output.requires_grad:
            torch.set_grad_enabled(True)  # undone where the forward context ends
            output = output.detach().requires_grad_()
        seen.append(output)
        return output

    handle = model.cam_module().register_forward_hook(catch)  # type: ignore[operator]
    try:
        with rules.forward(model), torch.set_grad_enabled(create_graph):
            logits = model(image)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise ValueError(f"the CAM layer ran {len(seen)} times in one forward pass, expected once")
    return seen[0], logits


def own_map(model: nn.Module, activation: torch.Tensor) -> torch.Tensor:
    """Return the output of the CAM layer as a map, without the leaf that ``run_to_cam`` makes."""
    return to_map(model, activation.detach() if activation.is_leaf else activation)


def is_linear_in_means(model: nn.Module) -> bool:
    """Return whether the logits are a linear layer on the CAM layer's means over positions.

    Dropout before that layer is off while a network is explained.
    """
    if not isinstance(model, Backbone) or type(model.classifier) is not nn.Linear:
        return False
    kind = type(model)
    unchanged = (
        kind.pool is Backbone.pool
        and kind.forward is Backbone.forward
        and kind.features is Backbone.features
    )
    return unchanged


def gradient_of_linear_head(
    model: Backbone, activation: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Return ∂ logit_c / ∂ A_kij = W_ck / (h w), float[B,C,h,w], without a backward pass.

    The result is differentiable in W.
    """
    weight = model.classifier.weight.to(torch.promote_types(activation.dtype, torch.float32))
    rows = weight * (2 * chosen[:, None] - 1) if len(weight) == 1 else weight[chosen]
    positions = activation.shape[2] * activation.shape[3]
    return (rows / positions)[:, :, None, None].expand(activation.shape)


class CamExplainer(HeatmapExplainer):
    """Base class of explainers of the CAM layer; ``Trace.source`` is its output.

    A subclass computes its heatmap from ``map_and_gradient(trace, target)``.
    """

    requires = "cam"

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        rules = Rules(track_statistics=track_statistics, create_graph=create_graph, to_image=False)
        activation, logits = run_to_cam(model, image, rules, create_graph=create_graph)
        return Trace(
            self, model, rules, create_graph, source=activation, image=image, logits=logits
        )

    def map_and_gradient(
        self, trace: Trace, target: torch.Tensor, *, constant_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the map of the CAM layer and the gradient of the explained score at it.

        Args:
            trace: the forward pass.
            target: int64[B] or float[B], as in ``Trace.heatmap``.
            constant_gradient: whether the gradient is a constant for a later backward pass, which
                then flows through the map only.

        Returns:
            Two tensors float[B,C,h,w] in at least float32.
        """
        activation = trace.source
        differentiable = trace.create_graph and not constant_gradient
        with torch.inference_mode(False), torch.set_grad_enabled(True):
            score = explained_score(trace.logits, target)
        wide = torch.promote_types(activation.dtype, torch.float32)
        with torch.autocast(activation.device.type, enabled=False):
            if is_linear_in_means(trace.model) and not target.is_floating_point():
                assert isinstance(trace.model, Backbone)
                with torch.set_grad_enabled(differentiable):
                    gradient = gradient_of_linear_head(trace.model, activation, target)
            else:
                gradient = trace.rules.gradient(
                    score, activation, create_graph=differentiable, retain=trace.create_graph
                )
                gradient = to_map(trace.model, gradient).to(wide)
            return own_map(trace.model, activation).to(wide), gradient


@EXPLAINERS.register
class GradCam(CamExplainer):
    """ReLU(Σ_k w_k A_k), w_k the mean over positions of ∂score / ∂A_k (Selvaraju et al. 2017).

    float[B,1,h,w], neither resized nor normalised.

    Args:
        constant_weights: whether w is a constant for a later backward pass, so that the gradient
            flows through the activations only (eX2L).
    """

    name = "gradcam"
    title = "Grad-CAM"
    options = _OPTIONS
    evaluation_order: ClassVar[int | None] = 20

    @classmethod
    def suits(cls, capabilities: Capabilities) -> bool:
        # transformers have been explained by the gradient at the image from the beginning, so that
        # their records stay comparable
        return bool(capabilities.cam) and not capabilities.attention

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        activation, gradient = self.map_and_gradient(
            trace, target, constant_gradient=self.chosen["constant_weights"]
        )
        with torch.autocast(activation.device.type, enabled=False):
            weight = self.weigh(activation, gradient)
            cam = torch.bmm(weight[:, None], activation.flatten(2))
            return cam.unflatten(2, activation.shape[2:]).relu()

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return the importance of the channels, float[B,C]."""
        return gradient.mean((2, 3))


@EXPLAINERS.register
class GradCamPlusPlus(GradCam):
    """Grad-CAM with w_k = Σ α ReLU(g) and α = g² / (2 g² + ΣA · g³).

    Source: Chattopadhyay et al. 2018, equations 10 and 19.

    g = ∂score / ∂A_k. The factor exp(score) of the derivative of exp(score) is the same for all
    channels of an image and is left out.
    """

    name = "gradcam++"
    title = "Grad-CAM++"
    evaluation_order = None

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self.chosen["constant_weights"]:
            activation = activation.detach()
        square = gradient.square()
        below = 2 * square + activation.sum((2, 3), keepdim=True) * square * gradient
        alpha = torch.where(
            below == 0, torch.zeros_like(below), square / torch.where(below == 0, 1, below)
        )
        return (alpha * gradient.relu()).sum((2, 3))
