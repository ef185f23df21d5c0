"""Contract of every registered explainer with every backbone that it suits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.core.registry import BACKBONES, EXPLAINERS
from tests.support.explained import QUICK_EXPLAINERS, SMALL_BACKBONES

PAIRS = [
    pytest.param(
        explainer, backbone, marks=[] if backbone in SMALL_BACKBONES else [pytest.mark.slow]
    )
    for explainer in EXPLAINERS.names()
    for backbone in BACKBONES.names()
    # native explainers belong to a trained method
    if explainer != "native"
    and EXPLAINERS.get(explainer).suits(BACKBONES.get(backbone).capabilities)
]
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def network_of(backbone: str, side: int) -> nn.Module:
    """Return a network in training mode of which one module is in evaluation mode."""
    torch.manual_seed(0)
    network = BACKBONES.get(backbone)(
        3, (3, side, side), **SMALL_BACKBONES.get(backbone, {})
    ).train()
    nn.init.normal_(network.classifier.weight)
    network.classifier.eval()
    return network


def described(network: nn.Module) -> dict[str, Any]:
    """Return the modes, hooks, flags and gradients of a network."""
    return {
        "modes": [module.training for module in network.modules()],
        "hooks": [len(getattr(module, kind)) for module in network.modules() for kind in HOOKS],
        "parameters": [(id(p), p.requires_grad, p.grad is None) for p in network.parameters()],
        "methods": [sorted(vars(module)) for module in network.modules()],
    }


@pytest.mark.parametrize(("explainer", "backbone"), PAIRS)
def test_nothing_of_the_network_changes(explainer: str, backbone: str) -> None:
    side = max(BACKBONES.get(backbone).capabilities.min_side, 32)
    network = network_of(backbone, side)
    image = torch.randn(2, 3, side, side)
    target = torch.tensor([2, 0])
    chosen = explain.get(explainer, **QUICK_EXPLAINERS.get(explainer, {}))
    before, state = described(network), copy.deepcopy(network.state_dict())
    given = image.clone()

    heatmap = chosen(network, image, target)

    assert len(heatmap) == len(image)
    assert heatmap.isfinite().all()
    assert described(network) == before
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(image, given)
    assert not image.requires_grad
