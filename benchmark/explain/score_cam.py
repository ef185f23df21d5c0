"""Score-CAM: channels of the CAM layer, weighted by the score of the image that they leave."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import to_map
from benchmark.explain.evaluation import EvaluationExplainer, Scores


@EXPLAINERS.register
class ScoreCam(EvaluationExplainer):
    """ReLU(Σ_k α_k A_k), α = softmax over channels of p_c(x ⊙ s(A_k)) − p_c(0) (Wang et al. 2020).

    float[B,1,h,w]. s enlarges a channel to the image and scales it to [0, 1]; a constant channel
    becomes 0. A masked pixel has the mean colour of the data, which is the baseline too.

    Args:
        batch_size: masked images that pass the network together.
    """

    name = "score_cam"
    title = "Score-CAM"
    requires = "cam"
    options = {
        "batch_size": HParam(
            256, doc="masked images that pass the network together", low=1, high=100_000
        )
    }

    @torch.no_grad()
    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        maps = cam_maps(scores.network, image)
        baseline = scores.probability(torch.zeros_like(image), target)
        heatmaps = []
        for i in range(len(image)):
            masks = unit_maps(maps[i][:, None], image.shape[2:])  # [K,1,H,W]
            gains = []
            for part in masks.split(self.chosen["batch_size"]):
                masked = image[i : i + 1] * part
                gains.append(scores.probability(masked, target[i].expand(len(part))))
            weight = (torch.cat(gains) - baseline[i]).softmax(0).to(maps.dtype)
            heatmaps.append(torch.einsum("k,khw->hw", weight, maps[i]).relu())
        return torch.stack(heatmaps)[:, None]


def cam_maps(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the map float[B,C,h,w] of the CAM layer of a network."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        found.append(to_map(network, output))

    handle = network.cam_module().register_forward_hook(keep)  # type: ignore[operator]
    try:
        network(image)
    finally:
        handle.remove()
    return found[0]


def unit_maps(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Enlarge maps float[N,1,h,w] to a size and scale each to [0, 1]; constant ones become 0."""
    flat = maps.amax((2, 3), keepdim=True) <= maps.amin((2, 3), keepdim=True)
    large = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    low = large.amin((2, 3), keepdim=True)
    span = large.amax((2, 3), keepdim=True) - low
    return ((large - low) / torch.where(flat, 1.0, span)).masked_fill(flat, 0)
