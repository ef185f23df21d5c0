"""Distances between heatmaps against loops in float64, empty maps, the explained class."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from benchmark.losses.heatmaps import (
    choose_class,
    cosine_distance,
    foreground_mean,
    geometric_distance,
    pooling_matrix,
)
from benchmark.losses.outputs import softened_divergence


def maps(seed: int, rows: int = 3, side: int = 5) -> torch.Tensor:
    return torch.randn(
        rows, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def test_geometric_distance_by_loops() -> None:
    s, t = maps(0), 3 * maps(1)
    for row, found in enumerate(geometric_distance(s, t).tolist()):
        a, b = s[row].flatten().tolist(), t[row].flatten().tolist()
        apart = math.fsum(abs(x - y) for x, y in zip(a, b, strict=True))
        assert found == pytest.approx(
            apart / math.sqrt(math.fsum(map(abs, a)) * math.fsum(map(abs, b))), rel=1e-9
        )


def test_equal_maps_give_zero_and_a_factor_does_not() -> None:
    s = maps(0)
    assert torch.equal(geometric_distance(s, s), torch.zeros(3, dtype=torch.float64))
    # ‖s − 4s‖ / √(‖s‖ · 4‖s‖) = 3 / 2, whichever of the two is the larger
    assert geometric_distance(s, 4 * s).tolist() == pytest.approx([1.5] * 3, rel=1e-9)
    assert geometric_distance(4 * s, s).tolist() == pytest.approx([1.5] * 3, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_maps_are_finite_with_finite_gradients(dtype: torch.dtype) -> None:
    s, t = maps(0).to(dtype), maps(1).to(dtype)
    s[0], t[0], s[1], t[2] = 0, 0, 0, 0
    s.requires_grad_()
    distance = geometric_distance(s, t)
    distance.sum().backward()
    assert distance[0] == 0
    assert (distance[1:] > 100).all() and distance.isfinite().all()
    assert s.grad is not None and s.grad.isfinite().all()


def test_geometric_distance_differentiates_through_the_norm() -> None:
    """The gradient of the numerator alone would be another one."""
    s, t = maps(0).requires_grad_(), maps(1)
    assert torch.autograd.gradcheck(geometric_distance, (s, t))
    (found,) = torch.autograd.grad(geometric_distance(s, t).sum(), s)
    fixed = (s.detach().flatten(1).abs().sum(1) * t.flatten(1).abs().sum(1)).sqrt()
    (without,) = torch.autograd.grad(((s - t).flatten(1).abs().sum(1) / fixed).sum(), s)
    assert not torch.allclose(found, without, rtol=1e-3)


def test_cosine_distance_is_one_minus_the_cosine() -> None:
    s, t = maps(0), maps(1)
    expected = [1 - float((a * b).sum() / (a.norm() * b.norm())) for a, b in zip(s, t, strict=True)]
    assert cosine_distance(s, t).tolist() == pytest.approx(expected, rel=1e-12)
    assert cosine_distance(s, 7 * s).abs().max() < 1e-12
    assert cosine_distance(s, -s).tolist() == pytest.approx([2] * 3)
    zero = torch.zeros_like(s).requires_grad_()
    cosine_distance(zero, t).sum().backward()
    assert cosine_distance(zero, t).tolist() == [1, 1, 1]
    assert zero.grad is not None and zero.grad.isfinite().all()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_half_the_classes_are_the_winner_and_the_others_are_equally_often_the_rest(
    classes: int,
) -> None:
    rows = 20_000
    logits = torch.zeros(rows, classes)
    logits[:, 1] = 1
    chosen = choose_class(logits, torch.Generator().manual_seed(0))
    shares = torch.bincount(chosen, minlength=classes) / rows
    expected = torch.full((classes,), 0.5 / (classes - 1))
    expected[1] = 0.5
    # five standard deviations of a binomial share
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / rows).sqrt()).all()


def test_the_draw_is_the_generators_or_torchs() -> None:
    logits = torch.randn(50, 7)
    draws = [choose_class(logits, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    torch.manual_seed(3)
    first = choose_class(logits)
    torch.manual_seed(3)
    assert torch.equal(first, choose_class(logits))


def test_foreground_mean_by_loops_and_without_foreground() -> None:
    heatmap, mask = (
        maps(0).abs(),
        torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.4,
    )
    mask[2] = False
    for row, found in enumerate(foreground_mean(heatmap, mask).tolist()):
        places = [(i, j) for i in range(5) for j in range(5) if mask[row, 0, i, j]]
        inside = [heatmap[row, c, i, j].item() for c in range(2) for i, j in places]
        assert found == pytest.approx(math.fsum(inside) / len(inside) if inside else 0, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_softened_divergence_by_hand(temperature: float) -> None:
    s, t = maps(0)[:, 0, 0], maps(1)[:, 0, 0]
    p, q = (torch.softmax(x / temperature, 1) for x in (t, s))
    expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert softened_divergence(s, t, temperature).item() == pytest.approx(
        expected.item(), rel=1e-12
    )
    assert softened_divergence(t + 5, t, temperature).abs() < 1e-12, (
        "a constant added to all logits changes nothing"
    )
    assert softened_divergence(1e4 * s.float(), 1e4 * t.float(), temperature).isfinite()


@pytest.mark.parametrize(("old", "new"), [(8, 4), (7, 3), (10, 7), (5, 5)])
def test_pooling_by_products_is_adaptive_pooling(old: int, new: int) -> None:
    x = torch.randn(2, 3, old, old + 1, generator=torch.Generator().manual_seed(0)).double()
    found = pooling_matrix(old, new) @ x @ pooling_matrix(old + 1, new).T
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, new), rtol=1e-12, atol=1e-14)
