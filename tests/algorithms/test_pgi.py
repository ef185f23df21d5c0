"""PGI: the penalty by loops, degenerate cases, its gradient, and the minority group."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from algorithms.pgi import pgi_penalty
from benchmark.core.batch import Batch
from tests.support.tiny import build, make_batch, train


def by_loops(logits: torch.Tensor, label: torch.Tensor, minority: torch.Tensor) -> float:
    classes, total = logits.shape[1], 0.0
    for c in range(classes):
        means = []
        for part in (1, 0):
            rows = [
                i for i in range(len(label)) if label[i] == c and bool(minority[i]) == bool(part)
            ]
            soft = [logits[i].softmax(0).tolist() for i in rows]
            if not rows:
                means.append(None)
                continue
            averages = [sum(s[k] for s in soft) / len(rows) for k in range(classes)]
            means.append([min(max(average, 1e-12), 1 - 1e-12) for average in averages])
        if means[0] is not None and means[1] is not None:
            total += sum(p * math.log(p / q) for p, q in zip(means[0], means[1], strict=True))
    return total / classes


def problem(rows: int = 14) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return logits, torch.arange(rows) % 3, torch.rand(rows, generator=generator) < 0.4


def test_penalty_by_loops() -> None:
    logits, label, minority = problem()
    assert pgi_penalty(logits, label, minority).item() == pytest.approx(
        by_loops(logits, label, minority), rel=1e-12
    )
    halved = pgi_penalty(logits, label, minority, mean_over_outputs=True)
    assert halved.item() == pytest.approx(by_loops(logits, label, minority) / 3, rel=1e-12)


def test_a_class_without_minority_or_without_majority_is_skipped() -> None:
    logits, label, minority = problem()
    for part in (False, True):
        chosen = torch.where(label == 1, part, minority)
        rest = label != 1
        found, others = (
            pgi_penalty(logits, label, chosen),
            by_loops(logits[rest], label[rest], minority[rest]),
        )
        assert found.item() == pytest.approx(others, rel=1e-12)


@pytest.mark.parametrize("part", [False, True])
def test_one_group_alone_gives_zero_and_a_gradient_of_zero(part: bool) -> None:
    logits, label, minority = problem()
    logits.requires_grad_()
    penalty = pgi_penalty(logits, label, torch.full_like(minority, part))
    penalty.backward()
    assert penalty == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_identical_groups_give_zero() -> None:
    logits, label, _ = problem(6)
    twice = torch.cat([logits, logits]).float().requires_grad_()
    penalty = pgi_penalty(twice, torch.cat([label, label]), torch.arange(12) >= 6)
    penalty.backward()
    assert penalty == 0
    assert twice.grad.abs().max() < 1e-7


def test_saturated_predictions_stay_finite() -> None:
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    penalty = pgi_penalty(logits, torch.tensor([0, 0]), torch.tensor([False, True]))
    penalty.backward()
    assert penalty.item() == pytest.approx(math.log(1e12) / 2, rel=1e-5)
    assert logits.grad.isfinite().all()


def test_gradient_by_finite_differences() -> None:
    logits, label, minority = problem(8)
    assert torch.autograd.gradcheck(
        lambda f: pgi_penalty(f, label, minority), logits.requires_grad_()
    )


def biased_batch() -> Batch:
    """Class c mostly with confounder c % 2: rows 0 … 8 with it, 9 … 11 without."""
    batch = make_batch()
    confounder = torch.where(batch.index < 9, batch.label % 2, 1 - batch.label % 2)
    return Batch(batch.image.double(), batch.label, batch.index, group=batch.label * 2 + confounder)


def test_the_penalty_moves_the_features_and_not_the_last_layer() -> None:
    algorithm, batch = build("pgi").double(), biased_batch()
    terms = algorithm.loss(batch)
    last = list(algorithm.network.classifier.parameters())
    assert torch.autograd.grad(terms["penalty"], last, allow_unused=True, retain_graph=True) == (
        None,
        None,
    )
    below = [
        p for name, p in algorithm.network.named_parameters() if not name.startswith("classifier")
    ]
    assert all(
        g.abs().max() > 0 for g in torch.autograd.grad(terms["penalty"], below, retain_graph=True)
    )
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(terms["classification"], last))


def test_terms_and_ramp() -> None:
    batch = biased_batch()
    algorithm = build("pgi", penalty_weight=20.0, ramp=0.5, steps=8).double()
    for step, share in ((0, 1 / 4), (2, 3 / 4), (3, 1.0), (7, 1.0)):
        algorithm.current_step = step
        terms = algorithm.loss(batch)
        logits = algorithm.predict(batch.image)
        expected = by_loops(logits, batch.label, batch.index >= 9)
        assert terms["penalty"].item() == pytest.approx(20 * share * expected, rel=1e-9)
        assert terms["classification"].item() == pytest.approx(
            F.cross_entropy(logits, batch.label).item(), rel=1e-12
        )
    at_once = build("pgi", penalty_weight=20.0, ramp=0.0).double()
    assert at_once.loss(batch)["penalty"].item() == pytest.approx(20 * expected, rel=1e-9)


def test_balanced_cross_entropy_counts_majority_and_minority_the_same() -> None:
    algorithm, batch = build("pgi", balanced=True).double(), biased_batch()
    losses = F.cross_entropy(algorithm.predict(batch.image), batch.label, reduction="none")
    expected = (losses[:9].mean() + losses[9:].mean()) / 2
    assert algorithm.loss(batch)["classification"].item() == pytest.approx(
        expected.item(), rel=1e-12
    )
    alone = batch.rows(batch.index < 9)
    expected = F.cross_entropy(algorithm.predict(alone.image), alone.label)
    assert algorithm.loss(alone)["classification"].item() == pytest.approx(
        expected.item(), rel=1e-12
    )


def test_the_majority_is_what_was_seen_most_over_all_batches() -> None:
    algorithm, batch = build("pgi").double(), biased_batch()
    algorithm.loss(batch)
    odd = batch.rows(batch.index >= 9)  # in this batch the minority is all there is
    assert algorithm._minority(odd.group).all()
    assert algorithm.state_dict()["seen"].tolist() == [[3, 2], [2, 3], [3, 2]]


def test_a_full_bias_makes_it_the_standard_classifier() -> None:
    """Without a minority there is nothing to compare: the same weights as ERM, to the bit."""
    batch = biased_batch().rows(torch.arange(9))
    one, other = build("pgi").double(), build("erm").double()
    for algorithm in (one, other):
        for _ in range(3):
            algorithm.step(batch)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_it_trains() -> None:
    logged = train(build("pgi", ramp=0.0), 0, 3)
    assert all(terms["penalty"] >= 0 for terms in logged)
