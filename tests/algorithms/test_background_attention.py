"""RRR, GradMask, GAIN and ISNet against a few lines in float64, and extreme masks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from algorithms.gain import soft_mask
from algorithms.isnet import background_loss, bounds, foreground_loss, weighted_rank_pooling
from algorithms.rrr import background_energy
from benchmark.core.batch import Batch
from benchmark.losses.heatmaps import scaled_to_one
from tests.support.tiny import (
    TinyRun,
    build,
    make_batch,
    same_weights,
    through_checkpoint,
    train,
)

METHODS = ["rrr", "gradmask", "gain", "isnet"]


def built(name: str, **changed: Any) -> Any:
    if name == "isnet":
        changed.setdefault(
            "upstream", {"standard": build("erm", seed=7).eval().requires_grad_(False)}
        )
    algorithm = build(name, **changed)
    if name == "isnet":
        algorithm.low, algorithm.high = torch.tensor(0.5), torch.tensor(3.0)
    return algorithm


def double(batch: Batch) -> Batch:
    return replace(batch, image=batch.image.double())


def with_mask(batch: Batch, value: bool) -> Batch:
    return replace(batch, mask=torch.full_like(batch.mask, value))  # type: ignore[arg-type]


def maps(rows: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random heatmaps float64[rows,3,6,6] and masks."""
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.randn(rows, 3, 6, 6, dtype=torch.float64, generator=generator)
    return heatmap, torch.rand(rows, 1, 6, 6, generator=generator) < 0.4


# RRR and GradMask


@pytest.mark.parametrize("name", ["rrr", "gradmask"])
def test_penalty_by_finite_differences_image_by_image(name: str) -> None:
    algorithm, batch = (
        built(name, gradient_weight=3.0, side=8).double().eval(),
        double(make_batch(rows=2, side=8)),
    )

    def score(image: torch.Tensor, label: int) -> float:
        logits = algorithm.predict(image[None])[0]
        if name == "rrr":
            return logits.log_softmax(0).sum().item()
        return (2 * logits[label] - logits.sum()).item()

    energy, h = 0.0, 1e-5
    with torch.no_grad():
        for image, label, mask in zip(
            batch.image, batch.label.tolist(), batch.mask[:, 0], strict=True
        ):
            for c in range(3):
                for i, j in (~mask).nonzero().tolist():
                    ends = []
                    for sign in (1, -1):
                        moved = image.clone()
                        moved[c, i, j] += sign * h
                        ends.append(score(moved, label))
                    energy += ((ends[0] - ends[1]) / (2 * h)) ** 2
    terms = algorithm.loss(batch)
    assert terms["background"].item() == pytest.approx(3.0 * energy / 2, rel=1e-6)
    assert terms["classification"].item() == pytest.approx(
        F.cross_entropy(algorithm.predict(batch.image), batch.label).item(), rel=1e-12
    )


def test_the_penalty_is_per_image_so_that_its_weight_means_the_same_at_every_batch_size() -> None:
    algorithm, batch = built("rrr").double().eval(), double(make_batch())
    together = algorithm.loss(batch)["background"].item()
    alone = [
        algorithm.loss(batch.rows(torch.tensor([i])))["background"].item()
        for i in range(len(batch))
    ]
    assert together == pytest.approx(sum(alone) / len(alone), rel=1e-9)


def test_energy_counts_the_background_only() -> None:
    gradient, mask = maps()
    expected = (
        sum(
            g * g
            for row, m in zip(gradient, mask, strict=True)
            for g in row[:, ~m[0]].flatten().tolist()
        )
        / 4
    )
    assert background_energy(gradient, mask).item() == pytest.approx(expected, rel=1e-12)
    assert background_energy(gradient, torch.ones_like(mask)) == 0


# GAIN


def test_gain_by_hand() -> None:
    algorithm, batch = (
        built("gain", mining_weight=0.7, mask_weight=5.0).double().eval(),
        double(make_batch(rows=3)),
    )
    terms = algorithm.loss(batch)
    mining, squares = [], []
    for image, label, mask in zip(batch.image, batch.label.tolist(), batch.mask, strict=True):
        stages = algorithm.network.stages(image[None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            algorithm.network.classifier(stages.mean((2, 3)))[0, label], stages
        )
        cam = torch.einsum("khw,k->hw", stages[0], gradient[0].mean((1, 2))).clamp_min(0)
        cam = F.interpolate(cam[None, None], size=(16, 16), mode="bilinear", align_corners=False)[
            0, 0
        ]
        attention = cam / cam.max() if cam.max() > 0 else cam
        erased = image * (1 - 1 / (1 + (-10 * (attention - 0.5)).exp()))
        mining.append(algorithm.predict(erased[None]).softmax(1)[0, label].item())
        squares.append(((attention - mask[0].double()) ** 2).mean().item())
    assert terms["mining"].item() == pytest.approx(0.7 * sum(mining) / 3, rel=1e-9)
    assert terms["mask"].item() == pytest.approx(5 * sum(squares) / 3, rel=1e-9)


def test_soft_mask_and_scale() -> None:
    low, middle, high = soft_mask(torch.tensor([0.0, 0.5, 1.0])).tolist()
    assert (low, middle, high) == pytest.approx(
        (1 / (1 + math.exp(5)), 0.5, 1 / (1 + math.exp(-5)))
    )
    cam = torch.rand(3, 1, 4, 4)
    cam[1] = 0
    scaled = scaled_to_one(cam.requires_grad_())
    assert scaled.amax((1, 2, 3)).tolist() == pytest.approx([1, 0, 1])
    scaled.square().sum().backward()
    assert cam.grad is not None and cam.grad.isfinite().all()


def test_the_erased_pass_leaves_the_running_statistics_alone() -> None:
    algorithm, plain, batch = built("gain"), build("erm"), make_batch()
    algorithm.loss(batch)
    plain.loss(batch)
    for (name, one), (_, other) in zip(
        algorithm.network.named_buffers(), plain.network.named_buffers(), strict=True
    ):
        assert torch.allclose(one.double(), other.double()), name


def test_the_attention_loss_moves_the_stages_and_mining_moves_them_through_the_map() -> None:
    algorithm, batch = built("gain"), make_batch()
    first = next(algorithm.network.parameters())
    for term in ("mask", "mining"):
        (gradient,) = torch.autograd.grad(algorithm.loss(batch)[term], first)
        assert gradient.abs().sum() > 0


# ISNet


@pytest.mark.parametrize("d", [0.0, 0.5, 0.96, 1.0])
def test_rank_pooling_by_sorting(d: float) -> None:
    values = torch.rand(2, 3, 36, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, found in zip(
        values.flatten(0, 1), weighted_rank_pooling(values, d).flatten().tolist(), strict=True
    ):
        ranked = sorted(row.tolist(), reverse=True)
        weights = [d**i for i in range(36)]
        expected = sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)
        assert found == pytest.approx(expected, rel=1e-12)
    assert weighted_rank_pooling(values, 0.0).equal(values.amax(-1))
    assert weighted_rank_pooling(values, 1.0).flatten().tolist() == pytest.approx(
        values.mean(-1).flatten().tolist()
    )


def test_background_loss_by_loops() -> None:
    heatmap, mask = maps()
    found, values = background_loss(heatmap, mask, 0.9).item(), []
    for h, m in zip(heatmap.abs(), mask[:, 0], strict=True):
        inside = h[:, m].mean()
        for channel in h:
            ranked = sorted(
                (torch.where(m, 0.0, channel) / inside).flatten().tolist(), reverse=True
            )
            g = sum(0.9**i * v for i, v in enumerate(ranked)) / sum(0.9**i for i in range(36))
            values.append(-math.log(1 - g / (g + 1)))
    assert found == pytest.approx(sum(values) / len(values), rel=1e-9)


def test_background_loss_is_zero_without_background_relevance_and_grows_with_it() -> None:
    heatmap, mask = maps()
    assert background_loss(heatmap, torch.ones_like(mask), 0.96) == 0
    assert background_loss(heatmap * mask, mask, 0.96) == 0
    losses = [
        background_loss(torch.where(mask, heatmap, k * heatmap), mask, 0.96).item()
        for k in (0.1, 1.0, 10.0)
    ]
    assert losses == sorted(losses)
    assert background_loss(7 * heatmap, mask, 0.96).item() == pytest.approx(losses[1], rel=1e-6), (
        "blind to the size"
    )


def test_foreground_loss_is_zero_between_the_bounds_and_quadratic_outside() -> None:
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    low, high = torch.tensor(2.0), torch.tensor(6.0)
    for total, expected in (
        (0.0, 1.0),
        (1.0, 0.25),
        (2.0, 0.0),
        (4.0, 0.0),
        (6.0, 0.0),
        (10.0, 4.0),
    ):
        heatmap = torch.full((1, 3, 4, 4), -total / 24)  # 24 values in the foreground
        assert foreground_loss(heatmap, mask, low, high).item() == pytest.approx(expected, abs=1e-6)


def test_bounds_by_hand() -> None:
    wide, narrow = torch.tensor([1.0, 9.0]), torch.tensor([4.9, 5.1])
    assert [b.item() for b in bounds(wide)] == pytest.approx(
        [1.0, 17.0]
    )  # mean 5, deviation 4: 5/5 and 5 + 12
    assert [b.item() for b in bounds(narrow)] == pytest.approx([4.7, 5.3])
    assert [b.item() for b in bounds(torch.tensor([0.0, 0.0, 0.0, 100.0]))] == pytest.approx(
        [5.0, 125.0]
    )
    assert [b.item() for b in bounds(torch.tensor([3.0]))] == pytest.approx([3.0, 3.0])


def test_an_empty_mask_or_an_empty_heatmap_is_finite() -> None:
    heatmap, mask = maps()
    mask[0] = False
    low, high = torch.tensor(1.0), torch.tensor(2.0)
    rest = (heatmap[1:], mask[1:])
    assert background_loss(heatmap, mask, 0.96).item() == pytest.approx(
        0.75 * background_loss(*rest, 0.96).item()
    )
    assert foreground_loss(heatmap, mask, low, high).item() == pytest.approx(
        0.75 * foreground_loss(*rest, low, high).item()
    )
    zero = torch.zeros_like(heatmap).requires_grad_()
    total = background_loss(zero, mask, 0.96) + foreground_loss(zero, mask, low, high)
    total.backward()
    assert total.item() == pytest.approx(0.75)
    assert zero.grad is not None and zero.grad.isfinite().all()


def test_isnet_measures_its_bounds_once_and_keeps_them_through_a_checkpoint() -> None:
    standard = build("erm", seed=7).double().eval().requires_grad_(False)
    algorithm = build("isnet", upstream={"standard": standard}).double()
    run = TinyRun(algorithm, 0, 0)
    batch = double(next(run.batches("train")))
    run.batches = lambda split: iter([batch])  # type: ignore[method-assign]
    algorithm.fit(run)
    x = batch.image.clone().requires_grad_()
    totals = []
    for image in x:  # LRP by its definition: ReLUs whose derivative is a / (a + ε)
        out = image[None]
        gradient = torch.ones(())
        masks = []
        for layer in standard.network.body:
            out = layer(out)
            if isinstance(layer, torch.nn.ReLU):
                masks.append((out / (out + 0.01)).detach())
        logits = standard.network.classifier(out.mean((2, 3)))[0]
        linear = image[None]
        for layer in (
            standard.network.body
        ):  # the same network with each ReLU as a fixed factor is linear in the image
            linear = linear * masks.pop(0) if isinstance(layer, torch.nn.ReLU) else layer(linear)
        score = standard.network.classifier(linear.mean((2, 3)))[0, logits.argmax()]
        (gradient,) = torch.autograd.grad(score, x, retain_graph=True)
        totals.append((gradient * x).abs().sum().item())
    expected = bounds(torch.tensor(totals, dtype=torch.float64))
    assert algorithm.report()["foreground_bounds"] == pytest.approx(
        [b.item() for b in expected], rel=1e-9
    )
    other = build("isnet", upstream={}).double()
    resumed = through_checkpoint(algorithm, other, 0)
    resumed.fit(TinyRun(resumed, 0, 0))  # without an upstream: it must not measure again
    assert same_weights(resumed, algorithm)


def test_isnet_shares_out_its_loss() -> None:
    batch = make_batch()
    terms = {}
    for share in (0.25, 1.0, 0.0):
        torch.manual_seed(3)
        terms[share] = {
            k: v.item() for k, v in built("isnet", heatmap_share=share).loss(batch).items()
        }
    for name, full in (("classification", 0.0), ("background", 1.0), ("foreground", 1.0)):
        quarter = 0.75 if name == "classification" else 0.25
        assert terms[0.25][name] == pytest.approx(quarter * terms[full][name], rel=1e-5)


# all


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["ones", "zeros", "one image"])
def test_degenerate_masks_and_a_single_image_stay_finite(name: str, kind: str) -> None:
    algorithm, batch = built(name), make_batch(rows=12)
    if kind == "one image":
        batch = batch.rows(torch.tensor([4]))
    else:
        batch = with_mask(batch, kind == "ones")
    terms = algorithm.step(batch)
    assert all(value.isfinite() for value in terms.values())
    assert all(p.isfinite().all() for p in algorithm.parameters())
    if kind == "ones" and "background" in terms:
        assert terms["background"] == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_step_tracks_the_statistics_of_one_pass_and_leaves_no_hook(name: str) -> None:
    algorithm, plain, batch = built(name), build("erm"), make_batch()
    algorithm.loss(batch)
    plain.loss(batch)
    for (key, one), (_, other) in zip(
        algorithm.network.named_buffers(), plain.network.named_buffers(), strict=True
    ):
        assert torch.allclose(one.double(), other.double()), key
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in algorithm.modules())
    assert algorithm.network.training


@pytest.mark.parametrize("name", METHODS)
def test_the_objective_is_the_loss_and_training_lowers_it(name: str) -> None:
    algorithm, batch = built(name, lr=3e-3, optimizer="adam"), make_batch()
    algorithm.eval()
    torch.manual_seed(0)
    before = algorithm.objective(batch).item()
    torch.manual_seed(0)
    assert before == pytest.approx(sum(algorithm.loss(batch).values()).item(), rel=1e-5)
    algorithm.train()
    first = sum(train(algorithm, 0, 1)[0].values())
    for step in range(25):
        algorithm.current_step = step
        torch.manual_seed(0)
        terms = algorithm.step(make_batch(seed=0))
    assert sum(terms.values()).item() < first
