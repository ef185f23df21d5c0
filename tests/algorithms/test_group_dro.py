"""GroupDRO and balanced groups: the update by hand, absent groups, huge losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from algorithms.group_dro import update_group_weights
from tests.support.tiny import build, make_batch, train

ALL = torch.ones(3, dtype=torch.bool)


def test_update_by_hand() -> None:
    q, losses = [0.2, 0.3, 0.5], [1.0, 2.0, 0.5]
    raised = [w * math.exp(0.1 * loss) for w, loss in zip(q, losses, strict=True)]
    found = update_group_weights(
        torch.tensor(q, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64), 0.1, ALL
    )
    assert found.tolist() == pytest.approx([w / sum(raised) for w in raised], rel=1e-14)


def test_an_absent_group_keeps_its_weight_until_all_are_divided_by_their_sum() -> None:
    q, present = (
        torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
        torch.tensor([True, False, True]),
    )
    for unknown in (0.0, 50.0, math.nan, math.inf):
        losses = torch.tensor([1.0, unknown, 3.0], dtype=torch.float64)
        raised = torch.tensor([0.2 * math.exp(0.5), 0.3, 0.5 * math.exp(1.5)], dtype=torch.float64)
        assert torch.allclose(
            update_group_weights(q, losses, 0.5, present), raised / raised.sum(), rtol=1e-14, atol=0
        )


def test_no_group_present_or_no_step_size_changes_nothing() -> None:
    q, losses = (
        torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
    )
    assert torch.allclose(update_group_weights(q, losses, 0.1, ~ALL), q, rtol=1e-15, atol=0)
    assert torch.allclose(update_group_weights(q, losses, 0.0, ALL), q, rtol=1e-15, atol=0)


@pytest.mark.parametrize("huge", [1e4, 1e30, 3e38, math.inf])
def test_huge_losses_give_a_weight_of_one_and_never_nan(huge: float) -> None:
    q = update_group_weights(torch.full((3,), 1 / 3), torch.tensor([huge, 1.0, 2.0]), 100.0, ALL)
    assert q[0] == 1
    assert q.isfinite().all()
    assert (q > 0).all(), "a weight of exactly zero could never rise again"
    for _ in range(5):  # the first group is learnt, the second is now the worst
        q = update_group_weights(q, torch.tensor([0.0, 1.0, 0.0]), 50.0, ALL)
    assert q[1] == pytest.approx(1.0)


def test_two_infinite_losses_share_the_weight() -> None:
    q = update_group_weights(
        torch.full((3,), 1 / 3), torch.tensor([math.inf, math.inf, 2.0]), 1.0, ALL
    )
    assert q[:2].tolist() == pytest.approx([0.5, 0.5])


def test_weights_have_no_gradient() -> None:
    losses = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert not update_group_weights(torch.full((3,), 1 / 3), losses, 0.1, ALL).requires_grad


def test_loss_weighs_group_means_with_the_updated_weights() -> None:
    algorithm, batch = build("group_dro", eta=0.7), make_batch()
    batch = batch.rows(batch.group != 4)  # an absent group
    losses = (
        F.cross_entropy(algorithm.predict(batch.image), batch.label, reduction="none")
        .detach()
        .double()
    )
    present = [g for g in range(6) if g != 4]
    means = {g: float(losses[batch.group == g].mean()) for g in present}
    raised = {g: math.exp(0.7 * means[g]) if g in means else 1.0 for g in range(6)}
    expected = sum(raised[g] * means[g] for g in present) / sum(raised.values())
    assert algorithm.loss(batch)["robust"].item() == pytest.approx(expected, rel=1e-5)
    assert algorithm.q.tolist() == pytest.approx(
        [w / sum(raised.values()) for w in raised.values()], rel=1e-5
    )
    assert algorithm.report() == {"group_weights": algorithm.q.tolist()}


def test_with_equal_weights_kept_it_is_the_mean_of_the_group_losses() -> None:
    algorithm, batch = build("group_dro", eta=0.0), make_batch()
    expected = F.cross_entropy(
        algorithm.predict(batch.image), batch.label
    )  # the groups are equally large
    assert algorithm.loss(batch)["robust"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_are_part_of_the_state_and_of_no_optimiser() -> None:
    algorithm = build("group_dro", eta=0.5)
    train(algorithm, 0, 2)
    assert algorithm.state_dict()["q"].sum() == pytest.approx(1.0)
    assert not torch.equal(algorithm.q, torch.full((6,), 1 / 6))
    moved = [p for group in algorithm.optimizers["main"].param_groups for p in group["params"]]
    assert all(p is not algorithm.q for p in moved)


def test_reweight_is_erm_on_balanced_batches() -> None:
    balanced, plain = build("reweight"), build("erm")
    assert balanced.sampling == "group"
    assert balanced.needs.groups
    assert train(balanced, 0, 3) == train(plain, 0, 3)
