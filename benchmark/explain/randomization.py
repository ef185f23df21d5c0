"""The parameter randomisation check: does a heatmap change when the weights are random?"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from benchmark.explain.faithfulness import pearson


def randomization_check(
    explain: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor],
    model: nn.Module,
    image: torch.Tensor,
    target: torch.Tensor,
    *,
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """Return how similar heatmaps stay while layers become random, from the last to the first.

    Source: Adebayo et al. 2018, the cascading check. Layers are the modules that have parameters of
    their own, in the order in which the network lists them. Each parameter gets normal values with
    its own mean and standard deviation, so that its scale stays. An explanation that depends on the
    network loses its similarity; one that only shows edges keeps it.

    Args:
        explain: computes heatmaps float[B,C,H,W], such as ``benchmark.explain.get("lrp")``.
        model: the network; a copy of it becomes random.
        image: float[B,C,H,W].
        target: int64[B].
        generator: source of the random weights, on the CPU; None for torch's default generator.

    Returns:
        For each layer, Spearman's correlation float64[B] over pixels of the absolute heatmap,
        summed over channels, before and after that layer and all later ones became random; NaN
        where a heatmap is constant.
    """
    before = _ranks(explain(model, image, target))
    changed = copy.deepcopy(model)
    layers = [
        (name, module)
        for name, module in changed.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    found: dict[str, torch.Tensor] = {}
    for name, module in reversed(layers):
        with torch.no_grad():
            for parameter in module.parameters(recurse=False):
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
                parameter.copy_(parameter.mean() + spread * noise)
        found[name] = pearson(before, _ranks(explain(changed, image, target)))
    return found


def _ranks(heatmap: torch.Tensor) -> torch.Tensor:
    """Return the average ranks of the pixels of float[B,C,H,W], float64[B,H·W]."""
    from scipy.stats import rankdata

    size = heatmap.detach().double().sum(1).abs().flatten(1).cpu()
    return torch.from_numpy(rankdata(size.numpy(), axis=1))
