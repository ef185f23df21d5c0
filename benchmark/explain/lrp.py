"""LRP-ε in its gradient form, the explanation of ISNet and TEA."""

from __future__ import annotations

import torch

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import BATCH_STATISTICS, ImageGradientExplainer, Trace


@EXPLAINERS.register
class Lrp(ImageGradientExplainer):
    """Image ⊙ gradient, where each ReLU with output a multiplies by a / (a + ε): float[B,C,H,W].

    The map is signed and not summed over channels. Everything else is the plain gradient (in a
    max-pool the maximum takes all), without ε at the output. For plain networks this is textbook
    LRP-ε up to the output's factor z / (z + ε); in residual networks ε is added after the residual
    sum only. A later backward pass through the heatmap uses the true derivative of the ReLU.
    Source: LRP-Flex, Bassi et al. 2024; Montavon et al. 2019.

    Args:
        epsilon: a positive number, or float[B], one for each image.
        batch_statistics: ``"constant"``: batch statistics are constants of the explanation, so that
            each heatmap depends on its image alone; ``"train"``: they are differentiated, as in the
            authors' code.

    Raises:
        UserError: ε is not positive.
    """

    name = "lrp"
    title = "LRP"
    requires = "lrp"
    evaluation_order = 10
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

    def damping(self, image: torch.Tensor) -> float | torch.Tensor:
        epsilon = self.epsilon
        if not isinstance(epsilon, torch.Tensor):
            return epsilon
        if epsilon.numel() != 1 and epsilon.shape != image.shape[:1]:
            raise UserError(
                f"lrp: epsilon has shape {list(epsilon.shape)}, expected [{len(image)}]."
            )
        wide = torch.promote_types(image.dtype, torch.float32)
        return epsilon.detach().to(image.device, wide).reshape(-1)

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        return trace.image * self.image_gradient(trace, target)
