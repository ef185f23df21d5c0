"""LfF: the generalised cross-entropy, the relative difficulty, and what each term trains."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from algorithms.lff import generalised_cross_entropy, relative_difficulty
from tests.support.tiny import build, make_batch, train


def logits_of(rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    logits = 3 * torch.randn(
        rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return logits, torch.arange(rows) % 4


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_generalised_cross_entropy_by_its_definition(q: float) -> None:
    logits, label = logits_of()
    for row, found in enumerate(generalised_cross_entropy(logits, label, q).tolist()):
        powers = [math.exp(v) for v in logits[row].tolist()]
        p = powers[label[row]] / math.fsum(powers)
        assert found == pytest.approx((1 - p**q) / q, rel=1e-9)


def test_its_limit_is_the_cross_entropy() -> None:
    logits, label = logits_of()
    plain = F.cross_entropy(logits, label, reduction="none")
    assert torch.allclose(generalised_cross_entropy(logits, label, 1e-9), plain)


def test_its_gradient_is_that_of_the_cross_entropy_times_p_to_the_q() -> None:
    logits, label = logits_of()
    logits.requires_grad_()
    p = logits.softmax(1).gather(1, label[:, None]).detach()
    (found,) = torch.autograd.grad(generalised_cross_entropy(logits, label, 0.7).sum(), logits)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, label, reduction="sum"), logits)
    assert torch.allclose(found, p**0.7 * plain, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda v: generalised_cross_entropy(v, label, 0.7), logits)


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_certain_and_clueless_answers_are_finite(size: float) -> None:
    logits = torch.tensor([[size, -size], [-size, size]], requires_grad=True)
    loss = generalised_cross_entropy(logits, torch.tensor([0, 0]), 0.7)
    loss.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.isfinite().all() and (loss <= 1 / 0.7 + 1e-6).all()


def test_relative_difficulty() -> None:
    biased = torch.tensor([3.0, 1.0, 0.0, 0.0, 2.0], requires_grad=True)
    debiased = torch.tensor([1.0, 1.0, 5.0, 0.0, 0.0], requires_grad=True)
    found = relative_difficulty(biased, debiased)
    assert not found.requires_grad
    assert found.tolist() == pytest.approx([0.75, 0.5, 0, 0, 1], abs=1e-6)


def test_the_terms_by_hand_and_what_they_move() -> None:
    algorithm: Any = build("lff", q=0.5).double().eval()
    batch = make_batch()
    image = batch.image.double()
    terms = algorithm.loss(type(batch)(image, batch.label, batch.index))
    log_b, log_d = (net(image).log_softmax(1).gather(1, batch.label[:, None])[:, 0] for net in
                    (algorithm.biased, algorithm.network))  # fmt: skip
    weight = (log_b / (log_b + log_d)).detach()
    assert terms["biased"].item() == pytest.approx(
        ((1 - log_b.exp().sqrt()) / 0.5).mean().item(), rel=1e-9
    )
    assert terms["debiased"].item() == pytest.approx((-weight * log_d).mean().item(), rel=1e-6)
    ours, theirs = list(algorithm.network.parameters()), list(algorithm.biased.parameters())
    for term, moved, left in (("biased", theirs, ours), ("debiased", ours, theirs)):
        gradients = torch.autograd.grad(
            terms[term], [*moved, *left], allow_unused=True, retain_graph=True
        )
        assert all(g is not None for g in gradients[: len(moved)])
        assert all(g is None for g in gradients[len(moved) :])
    plain = torch.autograd.grad(-(weight * log_d).mean(), ours)
    found = torch.autograd.grad(terms["debiased"], ours)
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-9) for a, b in zip(found, plain, strict=True)
    )


def test_the_debiased_network_predicts_and_the_difficulty_is_on_record() -> None:
    algorithm = build("lff")
    assert not torch.equal(algorithm.biased.classifier.weight, algorithm.network.classifier.weight)
    train(algorithm, 0, 2)
    image = make_batch().image
    algorithm.eval()
    assert torch.equal(algorithm.predict(image), algorithm.network(image))
    before = algorithm.report()["relative_difficulty"]
    assert 0 < before < 1
    algorithm.loss(make_batch())  # in evaluation nothing is counted
    assert algorithm.report()["relative_difficulty"] == before
