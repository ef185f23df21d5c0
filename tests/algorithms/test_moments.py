"""MMD by loops, CORAL by numpy's covariance, and batches of one row or one environment."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from algorithms.moments import coral, mmd
from tests.support.tiny import build, make_batch


def samples(
    n: int, m: int, features: int = 5, spread: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * n + m)
    x = spread * torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x, spread * (
        0.5 + 1.5 * torch.randn(m, features, generator=generator, dtype=torch.float64)
    )


def mmd_by_loops(x: list[list[float]], y: list[list[float]]) -> float:
    def mean_kernel(a: list[list[float]], b: list[list[float]]) -> float:
        total = 0.0
        for p in a:
            for q in b:
                distance = sum((s - t) ** 2 for s, t in zip(p, q, strict=True))
                total += sum(math.exp(-(10.0**power) * distance) for power in range(-3, 4))
        return total / (len(a) * len(b))

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def coral_by_numpy(x: np.ndarray, y: np.ndarray) -> float:
    means = np.mean((x.mean(0) - y.mean(0)) ** 2)
    return float(means + np.mean((np.cov(x, rowvar=False) - np.cov(y, rowvar=False)) ** 2))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 7), (1, 1), (1, 5), (6, 1)])
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
def test_mmd_by_explicit_loops(n: int, m: int, spread: float) -> None:
    x, y = samples(n, m, spread=spread)
    assert float(mmd(x, y)) == pytest.approx(
        mmd_by_loops(x.tolist(), y.tolist()), rel=1e-10, abs=1e-13
    )


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 7), (2, 2), (20, 9)])
def test_coral_by_numpy(n: int, m: int) -> None:
    x, y = samples(n, m)
    assert float(coral(x, y)) == pytest.approx(coral_by_numpy(x.numpy(), y.numpy()), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1)])
def test_coral_of_one_row_compares_means_alone(n: int, m: int) -> None:
    x, y = samples(n, m)
    assert float(coral(x, y)) == pytest.approx(
        float(((x.mean(0) - y.mean(0)) ** 2).mean()), rel=1e-14
    )


@pytest.mark.parametrize("distance", [mmd, coral])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_equal_samples_are_at_distance_zero_with_no_gradient(distance, rows: int) -> None:
    x = samples(rows, 1)[0].float().mul(20).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found = distance(x, y)
    found.backward()
    assert found == 0
    assert x.grad.abs().max() < 1e-6
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("distance", [mmd, coral])
def test_distances_are_symmetric_and_do_not_depend_on_a_shift_or_on_the_order_of_rows(
    distance,
) -> None:
    x, y = samples(4, 6)
    found = float(distance(x, y))
    assert found > 0
    assert float(distance(y, x)) == pytest.approx(found, rel=1e-12)
    assert float(distance(x + 3, y + 3)) == pytest.approx(found, rel=1e-9)
    assert float(distance(x.flip(0), y[[2, 0, 1, 5, 4, 3]])) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("distance", [mmd, coral])
def test_gradients_by_finite_differences(distance) -> None:
    x, y = samples(3, 4, features=2, spread=0.3)
    assert torch.autograd.gradcheck(distance, (x.requires_grad_(), y.requires_grad_()))


def test_large_features_in_float32_keep_a_row_equal_to_itself() -> None:
    """|x|² + |y|² − 2xy has an error of about 1e-2 here, and e^(−1000 · 0.01) is not 1."""
    x, y = (200 * s.float() for s in samples(4, 4, features=64))
    assert float(mmd(x, x)) == 0
    assert float(mmd(x, y)) == pytest.approx(mmd_by_loops(x.tolist(), y.tolist()), rel=1e-5)


@pytest.mark.parametrize(("name", "distance"), [("mmd", mmd), ("coral", coral)])
def test_loss_averages_risks_over_environments_and_distances_over_pairs(
    name: str, distance
) -> None:
    algorithm, batch = build(name, num_environments=3, penalty_weight=2.5).double(), make_batch(12)
    environment = torch.arange(12) // 4
    batch = type(batch)(batch.image.double(), batch.label, batch.index, environment=environment)
    features = algorithm.network.features(batch.image)
    logits = algorithm.network.classifier(features)
    parts = [slice(0, 4), slice(4, 8), slice(8, 12)]
    risk = sum(F.cross_entropy(logits[part], batch.label[part]) for part in parts) / 3
    pairs = sum(distance(features[a], features[b]) for a, b in combinations(parts, 2)) / 3
    terms = algorithm.loss(batch)
    assert terms["classification"].item() == pytest.approx(risk.item(), rel=1e-12)
    assert terms["penalty"].item() == pytest.approx(2.5 * pairs.item(), rel=1e-10)


@pytest.mark.parametrize("name", ["mmd", "coral"])
@pytest.mark.parametrize("sizes", [(11, 1), (1, 1), (4, 0), (1, 0)])
def test_small_and_absent_environments_never_give_nan(name: str, sizes: tuple[int, int]) -> None:
    algorithm, batch = build(name), make_batch(12)
    environment = torch.tensor([0] * sizes[0] + [1] * sizes[1])
    rows = batch.rows(torch.arange(len(environment)))
    terms = algorithm.loss(type(batch)(rows.image, rows.label, rows.index, environment=environment))
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in algorithm.parameters())
    if min(sizes) == 0:
        assert terms["penalty"] == 0


def test_distance_is_computed_in_float32_under_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, batch = (
        build("coral", autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
        make_batch(),
    )
    seen: list[torch.dtype] = []

    def spy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        distance = coral(x, y)
        seen.extend((x.dtype, (x.T @ x).dtype))
        return distance

    monkeypatch.setattr(type(algorithm), "distance", staticmethod(spy))
    algorithm.step(batch.strip(algorithm.needs))
    assert set(seen) == {torch.float32}
