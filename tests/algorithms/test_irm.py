"""IRM: the penalty against autograd and finite differences, the switch, small environments."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from algorithms.irm import IRM, irm_penalty
from benchmark.core.registry import DATASETS
from tests.support.messages import mentions
from tests.support.tiny import build, make_batch, same_weights, through_checkpoint, train


def risk(logits: torch.Tensor, label: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(scale * logits, label)


@pytest.mark.parametrize("rows", [2, 3, 8])
def test_penalty_is_the_product_of_the_slopes_of_two_halves(rows: int) -> None:
    torch.manual_seed(rows)
    logits, label = 3 * torch.randn(rows, 4, dtype=torch.float64), torch.randint(4, (rows,))
    slopes = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        slopes.append(torch.autograd.grad(risk(logits[half], label[half], scale), scale)[0])
        h = 1e-6
        finite = (
            risk(logits[half], label[half], 1 + h) - risk(logits[half], label[half], 1 - h)
        ) / (2 * h)
        assert slopes[-1] == pytest.approx(float(finite), rel=1e-7, abs=1e-9)
    assert irm_penalty(logits, label) == pytest.approx(float(slopes[0] * slopes[1]), rel=1e-12)


def test_penalty_has_the_gradient_of_the_twice_differentiated_form() -> None:
    torch.manual_seed(0)
    logits, label = (
        torch.randn(6, 3, dtype=torch.float64, requires_grad=True),
        torch.tensor([0, 1, 2, 0, 1, 2]),
    )
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    even, odd = (
        torch.autograd.grad(risk(logits[h::2], label[h::2], scale), scale, create_graph=True)[0]
        for h in (0, 1)
    )
    expected = torch.autograd.grad(even * odd, logits)[0]
    assert torch.allclose(
        torch.autograd.grad(irm_penalty(logits, label), logits)[0], expected, rtol=1e-12, atol=1e-15
    )


def test_penalty_vanishes_where_no_scale_is_better() -> None:
    """Calibrated logits: labels of one input in the proportions of its softmax."""
    logits = torch.tensor([0.75, 0.25], dtype=torch.float64).log().repeat(8, 1)
    label = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    assert irm_penalty(logits, label).abs() < 1e-30


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_for_an_estimate_give_zero_and_a_gradient_of_zero(rows: int) -> None:
    logits = torch.randn(rows, 3, requires_grad=True)
    penalty = irm_penalty(logits, torch.zeros(rows, dtype=torch.int64))
    penalty.backward()
    assert penalty == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    assert irm_penalty(logits, torch.tensor([1, 0])) == pytest.approx(4e8)


def test_loss_is_mean_risk_and_weighted_mean_penalty_of_the_environments() -> None:
    algorithm, batch = build("irm", penalty_weight=7.0, anneal_iters=5).double(), make_batch()
    image = batch.image.double()
    environment = torch.tensor([0] * 8 + [1] * 4)
    batch = type(batch)(image, batch.label, batch.index, environment=environment)
    logits = algorithm.predict(image)
    parts = [(logits[:8], batch.label[:8]), (logits[8:], batch.label[8:])]
    risks = [F.cross_entropy(*part) for part in parts]
    penalties = [irm_penalty(*part) for part in parts]
    for step, weight in ((4, 1.0), (5, 7.0), (9, 7.0)):
        algorithm.current_step = step
        terms = algorithm.loss(batch)
        assert terms["classification"].item() == pytest.approx(sum(risks).item() / 2, rel=1e-12)
        assert terms["penalty"].item() == pytest.approx(
            weight * sum(penalties).item() / 2, rel=1e-10
        )


def test_an_environment_of_one_row_counts_in_the_risk_and_not_in_the_penalty() -> None:
    algorithm, batch = build("irm", anneal_iters=0), make_batch()
    environment = torch.tensor([0] * 11 + [1])
    batch = type(batch)(batch.image, batch.label, batch.index, environment=environment)
    terms = algorithm.loss(batch)
    logits = algorithm.predict(batch.image)
    assert terms["penalty"].item() == pytest.approx(
        100 * irm_penalty(logits[:11], batch.label[:11]).item(), rel=1e-4
    )
    alone = type(batch)(
        batch.image[:2], batch.label[:2], batch.index[:2], environment=torch.tensor([0, 1])
    )
    terms = algorithm.loss(alone)
    assert terms["penalty"] == 0
    assert terms["classification"].isfinite()


def test_a_batch_without_two_rows_of_each_environment_is_refused_in_a_sentence() -> None:
    info = DATASETS.get("tiny")().info()

    def spec(rows: int) -> SimpleNamespace:
        return SimpleNamespace(hparams={"batch_size": rows})

    assert mentions(IRM.refuses(spec(3), info), "batch_size = 3", "2 environments", "4")
    assert IRM.refuses(spec(4), info) is None


def test_adam_starts_anew_at_the_switch_with_the_rate_of_the_schedule() -> None:
    algorithm = build("irm", anneal_iters=3, lr_schedule="cosine", steps=10)
    before = algorithm.optimizers["main"]
    train(algorithm, 0, 3)
    assert algorithm.optimizers["main"] is before
    train(algorithm, 3, 4)
    after = algorithm.optimizers["main"]
    assert after is not before
    assert {int(state["step"]) for state in after.state.values()} == {1}
    assert after.param_groups[0]["lr"] == pytest.approx(
        1e-3 * 0.5 * (1 + torch.cos(torch.tensor(0.3 * torch.pi)))
    )
    train(algorithm, 4, 6)
    assert algorithm.optimizers["main"] is after
    assert {int(state["step"]) for state in after.state.values()} == {3}


@pytest.mark.parametrize("resumed_at", [2, 3, 4])
def test_a_run_resumed_around_the_switch_is_the_undisturbed_run(resumed_at: int) -> None:
    whole = build("irm", anneal_iters=3)
    train(whole, 0, 6)
    first = build("irm", anneal_iters=3)
    train(first, 0, resumed_at)
    second = through_checkpoint(first, build("irm", seed=1, anneal_iters=3), resumed_at)
    train(second, resumed_at, 6)
    assert same_weights(whole, second)
