"""Methods that predict through masks or attention."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import algorithms.attention_networks
from algorithms.attention_networks import vit_b
from benchmark.core.batch import Batch
from benchmark.core.errors import UserError
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support import every_algorithm
from tests.support.tiny import CLASSES, build, make_batch, through_checkpoint, train

SMALL = {"unet_width": 2, "unet_depth": 2}


def pipeline(**changed: Any) -> Any:
    return build("segment_classify", **{**SMALL, "steps": 10, "segmenter_share": 0.5, **changed})


def with_segmentation(algorithm: Any, mask: torch.Tensor) -> None:
    """Let the U-Net answer with ``mask``."""
    algorithm.network.segmenter.forward = lambda image: torch.where(mask, 1.0, -1.0)


def test_noise_fills_the_background_in_the_range_of_the_data_and_the_object_is_untouched() -> None:
    algorithm, batch = pipeline(), make_batch()
    image, mask = 3 * batch.image, batch.mask
    algorithm.network.widen(image[:6])
    algorithm.network.widen(image[6:])
    with_segmentation(algorithm, mask)
    network, seen = algorithm.explainable(image)
    assert network is algorithm.network.classifier
    wide = mask.expand_as(image)
    assert torch.equal(seen[wide], image[wide])
    for channel in range(3):
        noise, values = seen[:, channel][~mask[:, 0]], image[:, channel]
        low, high = values.min(), values.max()
        assert noise.min() >= low and noise.max() <= high
        quarters = torch.histc(noise, 4, low.item(), high.item()) / len(noise)
        assert (quarters - 0.25).abs().max() < 5 * (0.25 * 0.75 / len(noise)) ** 0.5, "uniform"
    again = algorithm.explainable(image)[1]
    assert not (seen == again)[~wide].any(), "fresh at each pass"
    assert (seen[0] != seen[1])[~wide[0] & ~wide[1]].all(), "and for each image"


@pytest.mark.parametrize("share", [True, False])
def test_masks_of_ones_and_of_zeros(share: bool) -> None:
    algorithm, image = pipeline(), make_batch().image
    algorithm.network.widen(image)
    with_segmentation(algorithm, torch.full((12, 1, 16, 16), share))
    seen = algorithm.explainable(image)[1]
    assert (seen == image).all() if share else not (seen == image).any()
    assert algorithm.loss(make_batch())["segmentation"].isfinite()


def test_first_the_segmenter_learns_then_the_classifier_and_never_both() -> None:
    algorithm = pipeline()
    parts = {"segmenter": algorithm.network.segmenter, "classifier": algorithm.network.classifier}

    def copy() -> dict[str, list[torch.Tensor]]:
        return {
            name: [v.clone() for v in part.state_dict().values()] for name, part in parts.items()
        }

    start = copy()
    logged = train(algorithm, 0, 5)
    middle = copy()
    logged += train(algorithm, 5, 10)
    end = copy()
    changed = lambda a, b, name: not all(map(torch.equal, a[name], b[name]))  # noqa: E731
    assert changed(start, middle, "segmenter") and not changed(start, middle, "classifier")
    assert not changed(middle, end, "segmenter") and changed(middle, end, "classifier")
    assert [set(terms) for terms in logged] == [{"segmentation"}] * 5 + [{"classification"}] * 5


def test_segmentation_loss_by_hand() -> None:
    algorithm, batch = pipeline(), make_batch()
    found = algorithm.loss(batch)["segmentation"]
    p = torch.sigmoid(algorithm.network.segmenter(batch.image).double())
    expected = -torch.where(batch.mask, p.log(), (1 - p).log()).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_classification_is_of_the_noised_image_and_gives_the_segmenter_no_gradient() -> None:
    algorithm, batch = pipeline(), make_batch()
    train(algorithm, 0, 6)
    algorithm.current_step = 6
    torch.manual_seed(5)
    found = algorithm.loss(batch)["classification"]
    found.backward()
    assert all(p.grad is None or not p.grad.any() for p in algorithm.network.segmenter.parameters())
    torch.manual_seed(5)
    algorithm.network.segmenter.eval()
    network, seen = algorithm.explainable(batch.image)
    assert found.item() == pytest.approx(
        F.cross_entropy(network(seen), batch.label).item(), rel=1e-5
    )


def test_answers_repeat_and_do_not_depend_on_the_batch() -> None:
    algorithm = pipeline()
    train(algorithm, 0, 8)
    algorithm.eval()
    image = make_batch(seed=9).image
    with torch.no_grad():
        once = algorithm.predict(image)
        torch.rand(3)
        assert torch.equal(algorithm.predict(image), once)
        torch.testing.assert_close(algorithm.predict(image[3:4]), once[3:4])
    resumed = through_checkpoint(algorithm, pipeline(seed=1), 8).eval()
    with torch.no_grad():
        assert torch.equal(resumed.predict(image), once)


def bright_squares(rows: int = 24, seed: int = 0) -> Batch:
    """Squares that stand out; the class is the square's colour, and the ground says nothing."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(rows, 1, 16, 16, dtype=torch.bool)
    for i, (y, x) in enumerate(torch.randint(0, 10, (rows, 2), generator=generator).tolist()):
        mask[i, :, y : y + 6, x : x + 6] = True
    label = torch.arange(rows) % CLASSES
    colour = F.one_hot(label, 3).float()[:, :, None, None] + 1
    image = torch.where(mask, colour, torch.rand(rows, 3, 16, 16, generator=generator) - 1)
    return Batch(image, label, torch.arange(rows), mask=mask)


def test_it_learns_both_tasks() -> None:
    algorithm = pipeline(steps=120, lr=0.01, unet_width=4)
    for step in range(120):
        algorithm.current_step = step
        algorithm.step(bright_squares(seed=step % 20))
    algorithm.eval()
    batch = bright_squares(seed=99)
    with torch.no_grad():
        found = algorithm.network.foreground(batch.image)
        overlap = (found & batch.mask).sum() / (found | batch.mask).sum()
        right = (algorithm.predict(batch.image).argmax(1) == batch.label).float().mean()
    assert overlap > 0.9
    assert right > 0.75, "a network of width 2; a guess is right in a third"


def test_two_tasks_in_one_network_by_hand() -> None:
    algorithm, batch = build("multitask_unet", segmentation_weight=0.7, **SMALL), make_batch()
    terms = algorithm.loss(batch)
    logits, foreground = algorithm.network.both(batch.image)
    expected = {
        "classification": F.cross_entropy(logits, batch.label),
        "segmentation": 0.7 * F.binary_cross_entropy(foreground.sigmoid(), batch.mask.float()),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in algorithm.parameters())
    for mask in (torch.ones_like(batch.mask), torch.zeros_like(batch.mask)):
        assert algorithm.objective(replace(batch, mask=mask)).isfinite()
    logged = train(algorithm, 0, 3)
    assert set(logged[0]) == {"classification", "segmentation"}


def test_ag_sononet_trains_its_own_network() -> None:
    algorithm = build("ag_sononet", width=2)
    assert type(algorithm.network).__name__ == "AGSononet"
    before = [gate.psi.weight.clone() for gate in algorithm.network.gates]
    logged = train(algorithm, 0, 2)
    assert set(logged[0]) == {"classification"}
    assert all(
        not torch.equal(a, g.psi.weight)
        for a, g in zip(before, algorithm.network.gates, strict=True)
    )


def test_vit_with_small_patches_takes_one_step_on_images_of_28_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 4.0}
    monkeypatch.setattr(algorithms.attention_networks, "VIT_B", small)
    algorithm = build("vit", image_size=(3, 28, 28), patch=4)
    assert algorithm.network.token_grid() == (7, 7)
    before = [p.clone() for p in algorithm.parameters()]
    logged = train(algorithm, 0, 1, side=28)
    assert logged[0]["classification"] == pytest.approx(math.log(CLASSES), rel=0.1)
    assert any(not torch.equal(p, q) for p, q in zip(before, algorithm.parameters(), strict=True))
    with pytest.raises(UserError, match="16 divides"):
        build("vit", image_size=(3, 28, 28))


def test_vit_b_with_another_patch_has_the_other_parameters_of_vit_b_16() -> None:
    with torch.device("meta"):
        networks = [
            BACKBONES.get(name)(10, (3, 32, 32), **options) for name, options in map(vit_b, (16, 8))
        ]
    shapes = [{name: p.shape for name, p in n.named_parameters()} for n in networks]
    assert shapes[0].keys() == shapes[1].keys()
    differ = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert differ == {"net.conv_proj.weight", "net.encoder.pos_embedding"}


def test_what_vit_refuses_and_the_key_without_a_patch() -> None:
    kind = ALGORITHMS.get("vit")
    spec = every_algorithm.spec_of("vit")
    info = replace(DATASETS.get("tiny")().info(), image_size=(3, 28, 28))
    assert "set patch" in (kind.refuses(spec, info) or "")
    small = replace(spec, hparams={**spec.hparams, "patch": 4})
    assert kind.refuses(small, info) is None
    weights = {**small.hparams, "weights": "IMAGENET1K_V1"}
    assert "published weights" in (kind.refuses(replace(small, hparams=weights), info) or "")
    table = {"datasets": ["tiny:side=32"], "algorithms": ["vit"], "backbone": "convnet"}
    for fixed, found in (({}, None), ({"patch": 16}, None), ({"patch": 8}, 8)):
        plan = expand(config_from({**table, "budget": {"steps": 2}, "fixed": fixed}, "t", "t"))
        (planned,) = plan.runs.values()
        assert planned.spec.hparams.get("patch") == found


def test_vit_is_vit_b_16() -> None:
    algorithm = build("vit", image_size=(3, 32, 32))
    assert algorithm.network.name == "vit_b_16"
    with torch.no_grad():
        assert algorithm.predict(torch.randn(2, 3, 32, 32)).shape == (2, CLASSES)
