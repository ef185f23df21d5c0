"""Layers with two backward rules, and the faster convolution, against PyTorch."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmark.core import speed
from benchmark.core.speed.convolution import Conv, Geometry, input_gradient
from benchmark.explain import get
from benchmark.explain.layers import BatchNorm, Relu

IDLE: Any = SimpleNamespace(explaining=False)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_is_pytorchs_when_it_does_not_explain(training: bool, affine: bool) -> None:
    x = rand(5, 3, 4, 4).requires_grad_()
    weight, bias = (
        (rand(3, seed=1).requires_grad_(), rand(3, seed=2).requires_grad_())
        if affine
        else (None, None)
    )
    mean, var = rand(3, seed=3), rand(3, seed=4).exp()
    tracked = [mean.clone(), var.clone()]
    expected = F.batch_norm(x, mean, var, weight, bias, training, 0.1, 1e-5)
    ours, scale = BatchNorm.apply(x, weight, bias, *tracked, training, 0.1, 1e-5, IDLE)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(tracked, [mean, var])
    inputs = [t for t in (x, weight, bias) if t is not None]
    up = rand(5, 3, 4, 4, seed=5)
    for mine, theirs in zip(torch.autograd.grad(ours, inputs, up, retain_graph=True),
                            torch.autograd.grad(expected, inputs, up), strict=True):  # fmt: skip
        torch.testing.assert_close(mine, theirs)
    used = x.var((0, 2, 3), correction=0) if training else var
    torch.testing.assert_close(scale, (used + 1e-5).rsqrt())
    if training:  # the second output has its own way back
        up = rand(3, seed=6)
        mine = torch.autograd.grad(scale, x, up)[0]
        torch.testing.assert_close(mine, torch.autograd.grad((used + 1e-5).rsqrt(), x, up)[0])


@pytest.mark.parametrize("inplace", [False, True])
def test_relu_is_pytorchs_when_it_does_not_explain(inplace: bool) -> None:
    z = rand(4, 6).requires_grad_()
    a = Relu.apply(z * 1, 0.1, inplace, IDLE)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(a, z.relu())
    expected = torch.autograd.grad(z.relu().square().sum(), z)
    torch.testing.assert_close(torch.autograd.grad(a.square().sum(), z), expected)


CONVOLUTIONS = [
    ((3, 9, 9), 5, 3, Geometry((1, 1), (1, 1), (1, 1), 1)),
    ((3, 16, 14), 8, 7, Geometry((2, 2), (3, 3), (1, 1), 1)),
    ((4, 10, 11), 6, 3, Geometry((2, 3), (0, 2), (1, 1), 1)),
    ((6, 8, 8), 4, 3, Geometry((1, 1), (2, 2), (2, 2), 2)),
    ((2, 8, 8), 4, 3, Geometry((1, 2), (2, 1), (2, 2), 1)),
    ((8, 2, 2), 6, 3, Geometry((1, 1), (1, 1), (1, 1), 1)),
    ((8, 4, 4), 6, 1, Geometry((2, 2), (0, 0), (1, 1), 1)),
]


@pytest.mark.parametrize(("shape", "wide", "kernel", "geometry"), CONVOLUTIONS)
def test_convolution_has_pytorchs_first_and_second_derivatives(
    shape: tuple[int, int, int],
    wide: int,
    kernel: int,
    geometry: Geometry,
) -> None:
    rules = SimpleNamespace(explaining=False)
    x = rand(3, *shape).requires_grad_()
    weight = rand(wide, shape[0] // geometry.groups, kernel, kernel, seed=1).requires_grad_()
    bias = rand(wide, seed=2).requires_grad_()

    def derivatives(y: torch.Tensor) -> list[torch.Tensor]:
        first = torch.autograd.grad(y.square().sum(), [x, weight, bias], retain_graph=True)
        rules.explaining = True
        to_x = torch.autograd.grad(y.sin().sum(), x, create_graph=True)[0]
        rules.explaining = False
        return [y, *first, to_x, *torch.autograd.grad(to_x.cos().sum(), [x, weight, bias])]

    expected = derivatives(torch.conv2d(x, weight, bias, *geometry))
    ours = derivatives(Conv.apply(x, weight, bias, geometry, False, rules))  # type: ignore[no-untyped-call]
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("shape", "wide", "kernel", "geometry"), CONVOLUTIONS)
@pytest.mark.parametrize("max_columns", [0, 10**9])
def test_images_are_folded_one_by_one_or_all_together(
    shape: tuple[int, int, int], wide: int, kernel: int, geometry: Geometry, max_columns: int
) -> None:
    x = rand(3, *shape).requires_grad_()
    weight = rand(wide, shape[0] // geometry.groups, kernel, kernel, seed=1)
    y = torch.conv2d(x, weight, None, *geometry)
    g = torch.randn_like(y)
    ours = input_gradient(g, weight, x.shape, geometry, max_columns)
    torch.testing.assert_close(ours, torch.autograd.grad(y, x, g)[0])


def test_without_the_faster_code_the_derivatives_are_the_same() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3)
    ).double()
    x = rand(2, 3, 7, 7)
    network(x)
    target = torch.tensor([0, 2])
    found = []
    for context in (nullcontext(), speed.disabled()):
        with context:
            heatmap = get("input_gradient")(network, x, target, create_graph=True)
            weight_gradient = torch.autograd.grad(heatmap.square().sum(), network[0].weight)[0]
        found.append((heatmap, weight_gradient))
    assert speed.is_enabled()
    torch.testing.assert_close(found[0], found[1])


def test_no_gradient_to_an_image_that_needs_none() -> None:
    x, weight = rand(1, 3, 5, 5).requires_grad_(), rand(2, 3, 3, 3, seed=1).requires_grad_()
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    Conv.apply(x, weight, None, geometry, True, IDLE).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is None and weight.grad is not None
