"""RobustViT: its loss against a dense oracle, its start, its images and its gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from algorithms.robust_vit import robust_vit_loss
from benchmark import explain
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.losses.heatmaps import enlarged_to_unit
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweepfile import SweepConfig
from tests.support.tiny import build, make_batch, same_weights

METHODS = ["robust_vit", "erm_fine_tuned", "rrr_fine_tuned", "gradmask_fine_tuned"]


def built(name: str = "robust_vit", **changed: Any) -> Any:
    start = build("erm", seed=7, backbone="vit")
    # a fresh transformer's last layer is zero, and so is its relevance
    torch.nn.init.normal_(start.network.classifier.weight, std=0.3)
    upstream = {"start": start.eval().requires_grad_(False)}
    return build(name, backbone="vit", upstream=upstream, **changed)


def test_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    relevance = torch.rand(2, 1, 3, 4, dtype=torch.float64, generator=generator)
    mask = torch.rand(2, 1, 3, 4, generator=generator) < 0.5
    logits = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    background = foreground = classification = 0.0
    for b in range(2):
        for i in range(3):
            for j in range(4):
                r = relevance[b, 0, i, j].item()
                s = float(mask[b, 0, i, j])
                background += (r * (1 - s)) ** 2 / 24
                foreground += (r * s - s) ** 2 / 24
        probability = (logits[b] / 0.65).exp() / (logits[b] / 0.65).exp().sum()
        classification -= probability.max().log().item() / 2
    terms = robust_vit_loss(relevance, mask, logits, temperature=0.65)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"background": background, "foreground": foreground, "classification": classification},
        rel=1e-12,
    )


@pytest.mark.parametrize("value", [False, True])
def test_masks_without_object_and_without_background(value: bool) -> None:
    mask = torch.full((2, 1, 3, 3), value)
    relevance = torch.full((2, 1, 3, 3), 0.5)
    terms = robust_vit_loss(relevance, mask, torch.zeros(2, 2))
    assert terms["background"].item() == (0.0 if value else 0.25)
    assert terms["foreground"].item() == (0.25 if value else 0.0)


def test_terms_are_those_of_the_definition_with_their_weights() -> None:
    algorithm = built().double()
    batch = make_batch()
    image = batch.image.double()
    assert batch.mask is not None
    heatmap = explain.get("gae")(algorithm.network, image, batch.label)
    large = F.interpolate(heatmap, (16, 16), mode="bilinear", align_corners=False)
    low = large.amin((1, 2, 3), keepdim=True)
    unit = (large - low) / (large.amax((1, 2, 3), keepdim=True) - low)
    logits = algorithm.network(image)
    outside = ~batch.mask
    expected = {
        "background": 0.8 * 2 * (unit * outside).square().mean().item(),
        "foreground": 0.8 * 0.3 * ((1 - unit) * batch.mask).square().mean().item(),
        "classification": 0.2 * F.cross_entropy(logits, logits.argmax(1)).item(),
    }
    terms = algorithm.loss(type(batch)(**{**vars(batch), "image": image}))
    found = {name: term.item() for name, term in terms.items()}
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("no_classification", {"background", "foreground"}),
        ("no_background", {"foreground", "classification"}),
        ("no_foreground", {"background", "classification"}),
        ("only_background", {"background"}),
        ("only_foreground", {"foreground"}),
    ],
)
def test_variants_leave_terms_out(variant: str, names: set[str]) -> None:
    changed = ALGORITHMS.get("robust_vit").variants[variant]
    assert set(built(**changed).loss(make_batch())) == names


def test_class_that_is_explained_and_class_that_is_kept() -> None:
    batch = make_batch()
    predicted = built().predict(batch.image).argmax(1)
    assert not torch.equal(predicted, batch.label)
    terms = {
        (explained, target): built(explained=explained, target=target).loss(batch)
        for explained in ("label", "prediction")
        for target in ("label", "prediction")
    }
    relevance = {key: value["background"].item() for key, value in terms.items()}
    kept = {key: value["classification"].item() for key, value in terms.items()}
    assert relevance["label", "label"] == relevance["label", "prediction"]
    assert relevance["label", "label"] != relevance["prediction", "label"]
    assert kept["label", "label"] == kept["prediction", "label"]
    assert kept["label", "prediction"] < kept["label", "label"]


@pytest.mark.parametrize("name", METHODS)
def test_training_starts_with_the_weights_of_the_upstream_run(name: str) -> None:
    algorithm = built(name)
    start = algorithm.setting.upstream["start"]
    assert all(
        torch.equal(value, start.network.state_dict()[key])
        for key, value in algorithm.network.state_dict().items()
    )
    algorithm.step(make_batch().strip(algorithm.needs))
    assert not torch.equal(algorithm.network.classifier.weight, start.network.classifier.weight)
    assert same_weights(start, built(name).setting.upstream["start"])


@pytest.mark.parametrize("name", ["rrr_fine_tuned", "gradmask_fine_tuned"])
def test_relevance_of_the_baselines_has_a_gradient(name: str) -> None:
    algorithm = built(name)
    algorithm.loss(make_batch())["background"].backward()
    assert any(p.grad is not None and p.grad.any() for p in algorithm.network.parameters())


def test_constant_gradients_leave_the_last_layer_alone() -> None:
    for constant in (False, True):
        algorithm = built(constant_gradients=constant)
        algorithm.loss(make_batch())["background"].backward()
        gradient = algorithm.network.classifier.weight.grad
        assert (gradient is None or not gradient.any()) is constant


@pytest.mark.parametrize("per_class", [1, 3])
def test_few_masks_of_each_class_are_used(per_class: int) -> None:
    label = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    algorithm = built(masks_per_class=per_class)
    rows = algorithm.training_rows(label, trial=0)
    assert rows is not None
    counted = np.bincount(label[rows], minlength=3)
    assert counted.tolist() == [min(per_class, n) for n in (5, 2, 1)]
    assert np.array_equal(rows, np.unique(rows))
    assert algorithm.report() == {"training_masks": len(rows)}
    assert np.array_equal(rows, algorithm.training_rows(label, trial=0))
    chosen = {tuple(algorithm.training_rows(label, trial=trial)) for trial in range(20)}
    assert len(chosen) > 1


def test_all_masks_are_used_on_request() -> None:
    algorithm = built(masks_per_class=0)
    assert algorithm.training_rows(np.zeros(9, dtype=np.int64), trial=0) is None
    assert algorithm.report() == {"training_masks": 9}


def test_backbones_without_attention_are_refused() -> None:
    from tests.support.every_algorithm import spec_of

    kind = ALGORITHMS.get("robust_vit")
    info = DATASETS.get("tiny")().info()
    assert "convnet" in (kind.refuses(spec_of("robust_vit"), info) or "")
    assert kind.refuses(spec_of("robust_vit", backbone="vit"), info) is None


def test_a_constant_map_becomes_zeros_and_others_span_the_unit_interval() -> None:
    maps = torch.cat([torch.full((1, 1, 3, 3), 0.7), torch.rand(1, 1, 3, 3)]).requires_grad_()
    scaled = enlarged_to_unit(maps, (10, 7))
    assert scaled.shape == (2, 1, 10, 7)
    assert not scaled[0].any()
    assert scaled[1].min().item() == 0
    assert scaled[1].max().item() == 1
    gradient = torch.autograd.grad(scaled.square().sum(), maps)[0]
    assert gradient.isfinite().all()
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize("name", ["erm_fine_tuned", "rrr_fine_tuned", "gradmask_fine_tuned"])
def test_baselines_use_the_same_few_images(name: str) -> None:
    label = np.arange(40) % 4
    of_robust_vit = built(masks_per_class=3).training_rows(label, trial=5)
    baseline = built(name, masks_per_class=3)
    rows = baseline.training_rows(label, trial=5)
    assert rows is not None
    assert np.array_equal(rows, of_robust_vit)
    assert baseline.report() == ({"training_masks": 12} if baseline.needs.masks else {})
    assert built(name).training_rows(label, trial=5) is None


def planned(**fixed: Any) -> Plan:
    config = SweepConfig(
        name="fine_tuning",
        datasets=(parse_named_options("digits_on_photos:bias=1.0"),),
        algorithms=("erm", "erm_fine_tuned", "robust_vit"),
        backbone=parse_named_options("vit:patch=8,dim=16,depth=2"),
        fixed=fixed,
        override={"erm": {"dataset": {"bias": 0.5}}},
    )
    return expand(config)


def test_a_start_on_less_biased_data_is_shared_with_the_row_of_that_bias() -> None:
    runs = planned(start_bias=0.5).runs
    asked = {run.spec.algorithm: run.spec for run in runs.values() if run.requested}
    assert len(runs) == 3
    assert asked["erm"].dataset_options["bias"] == 0.5
    for name in ("erm_fine_tuned", "robust_vit"):
        assert asked[name].dataset_options["bias"] == 1.0
        assert asked[name].upstream == {"start": asked["erm"].key}


def test_without_start_bias_the_start_is_trained_on_the_data_of_the_method() -> None:
    runs = planned().runs
    starts = {
        runs[k].spec.dataset_options["bias"]
        for r in runs.values()
        for k in r.spec.upstream.values()
    }
    assert starts == {1.0}
    assert all("start_bias" not in run.spec.hparams for run in runs.values())


def test_start_bias_needs_data_with_a_bias() -> None:
    kind = ALGORITHMS.get("robust_vit")
    spec = next(
        r.spec for r in planned(start_bias=0.5).runs.values() if r.spec.algorithm == "robust_vit"
    )
    info = DATASETS.get("digits_on_photos")(None).info()
    assert kind.refuses(spec, info) is None
    without = replace(spec, dataset="folder")
    assert "start_bias sets the option bias" in str(kind.refuses(without, info))
    between = replace(spec, hparams={**spec.hparams, "start_bias": -0.5})
    assert "neither -1 nor a share" in str(kind.refuses(between, info))
