"""GALS with a tiny random CLIP: its loss and its attention by hand, and its refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import algorithms.gals
from algorithms import _clip
from algorithms._attention_file import AttentionFile, write_attention
from algorithms._clip import attention_to_texts, mean_of_nonzero, scores_of
from algorithms.gals import GALS, normalised_attention, prompts_of, unguided_gradient
from benchmark.core.batch import Batch
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from benchmark.explain.gae import AttentionRecorder
from tests.support.every_algorithm import spec_of
from tests.support.runs import done
from tests.support.tiny import build, make_batch, make_setting, train
from tests.support.tiny_clip import SIDE, TinyCLIP, tiny_scores, tokenize, use_tiny_clip

PROMPTS = "a photo of a bird|an image of a bird"


def gals(**changed: Any) -> Any:
    """GALS on images that are normalised with known statistics."""
    statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    return build("gals", prompts=PROMPTS, **statistics, **changed)


def still(**changed: Any) -> tuple[Any, Batch]:
    """GALS in float64 and evaluation mode with random attention, and a batch of six images."""
    algorithm = gals(**changed).double().eval()
    torch.manual_seed(1)
    algorithm.attention = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    batch = make_batch(6)
    return algorithm, replace(batch, image=batch.image.double())


# the loss


def test_unguided_gradient_by_loops() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    attention = torch.rand(3, 1, 4, 5, dtype=torch.float64)
    guided = torch.tensor([True, False, True])
    by_hand = [
        abs(gradient[b, c, i, j].item()) * (1 - attention[b, 0, i, j].item())
        for b in (0, 2)
        for c in range(2)
        for i in range(4)
        for j in range(5)
    ]
    found = unguided_gradient(gradient, attention, guided)
    assert found.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-12)
    assert unguided_gradient(gradient, torch.ones_like(attention), guided) == 0
    assert unguided_gradient(gradient, attention, torch.zeros(3, dtype=torch.bool)) == 0


def test_the_loss_is_the_authors_for_the_gradient_of_a_batch_mean() -> None:
    """CE + λ · mean |g − g ⊙ A| with g = ∂(mean CE)/∂x, and λ/B for the gradient of one image."""
    weight = 1e4 / 6
    algorithm, batch = still(gradient_weight=weight)
    terms = algorithm.loss(batch)
    image = batch.image.clone().requires_grad_()
    loss = F.cross_entropy(algorithm.network(image), batch.label)
    (gradient,) = torch.autograd.grad(loss, image)
    large = F.interpolate(algorithm.attention, (SIDE, SIDE), mode="bilinear", align_corners=False)
    low, high = large.amin((1, 2, 3), keepdim=True), large.amax((1, 2, 3), keepdim=True)
    attention = (large - low) / (high - low)
    expected = 1e4 * (gradient - gradient * attention).abs().mean()
    assert terms["classification"].item() == pytest.approx(loss.item(), rel=1e-12)
    assert terms["attention"].item() == pytest.approx(expected.item(), rel=1e-9)
    authors = gals(gradient_weight=weight, normalisation="authors").double().eval()
    authors.load_state_dict(algorithm.state_dict())
    authors.attention = algorithm.attention
    attention = (large - low) / high
    expected = 1e4 * (gradient - gradient * attention).abs().mean()
    assert authors.loss(batch)["attention"].item() == pytest.approx(expected.item(), rel=1e-9)


def test_gradient_to_the_weights_by_finite_differences() -> None:
    algorithm, batch = still()
    weights = list(algorithm.network.parameters())
    gradients = torch.autograd.grad(algorithm.loss(batch)["attention"], weights, allow_unused=True)
    torch.manual_seed(1)
    direction = [p.std() * torch.randn_like(p) for p in weights]
    slope = sum(
        (g * d).sum().item() for g, d in zip(gradients, direction, strict=True) if g is not None
    )
    values = []
    for shift in (1e-6, -2e-6):
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p += shift * d
        values.append(algorithm.loss(batch)["attention"].item())
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_rows_of_the_attention_follow_the_images() -> None:
    algorithm, batch = still()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = algorithm.loss(batch)["attention"].item()
    found = algorithm.loss(batch.rows(order))["attention"].item()
    assert found == pytest.approx(expected, rel=1e-9)
    wrong = replace(batch, index=batch.index[order])
    assert algorithm.loss(wrong)["attention"].item() != pytest.approx(expected, rel=1e-3)


def test_images_without_a_map_are_left_out() -> None:
    algorithm, batch = still()
    algorithm.attention[2] = 0
    algorithm.attention[4] = 0.7  # the same everywhere
    kept = batch.rows(torch.tensor([0, 1, 3, 5]))
    expected = algorithm.loss(kept)["attention"].item()
    assert algorithm.loss(batch)["attention"].item() == pytest.approx(expected, rel=1e-9)
    assert algorithm.report() == {"guided_images": 4, "unguided_images": 2}
    algorithm.attention.zero_()
    terms = algorithm.loss(batch)
    assert terms["attention"] == 0
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in algorithm.network.parameters())


@pytest.mark.parametrize(("authors", "top"), [(False, 1.0), (True, 0.75)])
def test_normalisation(authors: bool, top: float) -> None:
    maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 1, 2, 2)
    found, guided = normalised_attention(maps, (2, 2), authors)
    expected = (maps - 1) / (4 if authors else 3)
    torch.testing.assert_close(found, expected)
    assert found.max() == top and found.min() == 0 and guided.tolist() == [True]
    found, guided = normalised_attention(torch.full((2, 1, 2, 2), 0.1), (5, 5), authors)
    assert not found.any() and guided.tolist() == [False, False]


# the attention


def test_attention_is_grad_cam_of_the_products_of_embeddings() -> None:
    scores = tiny_scores().double()
    image = torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64)
    seen = (image - scores.mean) / scores.std
    visual: Any = scores.visual
    activation = visual.layer4(visual.stem(seen).relu()).detach().requires_grad_()
    maps = []
    for text in scores.text:
        product = (visual.attnpool(activation.flatten(1)) * text).sum()
        (gradient,) = torch.autograd.grad(product, activation)
        weight = gradient.mean((2, 3), keepdim=True)
        maps.append((weight * activation).sum(1, keepdim=True).relu().detach())
    expected = mean_of_nonzero(torch.stack(maps))
    found = attention_to_texts(scores, image)
    assert found.any()
    torch.testing.assert_close(found, expected)
    assert attention_to_texts(tiny_scores(("one",)).double(), image).shape == (3, 1, 4, 4)
    assert attention_to_texts(scores, image[:, :1]).shape == (3, 1, 4, 4), "a grey image"


def test_texts_are_embedded_with_norm_1_and_the_model_is_frozen() -> None:
    scores = tiny_scores()
    torch.testing.assert_close(scores.text.norm(dim=1), torch.ones(2))
    assert not scores.training and not any(p.requires_grad for p in scores.parameters())
    assert scores(torch.rand(2, 3, 40, 40)).shape == (2, 2)


def test_maps_of_zeros_do_not_count_in_the_mean() -> None:
    one = torch.tensor([[2.0, 4.0], [0.0, 0.0]])[:, None, None]
    other = torch.tensor([[0.0, 0.0], [0.0, 0.0]])[:, None, None]
    third = torch.tensor([[4.0, 0.0], [0.0, 0.0]])[:, None, None]
    found = mean_of_nonzero(torch.stack([one, other, third]))
    assert found[:, 0, 0].tolist() == [[3.0, 2.0], [0.0, 0.0]]


def test_attention_is_made_once_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = use_tiny_clip(monkeypatch)
    algorithm = gals()
    before = [p.clone() for p in algorithm.parameters()]
    logged = train(algorithm, 0, 3)
    assert asked == [("RN50", "openai", True)]
    assert len(logged) == 3 and all(terms["attention"] > 0 for terms in logged)
    assert not any(torch.equal(p, q) for p, q in zip(algorithm.parameters(), before, strict=True))
    assert {name.partition(".")[0] for name in algorithm.state_dict()} == {"network"}
    pixels = make_batch(seed=-1).image * torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    pixels = (pixels + torch.tensor([0.5, 0.4, 0.3])[:, None, None]).clamp(0, 1)
    expected = attention_to_texts(tiny_scores(tuple(prompts_of(PROMPTS))), pixels)
    torch.testing.assert_close(algorithm.attention, expected)


@pytest.mark.slow  # importing open_clip takes seconds
def test_open_clip_models_with_a_resnet_are_explained() -> None:
    """A small random model of the package itself, if it is installed."""
    model = pytest.importorskip("open_clip.model", reason="open_clip is not installed")
    torch.manual_seed(0)
    clip = model.CLIP(
        embed_dim=8,
        vision_cfg=model.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=64, head_width=8),
        text_cfg=model.CLIPTextCfg(context_length=60, vocab_size=128, width=8, heads=1, layers=1),
    )
    scores = scores_of(clip, tokenize, ("a bird", "a dog"), "small")
    assert scores.capabilities.lrp
    assert attention_to_texts(scores, torch.rand(2, 3, 32, 32)).shape == (2, 1, 2, 2)


@pytest.mark.slow  # importing open_clip takes seconds
def test_open_clip_models_with_a_vision_transformer_are_explained_by_gae() -> None:
    model = pytest.importorskip("open_clip.model", reason="open_clip is not installed")
    torch.manual_seed(0)
    clip = model.CLIP(
        embed_dim=8,
        vision_cfg=model.CLIPVisionCfg(
            layers=3, width=16, image_size=32, head_width=8, patch_size=8
        ),
        text_cfg=model.CLIPTextCfg(context_length=60, vocab_size=128, width=8, heads=1, layers=1),
    )
    scores = scores_of(clip, tokenize, ("a bird", "a dog"), "small").double()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    found = attention_to_texts(scores, image)
    assert found.shape == (2, 1, 4, 4) and found.all()
    # each row is min-max scaled by gals; here the rule itself, by hand
    maps = []
    for text in scores.text:
        recorder = AttentionRecorder()
        with recorder:
            score = (scores.embed(image.clone().requires_grad_()) @ text).sum()
        relevance = torch.eye(17, dtype=torch.float64).expand(2, 17, 17)
        for attention, gradient in zip(
            recorder.maps, torch.autograd.grad(score, recorder.maps), strict=True
        ):
            relevance = relevance + (gradient * attention).relu().mean(1) @ relevance
        maps.append(relevance[:, 0, 1:].unflatten(1, (4, 4))[:, None])
    torch.testing.assert_close(found, mean_of_nonzero(torch.stack(maps)).detach())


# what is refused


def reason(**changed: Any) -> str | None:
    spec = spec_of("gals")
    augmentation = changed.pop("augmentation", {})
    hparams = {**make_setting(GALS).hparams, "prompts": PROMPTS, **changed}
    spec = replace(spec, hparams=hparams, augmentation=augmentation)
    return GALS.refuses(spec, DATASETS.get("tiny")().info())


def test_refusals_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clip, "is_installed", lambda: True)
    assert reason() is None
    assert reason(augmentation={"flip": 0.0}) is None
    assert "prompts" in (reason(prompts=" | ") or "")
    assert "augmentation" in (reason(augmentation={"flip": 0.5}) or "")
    monkeypatch.setattr(_clip, "is_installed", lambda: False)
    assert "shortcutbed[clip]" in (reason() or "")
    with pytest.raises(UserError, match="open_clip_torch"):
        _clip.load_clip("RN50", "openai", ["a bird"])


def test_an_encoder_without_a_convolutional_stage_is_refused() -> None:
    clip = TinyCLIP()
    clip.visual = nn.Linear(2, 2)
    with pytest.raises(UserError, match="RN50"):
        scores_of(clip, tokenize, ("a bird",), "ViT-B-32")


def test_a_run_trains_and_records_how_many_images_were_guided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny_clip(monkeypatch)
    monkeypatch.setattr(algorithms.gals, "IMAGES_PER_PASS", 24)
    record = done(tmp_path, "gals", hparams={"prompts": PROMPTS})
    guided = record.extra["guided_images"]
    assert guided > 0 and guided + record.extra["unguided_images"] == 64


# maps from a file


def uint8_images(rows: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, 3, SIDE, SIDE)).astype(np.uint8)


def test_maps_of_a_file_are_found_by_the_pixels_of_their_images(tmp_path: Path) -> None:
    images, maps = uint8_images(), np.random.default_rng(1).random((12, 4, 5))
    file = tmp_path / "maps.npz"
    write_attention(file, images, maps)
    found = AttentionFile(str(file)).of(images[[7, 2, 7]])
    np.testing.assert_array_equal(found[:, 0], maps[[7, 2, 7]].astype(np.float32))
    other = images.copy()
    other[3, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="no map for 1 of 12 training images, the first is image 3"):
        AttentionFile(str(file)).of(other)


def test_a_run_reads_maps_of_its_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clip, "is_installed", lambda: False)
    data = DATASETS.get("tiny")(None, bias=0.8, size=64).load(0)
    images = data.splits["train"].image
    maps = np.zeros((len(images), 2, 2))
    maps[:40, 0, 0] = 1
    file = tmp_path / "maps.npz"
    write_attention(file, reversed(list(images)), maps[::-1])
    hparams = {"attention_file": str(file)}
    record = done(tmp_path / "sweep", "gals", hparams=hparams, budget={"steps": 2})
    assert record.extra == {"guided_images": 40, "unguided_images": 24}
    assert record.spec.hparams["attention_file"] == str(file)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda images, maps: (images, maps[:-1]), "for 12 images"),
        (lambda images, maps: (images, -maps), "negative"),
        (lambda images, maps: (images, maps * np.nan), "finite"),
        (lambda images, maps: (images.astype(np.float32), maps), "expected uint8"),
    ],
)
def test_maps_that_cannot_be_used_are_not_written(
    tmp_path: Path, change: Any, sentence: str
) -> None:
    images, maps = change(uint8_images(), np.ones((12, 4, 4)))
    with pytest.raises(UserError, match=sentence):
        write_attention(tmp_path / "maps.npz", images, maps)


def test_a_file_that_is_missing_or_damaged(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.npz")
    assert "no attention_file" in (reason(prompts="", attention_file=missing) or "")
    with pytest.raises(UserError, match="no attention_file"):
        AttentionFile(missing)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK torn")
    with pytest.raises(UserError, match="write_attention"):
        AttentionFile(str(damaged))
    np.savez(tmp_path / "other.npz", maps=np.ones(3))
    with pytest.raises(UserError, match="write_attention"):
        AttentionFile(str(tmp_path / "other.npz"))
    assert reason(prompts="", attention_file=str(damaged)) is None, "it is read by the run"
