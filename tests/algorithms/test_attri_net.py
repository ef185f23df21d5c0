"""Attri-Net: losses against loops, the schedule, completeness of its explanation, and guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from algorithms._attri_net_schedule import Schedule, Update
from algorithms.attri_net import centre_loss, gradient_penalty
from benchmark import explain
from benchmark.core.batch import Batch
from benchmark.losses.heatmaps import guidance_loss
from tests.support.tiny import build, make_batch, same_weights, through_checkpoint

SIDE = 32
SHORT = {"critic_steps": 2, "burst": 3, "first_bursts": 1, "burst_every": 4, "head_steps": 2}


def built(name: str = "attri_net", **changed: Any) -> Any:
    return build(name, side=SIDE, width=4, critic_width=4, blocks=1, **{**SHORT, **changed})


def batch_of(seed: int = 0) -> Batch:
    return make_batch(side=SIDE, seed=seed)


def maps(rows: int = 5, channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, channels, 4, 6, dtype=torch.float64, generator=generator)


def test_centre_loss_against_loops() -> None:
    attribution = maps()
    centres = maps(2) / 2
    label = torch.tensor([1, 0, 0, 1, 0])
    expected = 0.0
    for side in (0, 1):
        rows = [m for m, s in zip(attribution, label.tolist(), strict=True) if s == side]
        squares = [sum((m - centres[side]).flatten().square()) for m in rows]
        expected += 0.5 * float(sum(squares)) / len(rows)
    assert centre_loss(attribution, label, centres).item() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(
        centre_loss(attribution, label.bool(), centres), centre_loss(attribution, label, centres)
    )


@pytest.mark.parametrize("side", [0, 1])
def test_centre_loss_of_one_side_only(side: int) -> None:
    attribution = maps().requires_grad_()
    label = torch.full((5,), side)
    loss = centre_loss(attribution, label, torch.zeros(2, 2, 4, 6, dtype=torch.float64))
    expected = 0.5 * attribution.flatten(1).square().sum(1).mean()
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss, attribution)[0].isfinite().all()


def test_guidance_loss_against_loops_and_for_empty_maps() -> None:
    attribution = maps()
    attribution[2] = 0
    attribution.requires_grad_()
    mask = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    mask[3] = False
    loss = guidance_loss(attribution, mask)
    assert loss.shape == (5,)
    for i in range(5):
        size = attribution[i].detach().abs()
        inside = (size * mask[i]).sum().item()
        expected = 1.0 if i == 2 else 1 - inside / size.sum().item()
        assert loss[i].item() == pytest.approx(expected, rel=1e-12)
    assert loss[3].item() == 1
    assert torch.autograd.grad(loss.sum(), attribution)[0].isfinite().all()


def test_a_tiny_map_still_has_a_gradient_of_guidance() -> None:
    attribution = torch.full((1, 1, 2, 2), 1e-9, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[[[True, False], [False, False]]]])
    guidance_loss(attribution, mask).sum().backward()
    assert attribution.grad is not None
    assert attribution.grad.flatten().tolist() == [-1, 0, 0, 0]


def test_gradient_penalty_of_a_linear_and_of_a_quadratic_critic() -> None:
    weight = maps(1)[0]
    real = maps(3)
    fake = maps(4)[1:]
    alpha = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    linear = gradient_penalty(lambda x: (x * weight).sum((1, 2, 3)), real, fake, alpha)
    assert linear.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-12)
    square = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, real, fake, alpha)
    points = [a * r + (1 - a) * f for a, r, f in zip(alpha, real, fake, strict=True)]
    expected = sum((point.norm().item() - 1) ** 2 for point in points) / 3
    assert square.item() == pytest.approx(expected, rel=1e-12)


def test_gradient_penalty_moves_the_critic() -> None:
    critic = built().critic
    label = torch.zeros(3, dtype=torch.long)
    real = torch.rand(3, 3, SIDE, SIDE) * 2 - 1
    gradient_penalty(lambda x: critic(x, label), real, -real, torch.rand(3)).backward()
    assert all(p.grad is not None for p in critic.body.parameters())


def test_schedule_against_loops() -> None:
    hparams = {**SHORT, "critic_steps": 2, "burst": 5, "first_bursts": 2, "burst_every": 3}
    expected: list[Update] = []
    counts = {"critic": 0, "generator": 0, "heads": 0}
    for iteration in range(12):
        critic = 5 if iteration < 2 or iteration % 3 == 0 else 2
        for part in ["critic"] * critic + ["generator"] + ["heads"] * 2:
            expected.append(Update(part, counts[part]))
            counts[part] += 1
    schedule = Schedule(hparams, steps=len(expected))
    assert [schedule.update(step) for step in range(len(expected))] == expected


def test_the_method_begins_with_the_first_step_of_the_heads() -> None:
    algorithm = built()
    begins = algorithm.active_from(algorithm.hp, {"steps": 100})
    parts = [algorithm.schedule.update(step).part for step in range(begins + 1)]
    assert parts.index("heads") == begins


def test_schedule_without_a_critic() -> None:
    schedule = Schedule({**SHORT, "critic_steps": 0, "burst": 0}, steps=7)
    assert [schedule.update(step).part for step in range(6)] == ["generator", "heads", "heads"] * 2


def test_sum_of_the_explanation_is_the_logit_without_its_bias() -> None:
    algorithm = built().double().eval()
    image = batch_of().image.double()
    logits = algorithm.predict(image)
    for k in range(3):
        target = torch.full((len(image),), k)
        heatmap = explain.get("native")(algorithm.network, image, target)
        assert heatmap.shape == image.shape
        total = heatmap.sum((1, 2, 3)) + algorithm.network.heads.bias[k]
        torch.testing.assert_close(total, logits[:, k], rtol=1e-12, atol=1e-13)


def test_images_reach_the_generator_between_minus_one_and_one() -> None:
    algorithm = built(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3))
    image = torch.rand(2, 3, SIDE, SIDE)
    mean = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    std = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    torch.testing.assert_close(algorithm.network.unit((image - mean) / std), 2 * image - 1)


def test_each_step_trains_one_part() -> None:
    algorithm = built(steps=12)
    for step in range(12):
        algorithm.current_step = step
        before = {name: value.clone() for name, value in algorithm.named_parameters()}
        algorithm.step(batch_of(step).strip(algorithm.needs))
        moved = {
            name.removeprefix("network.").partition(".")[0]
            for name, value in algorithm.named_parameters()
            if not torch.equal(value, before[name])
        }
        assert moved == {algorithm.schedule.update(step).part}


def test_generator_terms_against_their_definitions() -> None:
    algorithm = built("attri_net_guided").double()
    batch = batch_of()
    batch = replace(batch, image=batch.image.double())
    assert batch.mask is not None
    network = algorithm.network
    k = 1
    label = torch.full((len(batch),), k)
    positive = batch.label == k
    network.centres_of(k).normal_(std=0.1)
    centres = network.centres_of(k).clone()
    image = network.unit(batch.image)
    attribution = network.generator(image, label)
    realism = algorithm.critic((image + attribution)[positive], label[positive])
    inside = (attribution.abs() * batch.mask)[positive].sum((1, 2, 3))
    share = inside / attribution.abs()[positive].sum((1, 2, 3))
    squares = [
        (attribution[positive == bool(side)] - centres[side]).square().sum((1, 2, 3)).mean()
        for side in (0, 1)
    ]
    expected = {
        "adversarial": -realism.mean(),
        "sparsity": 100
        * (attribution[positive].abs().mean() + 2 * attribution[~positive].abs().mean()),
        "classification": 100
        * F.binary_cross_entropy_with_logits(network.heads(attribution, label), positive.double()),
        "centre": 0.01 * 320**2 / SIDE**2 * 0.5 * (squares[0] + squares[1]),
        "guidance": 30 * (1 - share).mean(),
    }
    terms = algorithm.generator_loss(batch, label[:1], positive)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-9, atol=1e-12)
    moved = 0.9 * centres[1] + 0.1 * attribution[positive].mean(0)
    torch.testing.assert_close(network.centres_of(k)[1], moved.detach())
    assert not network.centres_of(0).any()


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("cls", {"classification"}),
        ("cls_adv", {"classification", "adversarial"}),
        ("cls_adv_reg", {"classification", "adversarial", "sparsity"}),
    ],
)
def test_variants_leave_terms_out(variant: str, names: set[str]) -> None:
    algorithm = built()
    algorithm = built(**type(algorithm).variants[variant])
    label = torch.zeros(1, dtype=torch.long)
    batch = batch_of()
    assert set(algorithm.generator_loss(batch, label, batch.label == 0)) == names


def test_several_labels_and_a_batch_without_positives() -> None:
    algorithm = built()
    batch = replace(batch_of(), label=torch.zeros(12, 3))
    for step in range(8):
        algorithm.current_step = step
        terms = algorithm.step(batch)
        assert all(torch.as_tensor(value).isfinite() for value in terms.values())


def test_resume_in_the_middle_of_a_burst() -> None:
    whole = built()
    for step in range(9):
        whole.current_step = step
        torch.manual_seed(step)
        whole.step(batch_of(step))
    half = built()
    for step in range(2):  # the first burst has three steps
        half.current_step = step
        torch.manual_seed(step)
        half.step(batch_of(step))
    resumed = through_checkpoint(half, built(seed=5), 2)
    for step in range(2, 9):
        resumed.current_step = step
        torch.manual_seed(step)
        resumed.step(batch_of(step))
    assert same_weights(whole, resumed)


def test_guidance_leaves_out_positives_without_a_mask_of_the_class() -> None:
    algorithm = built("attri_net_guided")
    batch = batch_of()
    assert batch.class_mask is not None
    positive = batch.label == 1
    rows = positive.nonzero()[:, 0]
    attribution = torch.randn(len(batch), 3, SIDE, SIDE)
    for known in (rows[:1], rows[:0]):
        mask = torch.zeros_like(batch.class_mask)
        mask[known, 1] = batch.class_mask[known, 1]
        terms = algorithm.guidance(replace(batch, class_mask=mask), attribution, positive, 1)
        outside = guidance_loss(attribution[known], mask[known, 1:2])
        expected = algorithm.hp["guidance_weight"] * outside.sum()
        torch.testing.assert_close(terms["guidance"], expected)


def test_global_explanations_are_the_centres_the_weights_and_their_product() -> None:
    algorithm = built()
    network = algorithm.network
    network.centres.normal_()
    found = algorithm.global_explanations()
    classes = len(network.heads.bias)
    for k in range(classes):
        absent, present = network.centres_of(k)
        assert torch.equal(found["class centre"][k], present)
        assert torch.equal(found["centre without the class"][k], absent)
        torch.testing.assert_close(
            found["centre × weights"][k], found["head weights"][k] * found["class centre"][k]
        )
    label = torch.arange(classes)
    logits = network.heads(found["class centre"], label)
    total = found["centre × weights"].sum((1, 2, 3))
    torch.testing.assert_close(total, logits - network.heads.bias)


def test_one_class_for_all_rows_gives_the_maps_and_gradients_of_a_class_for_each() -> None:
    algorithm = built().double()
    image = torch.rand(5, 3, SIDE, SIDE, dtype=torch.float64) * 2 - 1
    one = torch.tensor([1])
    each = one.expand(5)
    for network in (algorithm.network.generator, algorithm.critic):
        found, expected = network(image, one), network(image, each)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weights = list(network.parameters())
        pairs = zip(
            torch.autograd.grad(found.square().sum(), weights),
            torch.autograd.grad(expected.square().sum(), weights),
            strict=True,
        )
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    maps = algorithm.network.attribution(image, each)
    torch.testing.assert_close(
        algorithm.network.heads(maps, one), algorithm.network.heads(maps, each)
    )


def test_critic_terms_against_their_definitions() -> None:
    algorithm = built().double()
    batch = batch_of()
    batch = replace(batch, image=batch.image.double())
    positive = batch.label == 2
    network, critic, each = algorithm.network, algorithm.critic, torch.full((12,), 2)
    torch.manual_seed(3)
    terms = algorithm.critic_loss(batch, each[:1], positive)
    image = network.unit(batch.image)
    fake = (image + network.generator(image, each))[positive].detach()
    real = image[~positive]
    expected = critic(fake, each[: len(fake)]).mean() - critic(real, each[: len(real)]).mean()
    torch.testing.assert_close(terms["critic"], expected)
    torch.manual_seed(3)
    alpha = torch.rand(len(fake))
    penalty = gradient_penalty(
        lambda x: critic(x, each[: len(x)]), real[: len(fake)], fake, alpha.double()
    )
    torch.testing.assert_close(terms["penalty"], 10 * penalty)
