"""Guidance of Attri-Net: its kinds of masks by hand, and the images that they guide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.attri_net_guided import MIXTURES, Guidance, pseudo_masks, swap_outside
from benchmark.losses.heatmaps import guidance_loss
from tests.support.tiny import TinyRun, build, make_batch

SIDE = 32
SHORT = {"critic_steps": 2, "burst": 3, "first_bursts": 1, "burst_every": 4, "head_steps": 2}


def built(**changed: Any) -> Any:
    small = {"width": 4, "critic_width": 4, "blocks": 1}
    return build("attri_net_guided", side=SIDE, **small, **{**SHORT, **changed})


def test_pseudo_masks_by_hand() -> None:
    counts = torch.zeros(2, 32, 32, dtype=torch.int64)
    counts[0, 3:6, 4:9] = 1
    counts[0, 10, 20] = 4
    union = pseudo_masks(counts, Guidance.PSEUDO_MASK)
    assert union.shape == (2, 1, 32, 32) and torch.equal(union[0, 0], (counts[0] > 0).float())
    box = pseudo_masks(counts, Guidance.PSEUDO_BOX)[0, 0]
    assert box.sum() == 8 * 17 and box[3:11, 4:21].all()
    weighted = pseudo_masks(counts, Guidance.WEIGHTED)[0, 0]
    assert weighted[3, 4] == 0.25 and weighted[10, 20] == 1 and weighted.sum() == 15 * 0.25 + 1
    for kind in Guidance:
        if kind != Guidance.FULL:
            central = pseudo_masks(counts, kind)[1, 0]  # a class without masks
            assert central.sum() == 30 * 30 and central[1:31, 1:31].all()


@pytest.mark.parametrize("kind", list(Guidance))
def test_which_images_are_guided_by_which_mask(kind: Guidance) -> None:
    algorithm = built(guidance=kind.value)
    batch = make_batch(side=SIDE)
    assert batch.class_mask is not None
    positive = batch.label == 1
    rows = positive.nonzero()[:, 0]
    mask = torch.zeros_like(batch.class_mask)
    mask[rows[0], 1, 5:9, 5:9] = True  # one of the positives has a mask
    algorithm.pseudo.zero_()
    algorithm.pseudo[1, 0, 20:30, 20:30] = 0.5
    attribution = torch.randn(len(batch), 3, SIDE, SIDE)
    terms = algorithm.guidance(replace(batch, class_mask=mask), attribution, positive, 1)
    own = guidance_loss(attribution[rows[:1]], mask[rows[:1], 1:2])
    pseudo = guidance_loss(attribution[rows], algorithm.pseudo[1].expand(len(rows), 1, SIDE, SIDE))
    expected = {
        Guidance.FULL: own.mean(),
        Guidance.MIXED: torch.cat([own, pseudo[1:]]).mean(),
        Guidance.MIXED_WEIGHTED: torch.cat([own, pseudo[1:]]).mean(),
    }.get(kind, pseudo.mean())
    torch.testing.assert_close(terms["guidance"], algorithm.hp["guidance_weight"] * expected)


@pytest.mark.parametrize("kind", list(Guidance))
def test_one_step_in_ten_of_mixtures_has_positives_with_masks_only(kind: Guidance) -> None:
    algorithm = built(guidance=kind.value, steps=40_000)
    drawn = [algorithm.draw(step) for step in range(10_000)]
    generator = [draw.annotated for draw in drawn if draw.stream == "generator"]
    assert len(generator) > 1000
    share = sum(generator) / len(generator)
    assert 0.08 < share < 0.12 if kind in MIXTURES else share == 0
    assert not any(draw.annotated for draw in drawn if draw.stream != "generator")


def test_the_masks_of_the_training_images_become_a_buffer() -> None:
    algorithm = built(guidance="pseudo_mask")
    run = TinyRun(algorithm, 0, 5, side=SIDE)
    algorithm.fit(run)
    expected = pseudo_masks(run.class_mask_counts(), Guidance.PSEUDO_MASK)
    assert torch.equal(algorithm.state_dict()["pseudo"], expected)
    assert not expected.all()


def test_pairs_exchange_what_is_outside_the_mask() -> None:
    image = torch.randn(4, 2, 6, 6)
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., 2:4, 2:4] = True
    swapped = swap_outside(image, torch.tensor([0]), torch.tensor([3]), mask)
    inside = mask[0, 0]
    for row, partner in ((0, 3), (3, 0)):
        assert torch.equal(swapped[row][:, inside], image[row][:, inside])
        assert torch.equal(swapped[row][:, ~inside], image[partner][:, ~inside])
    assert torch.equal(swapped[1:3], image[1:3])


def test_a_tag_outside_the_mask_says_nothing_when_all_pairs_may_swap() -> None:
    """With half of the pairs swapped, as many positives as negatives of a step have the tag."""
    algorithm = built(swap=0.5)
    batch = make_batch(rows=2000, side=SIDE)
    label = torch.arange(2000) % 2
    image = torch.zeros_like(batch.image)
    image[label == 0, :, 0, 0] = 1  # the tag of class 0
    mask = torch.zeros(2000, 3, SIDE, SIDE, dtype=torch.bool)
    mask[:, :, 8:20, 8:20] = True
    seen: list[torch.Tensor] = []
    algorithm.critic_loss = lambda given, *_: seen.append(given.image[:, 0, 0, 0]) or {}
    algorithm.minimise = lambda *_: None
    algorithm.step(replace(batch, image=image, label=label, class_mask=mask))
    shares = [float(seen[0][label == k].mean()) for k in (0, 1)]
    assert all(abs(share - 0.5) < 0.05 for share in shares)


def test_the_counterfactual_within_the_mask_should_have_no_evidence() -> None:
    algorithm = built(counterfactual_weight=7.0, guidance_weight=0.0)
    batch = make_batch(side=SIDE)
    assert batch.class_mask is not None
    positive = batch.label == 1
    label = torch.tensor([1])
    network = algorithm.network
    attribution = network.attribution(batch.image, label)
    terms = algorithm.guidance(batch, attribution, positive, 1)
    mask = batch.class_mask[positive, 1:2]
    changed = network.unit(batch.image[positive]) + mask * attribution[positive]
    logits = network.heads(network.generator(changed, label), label)
    expected = -7 * torch.log(1 - torch.sigmoid(logits)).mean()
    torch.testing.assert_close(terms["counterfactual"], expected)
    gradient = torch.autograd.grad(terms["counterfactual"], list(network.generator.parameters()))
    assert any(part.any() for part in gradient)
