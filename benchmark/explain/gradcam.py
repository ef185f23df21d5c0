"""Grad-CAM and Grad-CAM++: weighted sums of the channels of a late layer that still has positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import Choose, HeatmapExplainer, explained_score
from benchmark.explain.rules import Rules
from benchmark.models.base import Backbone

_OPTIONS = {
    "constant_weights": HParam(
        False, doc="in a loss, let the gradient flow through the activations alone"
    )
}


def run_to_cam(
    model: nn.Module, image: torch.Tensor, create_graph: bool, rules: Rules
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of the CAM layer and logits, from one forward pass.

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
    """The CAM layer's output as a map float[B,C,h,w], without the leaf at which ``run_to_cam`` begins a graph."""
    return to_map(model, activation.detach() if activation.is_leaf else activation)


def to_map(model: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """What the CAM layer gives, or a gradient of its shape, as a map float[B,C,h,w]: the tokens of transformers."""
    found: torch.Tensor = getattr(model, "cam_map", lambda given: given)(output)
    return found


def is_linear_in_means(model: nn.Module) -> bool:
    """Whether the logits are a linear layer on the CAM layer's means over positions, dropout being off."""
    if not isinstance(model, Backbone) or type(model.classifier) is not nn.Linear:
        return False
    ours = type(model)
    plain = (
        ours.pool is Backbone.pool
        and ours.forward is Backbone.forward
        and ours.features is Backbone.features
    )
    return plain and not (model.training and model.dropout.p > 0)


def gradient_of_linear_head(
    model: Backbone, activation: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """∂ logit_c / ∂ A_kij = W_ck / (h w), without a backward pass: float[B,C,h,w], differentiable in W."""
    weight = model.classifier.weight.to(torch.promote_types(activation.dtype, torch.float32))
    rows = weight * (2 * chosen[:, None] - 1) if len(weight) == 1 else weight[chosen]
    positions = activation.shape[2] * activation.shape[3]
    return (rows / positions)[:, :, None, None].expand(activation.shape)


@EXPLAINERS.register
class GradCam(HeatmapExplainer):
    """ReLU(Σ_k w_k A_k), w_k the mean over positions of ∂score / ∂A_k: float[B,1,h,w] (Selvaraju et al. 2017).

    Neither resized nor normalised.

    Args:
        constant_weights: whether w is a constant for a later backward, so that only the activations move (eX2L).
    """

    name = "gradcam"
    requires = "cam"
    options = _OPTIONS

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
        moving = create_graph and not self.chosen["constant_weights"]
        with torch.inference_mode(False), torch.set_grad_enabled(True):
            chosen = choose(logits)
            score = explained_score(logits, chosen)
        wide = torch.promote_types(activation.dtype, torch.float32)
        with torch.autocast(activation.device.type, enabled=False):
            if is_linear_in_means(model) and not chosen.is_floating_point():
                with torch.set_grad_enabled(moving):
                    gradient = gradient_of_linear_head(model, activation, chosen)  # type: ignore[arg-type]
            else:
                found = rules.gradient(score, activation, moving, retain=create_graph)
                gradient = to_map(model, found).to(wide)
            activation = own_map(model, activation).to(wide)
            weight = self.weigh(activation, gradient)
            cam = torch.bmm(weight[:, None], activation.flatten(2)).unflatten(
                2, activation.shape[2:]
            )
            return cam.relu(), logits

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Importance of the channels, float[B,K]."""
        return gradient.mean((2, 3))


@EXPLAINERS.register
class GradCamPlusPlus(GradCam):
    """Grad-CAM with w_k = Σ α ReLU(g), α = g² / (2 g² + ΣA · g³) (Chattopadhyay et al. 2018, equations 10 and 19).

    g = ∂score / ∂A_k; the factor exp(score) of the derivative of exp(score) is the same for all channels of an image
    and is left out.
    """

    name = "gradcam++"

    def weigh(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self.chosen["constant_weights"]:
            activation = activation.detach()
        square = gradient.square()
        below = 2 * square + activation.sum((2, 3), keepdim=True) * square * gradient
        alpha = torch.where(
            below == 0, torch.zeros_like(below), square / torch.where(below == 0, 1, below)
        )
        return (alpha * gradient.relu()).sum((2, 3))
