"""NEM and NEMt: losses against loops, smoothing, the frozen classifier, and constant masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.nem import (
    CONSTANTS,
    change_loss,
    contrastive_loss,
    keep_loss,
    printed_loss,
)
from benchmark import explain
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS
from benchmark.models.mask_decoder import MaskDecoder, kernel_side, maps_by_size, smooth
from tests.support.runs import lines, plan_runs, run
from tests.support.tiny import TinyRun, build, make_batch, same_weights, through_checkpoint

FORMS = ["change", "batch", "printed", "keep", "nem"]


def built(seed: int = 0, **changed: Any) -> Any:
    start = build("erm", seed=7, side=changed.get("side", 16))
    upstream = {"classifier": start.eval().requires_grad_(False)}
    return build("nemt", seed=seed, upstream=upstream, decoder_width=2, **changed)


def images_and_masks() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three images float64[3,2,4,4], masks, labels, and the weight of a linear classifier."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=generator)
    mask = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(32, 5, dtype=torch.float64, generator=generator)
    return image, mask, torch.tensor([4, 0, 2]), weight


def test_losses_with_a_target_against_loops() -> None:
    image, mask, label, weight = images_and_masks()

    def probability(x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ weight).softmax(1).gather(1, label[:, None])[:, 0]

    whole, kept, changes = [], [], []
    for i in range(3):
        z = [(image[i].flatten() @ weight), ((image[i] * mask[i]).flatten() @ weight)]
        p, q = ((x.exp() / x.exp().sum())[label[i]].item() for x in z)
        whole.append(p)
        kept.append(q)
        changes.append((q - p) ** 2)
    mean = mask.mean().item()
    change = np.mean(changes)
    expected = {
        "change": {"size": 1 - mean, "change": 2 * (1 - change)},
        "printed": {"size": 0.5 * mean, "change": -change},
        "keep": {"size": mean, "kept": 2 * (1 - np.mean(kept))},
    }
    found = {
        "change": change_loss(probability, image, mask),
        "printed": printed_loss(probability, image, mask),
        "keep": keep_loss(probability, image, mask),
    }
    for name, terms in expected.items():
        assert {k: v.item() for k, v in found[name].items()} == pytest.approx(terms, rel=1e-12)


def test_the_published_code_compares_every_image_with_every_label() -> None:
    image, mask, label, weight = images_and_masks()

    def score(x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ weight).softmax(1)[:, label]

    changes = []
    for i in range(3):
        for j in range(3):
            p = (image[i].flatten() @ weight).softmax(0)[label[j]]
            q = ((image[i] * mask[i]).flatten() @ weight).softmax(0)[label[j]]
            changes.append((q - p).item() ** 2)
    terms = change_loss(score, image, mask)
    assert terms["change"].item() == pytest.approx(2 * (1 - np.mean(changes)), rel=1e-12)


def test_contrastive_loss_against_loops() -> None:
    image, mask, _, weight = images_and_masks()

    def distance(one: torch.Tensor, other: torch.Tensor) -> float:
        return (1 - (one @ other / (one.norm() * other.norm())).item()) / 2

    near, apart = [], []
    for i in range(3):
        whole, kept, removed = (
            x.flatten() @ weight for x in (image[i], image[i] * mask[i], image[i] * (1 - mask[i]))
        )
        near.append(distance(whole, kept))
        apart.append(distance(kept, removed))
    terms = contrastive_loss(lambda x: x.flatten(1) @ weight, image, mask)
    expected = {
        "similarity": np.mean(near),
        "size": mask.mean().item() / 8,
        "contrast": (np.mean(near) - np.mean(apart)) / 4,
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_smoothing_is_a_mean_over_a_window_that_wraps(side: int) -> None:
    mask = torch.rand(2, 1, 5, 6, dtype=torch.float64)
    smoothed = smooth(mask, side, random=False)
    front = (side - 1) // 2
    for i in range(5):
        for j in range(6):
            rows = [(i - front + a) % 5 for a in range(side)]
            columns = [(j - front + b) % 6 for b in range(side)]
            expected = mask[:, 0][:, rows][:, :, columns].mean((1, 2))
            torch.testing.assert_close(smoothed[:, 0, i, j], expected)


def test_random_smoothing_has_one_kernel_of_sum_one_for_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 1, 8, 8).expand(3, -1, -1, -1)
    one = smooth(mask, 3, random=True, generator=generator)
    other = smooth(mask, 3, random=True, generator=generator)
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one, other)
    torch.testing.assert_close(one.sum(), mask.sum())
    ones = smooth(torch.ones(1, 1, 8, 8), 3, random=True)
    torch.testing.assert_close(ones, torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize(("side", "expected"), [(4, 1), (28, 3), (32, 3), (64, 6), (224, 21)])
def test_side_of_the_kernel(side: int, expected: int) -> None:
    assert kernel_side(side) == expected


def test_smoothing_of_the_ablations() -> None:
    variants = ALGORITHMS.get("nemt").variants
    assert built(side=64, **variants["no_filter"]).network.kernel == 1
    assert kernel_side(64, 0) == 1
    assert kernel_side(224, 14) == 14
    assert variants["lambda_0.33"]["trade_off"] == pytest.approx(3)


def test_maps_and_parameters_are_the_papers_for_resnet50() -> None:
    with torch.device("meta"):
        network = BACKBONES.get("resnet50")(2, (3, 224, 224)).eval()
        maps = maps_by_size(network, torch.zeros(1, 3, 224, 224))
        decoder = MaskDecoder([m.shape[1] for m in maps])
    sizes = [(m.shape[1], m.shape[2]) for m in maps]
    assert sizes == [(2048, 7), (1024, 14), (512, 28), (256, 56), (64, 112), (3, 224)]
    assert sum(p.numel() for p in decoder.parameters()) == 9_013_377  # "9 million"


@pytest.mark.parametrize(
    ("name", "size"),
    [("convnet", (3, 32, 32)), ("densenet121", (3, 64, 64)), ("alexnet", (3, 63, 63))],
)
def test_maps_end_with_the_image_and_grow(name: str, size: tuple[int, int, int]) -> None:
    network = BACKBONES.get(name)(3, size).eval()
    image = torch.randn(2, *size)
    hooks = sum(len(m._forward_hooks) for m in network.modules())
    with torch.no_grad():
        maps = maps_by_size(network, image)
        mask = MaskDecoder([m.shape[1] for m in maps], width=2)(maps)
    assert maps[-1] is image
    areas = [m.shape[2] * m.shape[3] for m in maps]
    assert areas == sorted(set(areas))
    torch.testing.assert_close(maps[0], network.feature_map(image))
    assert mask.shape == (2, 1, *size[1:])
    assert sum(len(m._forward_hooks) for m in network.modules()) == hooks


@pytest.mark.parametrize("form", FORMS)
def test_predictions_are_the_classifiers_before_and_after_training(form: str) -> None:
    algorithm = built(form=form)
    classifier = algorithm.setting.upstream["classifier"]
    image = make_batch().image
    state = {key: value.clone() for key, value in algorithm.network.classifier.state_dict().items()}
    before = [p.clone() for p in algorithm.network.decoder.parameters()]
    for step in range(2):
        algorithm.train()
        algorithm.step(make_batch(seed=step).strip(algorithm.needs))
    assert all(
        torch.equal(value, state[key])
        for key, value in algorithm.network.classifier.state_dict().items()
    )
    assert torch.equal(algorithm.predict(image), classifier.predict(image))
    assert not any(m.training for m in algorithm.network.classifier.modules())
    moved = zip(before, algorithm.network.decoder.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


@pytest.mark.parametrize("form", FORMS)
def test_explanation_is_what_the_loss_rewards(form: str) -> None:
    algorithm = built(form=form).eval()
    image = make_batch().image
    heatmap = explain.get("native")(algorithm.network, image, torch.zeros(12, dtype=torch.long))
    mask = algorithm.network.mask(image).detach()
    assert heatmap.shape == (12, 1, 16, 16)
    torch.testing.assert_close(heatmap, 1 - mask if form in FORMS[:3] else mask)
    again = explain.get("native")(algorithm.network, image, torch.ones(12, dtype=torch.long))
    assert torch.equal(again, heatmap)


def test_loss_uses_the_class_that_is_asked_for() -> None:
    batch = make_batch()
    algorithm = built().eval()
    predicted = algorithm.predict(batch.image).argmax(1)
    assert not torch.equal(predicted, batch.label)
    mask = torch.rand(12, 1, 16, 16)
    for target, label in (("label", batch.label), ("prediction", predicted)):
        other = built(target=target).eval()
        masked = other.predict(batch.image * mask).softmax(1).gather(1, label[:, None])
        whole = other.predict(batch.image).softmax(1).gather(1, label[:, None])
        change = (masked - whole).square().mean()
        terms = other.mask_loss(batch, mask)
        torch.testing.assert_close(terms["change"], 2 * (1 - change))


def test_record_compares_the_masks_with_constant_ones() -> None:
    algorithm = built()
    assert algorithm.report() == {}
    run = TinyRun(algorithm, 0, 2)
    algorithm.fit(run)
    found = algorithm.report()
    assert found["mask_losses"].keys() == {"train", "val"}
    (batch,) = run.batches("val")
    algorithm.eval()
    expected = {}
    for value in CONSTANTS:
        score = algorithm.predict(batch.image * value).softmax(1).gather(1, batch.label[:, None])
        whole = algorithm.predict(batch.image).softmax(1).gather(1, batch.label[:, None])
        expected[f"constant {value:g}"] = (
            1 - value + 2 * (1 - (score - whole).square().mean().item())
        )
    losses = dict(found["mask_losses"]["val"])
    trained = losses.pop("trained")
    assert losses == pytest.approx(expected, rel=1e-5)
    assert found["better_than_constant"] is (trained < min(losses.values()))


def test_transformers_and_networks_that_are_no_backbones_are_refused() -> None:
    from benchmark.core.errors import UserError
    from tests.support.every_algorithm import spec_of

    kind = ALGORITHMS.get("nemt")
    info = DATASETS.get("tiny")().info()
    assert kind.refuses(spec_of("nemt"), info) is None
    assert "one size" in (kind.refuses(spec_of("nemt", backbone="vit"), info) or "")
    other = build("erm", seed=7)
    other.network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="Linear"):
        build("nemt", upstream={"classifier": other})


def test_prodigy_resumes_with_its_state() -> None:
    changed = ALGORITHMS.get("nemt").variants["prodigy"]

    def steps(algorithm: Any, start: int, stop: int) -> Any:
        for step in range(start, stop):
            torch.manual_seed(step)
            algorithm.current_step = step
            algorithm.step(make_batch(seed=step))
        return algorithm

    whole = steps(built(**changed), 0, 6)
    half = steps(built(**changed), 0, 3)
    resumed = steps(through_checkpoint(half, built(seed=5, **changed), 3), 3, 6)
    assert same_weights(whole, resumed)
    assert whole.optimizers["main"].param_groups[0]["d"] > 1e-6  # it has found a rate


def test_classifier_of_the_run_that_comes_first() -> None:
    from tests.support.every_algorithm import spec_of

    spec = spec_of("nemt")
    upstream = ALGORITHMS.get("nemt").upstream(spec)["classifier"]
    assert (upstream.algorithm, upstream.variant, upstream.same_draw) == ("erm", "", True)


def test_the_step_whose_masks_have_the_lowest_loss_is_selected(tmp_path: Path) -> None:
    folders = plan_runs(
        tmp_path,
        "nemt",
        budget={"steps": 6, "evaluate_every": 2},
        selection=["val_accuracy"],
        compute={"explanations": False},
    )
    for folder in folders:
        assert run(folder) == "done"
    losses = {line["step"]: line["objective"] for line in lines(folders[-1]) if "objective" in line}
    selected = read_record(folders[-1]).selected
    assert set(selected) == {"val_objective", "last"} and len(losses) == 3
    assert selected["val_objective"].step == min(losses, key=lambda step: losses[step])
