"""LRP-ε in its gradient form, the explanation of ISNet and TEA."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import BATCH_STATISTICS, Choose, HeatmapExplainer, input_gradient


@EXPLAINERS.register
class Lrp(HeatmapExplainer):
    """Image ⊙ gradient, where each ReLU with output a multiplies by a / (a + ε): float[B,C,H,W], signed, not summed.

    Everything else is the plain gradient (max-pool: winner takes all), with no ε at the output. For plain networks this
    is textbook LRP-ε up to the output's factor z / (z + ε); in residual networks ε stands after the residual sum only.
    A later backward through the heatmap uses the true derivative of the ReLU. Source: LRP-Flex, Bassi et al. 2024;
    Montavon et al. 2019.

    Args:
        epsilon: a positive number, or float[B], one for each image.
        batch_statistics: ``"constant"``: batch statistics are constants of the explanation, so that it belongs to its
            image alone; ``"train"``: they are differentiated, as the authors' code does.

    Raises:
        UserError: ε is not positive.
    """

    name = "lrp"
    signed = True
    requires = "lrp"
    options = {
        "epsilon": HParam(0.01, doc="ε of every ReLU", low=0.0, high=1e3),
        "batch_statistics": BATCH_STATISTICS,
    }

    def __init__(
        self, epsilon: float | torch.Tensor = 0.01, batch_statistics: str = "constant"
    ) -> None:
        number = {} if isinstance(epsilon, torch.Tensor) else {"epsilon": epsilon}
        super().__init__(batch_statistics=batch_statistics, **number)
        self.epsilon: float | torch.Tensor = (
            epsilon if isinstance(epsilon, torch.Tensor) else self.chosen["epsilon"]
        )
        on_host = not isinstance(self.epsilon, torch.Tensor) or self.epsilon.device.type == "cpu"
        if on_host and not bool(torch.as_tensor(self.epsilon > 0).all()):
            raise UserError(
                f"lrp: epsilon = {self.epsilon!r}, expected above 0; ε = 0 is gradient_x_input."
            )

    def explain(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        create_graph: bool,
        track_statistics: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        epsilon = self.epsilon
        if isinstance(epsilon, torch.Tensor):
            if epsilon.numel() != 1 and epsilon.shape != image.shape[:1]:
                raise UserError(
                    f"lrp: epsilon has shape {list(epsilon.shape)}, expected [{len(image)}]."
                )
            wide = torch.promote_types(image.dtype, torch.float32)
            epsilon = epsilon.detach().to(image.device, wide).reshape(-1)
        gradient, factor, logits = input_gradient(
            model,
            image,
            choose,
            create_graph,
            track_statistics,
            epsilon,
            self.chosen["batch_statistics"] == "constant",
        )
        return factor * gradient, logits
