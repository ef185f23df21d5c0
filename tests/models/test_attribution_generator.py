"""Networks of Attri-Net: parameter counts of the paper, and parts against few lines of torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark.models.attribution_generator import (
    AdaIN,
    AttributionGenerator,
    Critic,
    EqualizedLinear,
    LinearHeads,
    TaskCode,
    critic_halvings,
)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_are_the_papers() -> None:
    with torch.device("meta"):
        assert parameters(AttributionGenerator(5)) == 9_225_504
        assert parameters(Critic(5, (1, 320, 320))) == 45_610_272
        assert parameters(LinearHeads(5, (1, 320, 320), 32)) == 505


@pytest.mark.parametrize(("side", "halvings"), [(16, 1), (32, 2), (64, 3), (320, 5), (1024, 5)])
def test_critic_halves_as_often_as_the_side_allows(side: int, halvings: int) -> None:
    assert critic_halvings(side) == halvings


def test_equalised_linear_scales_its_weights_at_run_time() -> None:
    layer = EqualizedLinear(7, 3, bias=0.5).double()
    x = torch.randn(4, 7, dtype=torch.float64)
    expected = x @ (layer.weight.T * math.sqrt(2 / 7)) + 0.5
    torch.testing.assert_close(layer(x), expected)


def test_task_code_by_hand() -> None:
    torch.manual_seed(0)
    code = TaskCode(3).double()
    vector = torch.zeros(60, dtype=torch.float64)
    vector[20:40] = 1
    vector = vector / (vector.square().sum() / 60 + 1e-8).sqrt()
    for layer in code.layers:
        if isinstance(layer, EqualizedLinear):
            vector = layer.weight @ vector * math.sqrt(2 / 60) + layer.bias
        else:
            vector = torch.where(vector > 0, vector, 0.2 * vector)
    torch.testing.assert_close(code(torch.tensor([1]))[0], vector)


def test_adain_normalises_each_map_and_styles_each_row() -> None:
    torch.manual_seed(0)
    layer = AdaIN(4, 6).double()
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64) * 3 + 1
    code = torch.randn(3, 6, dtype=torch.float64)
    style = layer.style(code)
    expected = F.instance_norm(x, eps=1e-5) * style[:, :4, None, None] + style[:, 4:, None, None]
    torch.testing.assert_close(layer(x, code), expected)
    at_zero = layer(x, torch.zeros(3, 6, dtype=torch.float64))
    torch.testing.assert_close(at_zero, F.instance_norm(x, eps=1e-5))


@pytest.mark.parametrize("side", [16, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_a_batch_do_not_mix(side: int, channels: int) -> None:
    torch.manual_seed(0)
    generator = AttributionGenerator(3, channels, width=4, blocks=1).double()
    critic = Critic(3, (channels, side, side), width=4).double()
    image = torch.rand(3, channels, side, side, dtype=torch.float64) * 2 - 1
    label = torch.tensor([2, 0, 1])
    maps = generator(image, label)
    realism = critic(image, label)
    assert maps.shape == image.shape
    assert realism.shape == (3,)
    assert ((image + maps).abs() <= 1).all()
    for i in range(3):
        torch.testing.assert_close(generator(image[i : i + 1], label[i : i + 1])[0], maps[i])
        torch.testing.assert_close(critic(image[i : i + 1], label[i : i + 1])[0], realism[i])
    assert not torch.allclose(generator(image, torch.tensor([0, 0, 1]))[0], maps[0])


def test_heads_are_logistic_regressions_on_cells() -> None:
    torch.manual_seed(0)
    heads = LinearHeads(3, (2, 8, 12), 4).double()
    maps = torch.randn(4, 2, 8, 12, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 1])
    logits = heads(maps, label)
    for i, k in enumerate(label.tolist()):
        cells = [
            maps[i, :, r : r + 4, c : c + 4].mean() for r in range(0, 8, 4) for c in range(0, 12, 4)
        ]
        expected = torch.stack(cells) @ heads.weight[k] + heads.bias[k]
        torch.testing.assert_close(logits[i], expected)
    contributions = heads.contributions(maps, label)
    assert contributions.shape == maps.shape
    torch.testing.assert_close(contributions.sum((1, 2, 3)), logits - heads.bias[label])


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    generator = AttributionGenerator(2, 1, width=2, blocks=1).double()
    critic = Critic(2, (1, 16, 16), width=2).double()
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64) * 2 - 1
    label = torch.tensor([1])
    direction = torch.sin(torch.arange(256, dtype=torch.float64)).view_as(image)

    def value(x: torch.Tensor) -> torch.Tensor:
        return critic(x + generator(x, label), label).sum()

    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-6
    slope = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope.detach(), rtol=1e-5, atol=1e-9)
