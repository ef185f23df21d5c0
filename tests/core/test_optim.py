"""Optimizers and schedules against those of torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from benchmark.core.optim import COMMON_HPARAMS, lr_factor, make_optimizer, set_lr

DEFAULTS = {name: h.default for name, h in COMMON_HPARAMS.items()}


def _weights() -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.ones(3)),
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.ones(1), requires_grad=False),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_the_optimizer_has_the_requested_type(name: str, kind: type) -> None:
    hparams = {**DEFAULTS, "optimizer": name, "lr": 0.03, "weight_decay": 0.2, "momentum": 0.7}
    optimizer = make_optimizer(iter(_weights()), hparams)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (0.03, 0.03, 0.2)
    assert len(group["params"]) == 2  # what needs no gradient is left out
    if name == "sgd":
        assert group["momentum"] == 0.7
    else:
        assert group["betas"] == (0.9, 0.999)


def test_an_algorithm_may_change_values_for_one_optimiser() -> None:
    group = make_optimizer(
        _weights(), DEFAULTS, lr=0.5, betas=(0.5, 0.9), weight_decay=0.1
    ).param_groups[0]
    assert (group["lr"], group["initial_lr"], group["betas"], group["weight_decay"]) == (
        0.5,
        0.5,
        (0.5, 0.9),
        0.1,
    )


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_in_one_pass_is_adam(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, dtype=dtype, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    hparams = {**DEFAULTS, "optimizer": name, "lr": 0.03, "weight_decay": 0.2}
    optimizer = make_optimizer([ours], hparams)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    reference = kind([theirs], lr=0.03, weight_decay=0.2, foreach=False, fused=False)
    for _ in range(20):
        ours.grad = torch.randn(50, dtype=dtype, generator=generator)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)
    assert (ours - start).abs().max() > 0.1


def test_parameters_that_one_pass_cannot_take_are_moved_all_the_same() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    weight.grad = torch.ones(2, dtype=torch.complex64)
    optimizer = make_optimizer([weight], {**DEFAULTS, "lr": 0.1})
    optimizer.step()
    assert weight.real.tolist() == pytest.approx([0.9, 0.9], rel=1e-4)


STEPS = 40


@pytest.mark.parametrize(
    ("changed", "schedule"),
    [
        ({"lr_schedule": "cosine"}, lambda o: CosineAnnealingLR(o, STEPS)),
        ({"lr_schedule": "step"}, lambda o: MultiStepLR(o, [20, 30], 0.1)),
        (
            {"lr_schedule": "step", "lr_milestones": "0.1, .55,0.9", "lr_decay": 0.3},
            lambda o: MultiStepLR(o, [4, 22, 36], 0.3),
        ),
        ({"lr_schedule": "constant"}, lambda o: MultiStepLR(o, [], 0.1)),
    ],
)
def test_schedules_are_torchs(changed: dict[str, Any], schedule: Any) -> None:
    hparams = {**DEFAULTS, "optimizer": "sgd", "lr": 0.25, **changed}
    ours, theirs = make_optimizer(_weights(), hparams), make_optimizer(_weights(), hparams)
    reference: LRScheduler = schedule(theirs)
    for step in range(STEPS):
        set_lr(ours, lr_factor(hparams, step, STEPS))
        assert ours.param_groups[0]["lr"] == pytest.approx(
            reference.get_last_lr()[0], rel=1e-9, abs=1e-12
        )
        theirs.step()
        reference.step()


def test_milestones_are_not_moved_by_floating_point_errors() -> None:
    hparams = {**DEFAULTS, "lr_schedule": "step", "lr_milestones": "0.55"}
    assert 0.55 * 100 > 55
    assert [lr_factor(hparams, step, 100) for step in (54, 55)] == [1.0, 0.1]


def test_a_budget_of_one_step() -> None:
    for schedule in ("constant", "step", "cosine", "warmup_cosine"):
        assert lr_factor({**DEFAULTS, "lr_schedule": schedule}, 0, 1) == 1.0


def test_warm_up_rises_linearly_for_a_tenth_and_then_follows_the_cosine() -> None:
    hparams = {**DEFAULTS, "lr_schedule": "warmup_cosine"}
    cosine = {**DEFAULTS, "lr_schedule": "cosine"}
    for step in range(50):
        rise = min((step + 1) / 5, 1)
        expected = rise * lr_factor(cosine, step, 50)
        assert lr_factor(hparams, step, 50) == pytest.approx(expected, rel=1e-12)


def test_an_optimiser_of_a_methods_own_follows_the_schedule_too() -> None:
    first, second, _ = _weights()
    groups: list[dict[str, Any]] = [{"params": [first], "lr": 0.5}, {"params": [second]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    for factor in (1.0, 0.5, 0.1):
        set_lr(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 * factor, 0.1 * factor]
