"""Losses of logits: labels that are not known."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.losses.outputs import classification_loss

LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
LABEL = (torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def test_known_labels_have_the_plain_cross_entropy_to_the_last_bit() -> None:
    logits, other = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    loss = classification_loss(logits, LABEL)
    expected = F.binary_cross_entropy_with_logits(other, LABEL)
    assert loss.equal(expected)
    loss.backward()
    expected.backward()
    assert logits.grad is not None and other.grad is not None and logits.grad.equal(other.grad)


def test_unknown_labels_do_not_count_and_have_no_gradient() -> None:
    logits = LOGITS.double().requires_grad_()
    label = LABEL.double()
    label[1, 2] = label[3] = torch.nan
    known = ~label.isnan()
    loss = classification_loss(logits, label)
    loss.backward()
    p = logits.detach().sigmoid()
    terms = -(label * p.log() + (1 - label) * (1 - p).log())
    torch.testing.assert_close(loss.detach(), terms[known].mean())
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all() and (logits.grad[known] != 0).all()


def test_without_any_known_label_the_loss_is_zero() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = classification_loss(logits, torch.full_like(LABEL, torch.nan))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_single_labels() -> None:
    label = torch.tensor([0, 2, 1, 1, 0])
    assert classification_loss(LOGITS, label).equal(F.cross_entropy(LOGITS, label))
