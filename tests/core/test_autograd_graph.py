"""Leaves that a tensor depends on, before and after a backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmark.core.autograd_graph import depends_on
from benchmark.core.parallel_forward import together
from tests.support.threads import threads


def on(*parameters: torch.Tensor):  # type: ignore[no-untyped-def]
    return lambda leaf: any(leaf is p for p in parameters)


def test_leaves_are_told_apart_before_and_after_the_backward_pass() -> None:
    a, b = nn.Linear(3, 4), nn.Linear(4, 2)
    out = b(a(torch.randn(5, 3)).relu()).square().mean()
    for _ in range(2):
        assert depends_on(out, on(a.weight)) and depends_on(out, on(b.bias))
        assert not depends_on(out, on(nn.Linear(3, 4).weight))
        if out.grad_fn is not None and a.weight.grad is None:
            out.backward()
    assert a.weight.grad is not None


def test_constants_and_leaves() -> None:
    weight = nn.Parameter(torch.ones(2))
    assert depends_on(weight, on(weight))
    assert not depends_on(torch.ones(2), lambda leaf: True)
    assert not depends_on(weight.detach() * 2, lambda leaf: True)
    assert not depends_on(torch.zeros(2, requires_grad=True) * 3, on(weight))
    assert depends_on(0.0 * weight.sum(), on(weight))  # the structure counts, not the value


def test_a_second_derivative_leads_to_the_weights() -> None:
    layer, image = nn.Linear(3, 1), torch.randn(5, 3, requires_grad=True)
    gradient = torch.autograd.grad(layer(image).tanh().sum(), image, create_graph=True)[0]
    assert depends_on(gradient.square().sum(), on(layer.weight))


def test_networks_that_run_at_the_same_time_are_looked_into() -> None:
    a, b, image = nn.Linear(3, 2), nn.Linear(3, 2), torch.randn(5, 3)
    with threads(2):
        (one,), (other,) = together(lambda: (a(image).sum(),), lambda: (b(image).sum(),))
        total = one + 0 * other
        assert depends_on(total, on(a.weight)) and depends_on(total, on(b.weight))
        assert not depends_on(total, on(nn.Linear(3, 2).weight))
        total.backward()
        assert depends_on(total, on(a.weight))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_counts_as_every_leaf(reentrant: bool) -> None:
    layer, image = nn.Linear(3, 2), torch.randn(5, 3, requires_grad=True)
    out = checkpoint(layer, image, use_reentrant=reentrant)
    assert depends_on(out, on(layer.weight))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network(backend: str) -> None:
    torch.compiler.reset()
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    out = torch.compile(network, backend=backend)(torch.randn(5, 3)).square().sum()  # type: ignore[operator]
    out.backward()
    assert depends_on(out, on(network[0].weight))
    assert not depends_on(out, on(nn.Linear(3, 4).weight))
