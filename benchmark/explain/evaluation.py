"""Base class of explainers that serve in evaluation only, and have no gradient to the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.explain.base import HeatmapExplainer, Trace
from benchmark.explain.rules import Rules


class EvaluationExplainer(HeatmapExplainer):
    """An explainer that runs the network many times and cannot be part of a loss.

    The network is explained in evaluation mode and is put back into its own mode afterwards.
    Random explainers draw from torch's default generator. A subclass implements ``attribute``.
    """

    differentiable = False

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        if create_graph or track_statistics:
            raise UserError(
                f"{self.name} serves in evaluation only and cannot be part of a loss; use lrp, "
                "gradcam or another differentiable explainer."
            )
        with torch.inference_mode(False), torch.no_grad(), evaluating(model):
            logits = model(image)
        return Trace(self, model, Rules(), create_graph, source=image, image=image, logits=logits)

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        if target.is_floating_point():
            raise UserError(
                f"{self.name} explains classes, not scores; pass the numbers of the classes, "
                f"int64[{len(target)}]."
            )
        if target.shape != trace.image.shape[:1]:
            raise ValueError(
                f"the target has shape {list(target.shape)}, expected [{len(trace.image)}], one "
                "entry per image"
            )
        with torch.inference_mode(False), evaluating(trace.model):
            return self.attribute(Scores(trace.model), trace.image.detach(), target)

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the heatmap float[B,C,H,W] or float[B,1,h,w].

        Args:
            scores: the network with a logit for each class.
            image: float[B,C,H,W].
            target: int64[B].
        """
        raise NotImplementedError


class Scores(nn.Module):
    """A network with a logit for each class; one that has a single logit gets a second one.

    Args:
        network: a classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return float[B,K] with K ≥ 2, in at least float32."""
        logits: torch.Tensor = self.network(image)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if logits.shape[1] > 1:
            return logits
        # softmax of (−z/2, z/2) is the sigmoid of z, and z/2 keeps the order of the pixels
        return torch.cat([-logits / 2, logits / 2], dim=1)

    @torch.no_grad()
    def probability(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the softmax probability of the targets int64[B], float[B]."""
        return self(image).softmax(1).gather(1, target[:, None])[:, 0]  # type: ignore[no-any-return]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode in the block; each module then gets its mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def random_masks(
    count: int, grid: int, share: float, size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Return smooth random masks, as RISE and RELAX draw them.

    A grid of random zeros and ones is enlarged bilinearly to a bit more than the image, and cut
    out at a random place.

    Args:
        count: number of masks N.
        grid: rows and columns of the grid.
        share: probability of a one.
        size: (H, W) of the images.
        device: device of the masks.

    Returns:
        float[N,1,H,W], values from 0 to 1.
    """
    height, width = size
    cell = (-(-height // grid), -(-width // grid))
    small = (torch.rand(count, 1, grid, grid, device=device) < share).float()
    large = nn.functional.interpolate(
        small,
        ((grid + 1) * cell[0], (grid + 1) * cell[1]),
        mode="bilinear",
        align_corners=False,
    )
    top = torch.randint(cell[0], (count,)).tolist()
    left = torch.randint(cell[1], (count,)).tolist()
    return torch.stack(
        [
            mask[:, i : i + height, j : j + width]
            for mask, i, j in zip(large, top, left, strict=True)
        ]
    )
