"""Networks for the tests of explainers, in float64 and with random running statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmark.core.registry import BACKBONES


def plain_net(seed: int = 0, classes: int = 4) -> nn.Sequential:
    """Return convolutions, ReLUs, max-pooling and two linear layers, for 12 × 12 images."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 2 * 2, 10),
        nn.ReLU(),
        nn.Linear(10, classes),
    ).double()


def backbone(
    name: str, size: tuple[int, int, int], classes: int = 4, seed: int = 0, **options: Any
) -> Any:
    """Return a backbone in float64 and evaluation mode, with random batch-norm parameters."""
    torch.manual_seed(seed)
    model = BACKBONES.get(name)(classes, size, **options).double().eval()
    nn.init.normal_(
        model.classifier.weight, std=0.3
    )  # a fresh vision transformer's is zero, and so is its heatmap
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.2, 0.3)
    return model


def images(size: tuple[int, int, int], count: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        count, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
