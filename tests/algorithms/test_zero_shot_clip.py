"""Zero-shot CLIP with a tiny random CLIP: as a classifier, and as a teacher of all students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from algorithms import _clip
from algorithms.zero_shot_clip import ZeroShotCLIP, descriptions
from benchmark.core.errors import Problems, UserError
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.engine.build import load_upstream
from benchmark.explain import get
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support.every_algorithm import spec_of
from tests.support.runs import failure, plan_runs, run
from tests.support.tiny import CLASSES, build, make_batch, make_setting, train
from tests.support.tiny_clip import SIDE, tiny_scores, use_tiny_clip

PROMPT = "a photo of a {class}"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(autouse=True)
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    return use_tiny_clip(monkeypatch)


def teacher(**changed: Any) -> Any:
    """Zero-shot CLIP after its fit, as the engine hands it over."""
    algorithm = build("zero_shot_clip", prompt=PROMPT, mean=MEAN, std=STD, **changed)
    train(algorithm, 0, 1)
    return algorithm.eval().requires_grad_(False)


def standardised(pixels: torch.Tensor) -> torch.Tensor:
    """The images that a method receives for pixels with values in [0, 1]."""
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


# the classifier


def test_logits_are_ten_times_the_cosines_of_the_embeddings() -> None:
    algorithm = teacher().double()
    image = make_batch(4).image.double()
    scores = tiny_scores(("a photo of a class 0", "a photo of a class 1", "a photo of a class 2"))
    pixels = image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    embedded = scores.double().visual((pixels.clamp(0, 1) - scores.mean) / scores.std)
    expected = 10 * torch.cosine_similarity(embedded[:, None], scores.text[None], dim=2)
    torch.testing.assert_close(algorithm.predict(image), expected)
    assert algorithm.predict(image).shape == (4, CLASSES)
    features = algorithm.network.features(image)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(algorithm.network.classifier(features), expected)


def test_images_of_another_size_and_grey_images() -> None:
    network = teacher().network
    assert network(torch.rand(2, 3, 40, 40)).shape == (2, CLASSES)
    assert network(torch.rand(2, 1, SIDE, SIDE)).shape == (2, CLASSES)


def test_clipped_pixels_have_relevance() -> None:
    """White pixels, which the interpolation may move above 1, still get a gradient."""
    image = torch.full((1, 3, 24, 24), 1.0, requires_grad=True)
    tiny_scores().embed(image)[0, 0].backward()
    assert image.grad is not None and (image.grad != 0).double().mean() > 0.9


def test_relevance_sums_to_the_logit_if_the_encoder_has_no_biases() -> None:
    """Gradient × input with the norm as a constant; with a variable norm the sum would be 0."""
    algorithm = teacher().double()
    network = algorithm.network
    for module in network.scores.visual.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    network.pixel_mean.zero_()
    network.scores.mean.zero_()
    image = torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64)
    target = torch.tensor([0, 2, 1])
    heatmap = get("gradient_x_input")(network, image, target)
    expected = network(image).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(heatmap.sum(dim=(1, 2, 3)), expected)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a {class} dog", ["a grey wolf dog", "a pug dog"]),
        (" a wolf | a pug ", ["a wolf", "a pug"]),
        ("a dog", ["a dog"]),
    ],
)
def test_descriptions(prompt: str, expected: Sequence[str]) -> None:
    assert descriptions(prompt, ("grey_wolf", "pug")) == expected


# the teacher


@pytest.mark.parametrize(
    "method", ["tea", "distill_outputs", "distill_representations", "distill_gradcam"]
)
def test_students_learn_from_it(method: str) -> None:
    start = "transplant" if method == "distill_representations" else "random"
    student = build(
        method, teacher="zero_shot_clip", start=start, upstream={"teacher": teacher()}, lr=0.1
    )
    before = [p.clone() for p in student.parameters() if p.requires_grad]
    logged = train(student, 0, 2)
    assert all(0 < value < np.inf for terms in logged for value in terms.values())
    after = [p for p in student.parameters() if p.requires_grad]
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_the_last_layer_that_is_transplanted_is_the_matrix_of_the_texts() -> None:
    first = teacher()
    student = build(
        "distill_representations",
        teacher="zero_shot_clip",
        start="transplant",
        upstream={"teacher": first},
    )
    torch.testing.assert_close(student.network.classifier.weight, 10 * first.network.scores.text)
    # a student with the teacher's representation has its outputs, and no loss
    batch = make_batch(4)
    embedding = first.network.feature_map(batch.image)
    student.network.feature_map = lambda image: embedding.expand(-1, -1, 4, 4)
    assert student.loss(batch)["representations"].item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(student.predict(batch.image), first.predict(batch.image))


def test_grad_cam_explains_the_last_convolutional_stage() -> None:
    algorithm = teacher()
    image = make_batch(3).image
    assert get("gradcam")(algorithm.network, image, torch.zeros(3, dtype=torch.int64)).shape == (
        3,
        1,
        4,
        4,
    )


# runs


def test_a_run_has_step_0_and_serves_a_student_without_loading_the_weights_again(
    tmp_path: Path, tiny_clip: list[tuple[str, str, bool]]
) -> None:
    folders = plan_runs(
        tmp_path,
        "tea",
        fixed={"batch_size": 16, "teacher": "zero_shot_clip", "start": "random"},
        override={"zero_shot_clip": {"prompt": PROMPT, "clip_weights": "mine.pt"}},
        budget={"steps": 2, "evaluate_every": 1},
    )
    first, student = folders
    assert run(first) == "done", failure(first)
    record = read_record(first)
    assert record.steps == 0 and {s.step for s in record.selected.values()} == {0}
    assert record.spec.algorithm == "zero_shot_clip" and record.images_per_second == 0
    assert ("RN50", "mine.pt", True) in tiny_clip
    tiny_clip.clear()
    again = load_upstream(first, torch.device("cpu"))
    assert tiny_clip == [("RN50", "mine.pt", False)]
    source = DATASETS.get("tiny")(None, **record.spec.dataset_options)
    names = source.info().label_names
    expected = tiny_scores(tuple(descriptions(PROMPT, names))).text
    torch.testing.assert_close(again.network.scores.text, expected)
    torch.testing.assert_close(again.network.classifier.weight, 10 * expected)
    assert run(student) == "done", failure(student)


def test_labels_do_not_change_what_it_predicts() -> None:
    one = teacher()
    other = build("zero_shot_clip", prompt=PROMPT, mean=MEAN, std=STD, seed=3)
    train(other, 5, 6)
    image = make_batch(4).image
    assert torch.equal(one.predict(image), other.eval().predict(image))
    assert other.make_optimizers() == {}


# refusals


def reason(prompt: str, channels: int = 3) -> str:
    spec = spec_of("zero_shot_clip")
    spec = replace(spec, hparams={**make_setting(ZeroShotCLIP).hparams, "prompt": prompt})
    info = DATASETS.get("tiny")().info()
    info = replace(info, image_size=(channels, *info.image_size[1:]))
    return ZeroShotCLIP.refuses(spec, info) or ""


def test_refusals_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(PROMPT) == ""
    assert "{class}" in reason(" ")
    assert "describes 1 classes" in reason("a dog") and "{class}" in reason("a dog")
    assert "2 channels" in reason(PROMPT, channels=2)
    monkeypatch.setattr(_clip, "is_installed", lambda: False)
    assert "shortcutbed[clip]" in reason(PROMPT)


def test_a_student_cannot_start_from_the_weights_of_clip() -> None:
    table = {
        "datasets": ["tiny"],
        "backbone": "convnet:width=2",
        "budget": {"steps": 2},
        "fixed": {"teacher": "zero_shot_clip"},
        "override": {"zero_shot_clip": {"prompt": PROMPT}},
    }
    for method in ("tea", "distill_outputs", "distill_representations", "distill_gradcam"):
        with pytest.raises(Problems, match="CLIP is another network"):
            expand(config_from({**table, "algorithms": [method]}, "test", "test"))


@pytest.mark.slow  # importing open_clip takes seconds
def test_weights_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model of open_clip itself, saved and loaded through ``open_model``."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    monkeypatch.undo()
    config = tmp_path / "tiny-RN.json"
    config.write_text(
        '{"embed_dim": 8, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, '
        '"head_width": 8}, "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, '
        '"heads": 1, "layers": 1}}'
    )
    open_clip.add_model_config(config)
    torch.manual_seed(9)
    made = open_clip.create_model("tiny-RN")
    file = tmp_path / "weights.pt"
    torch.save(made.state_dict(), file)
    setting = {"clip_model": "tiny-RN", "clip_weights": str(file)}
    algorithm = build("zero_shot_clip", prompt=PROMPT, mean=MEAN, std=STD, **setting)
    assert not torch.equal(algorithm.network.scores.visual.conv1.weight, made.visual.conv1.weight)
    train(algorithm, 0, 1)
    texts = open_clip.get_tokenizer("tiny-RN")([f"a photo of a class {i}" for i in range(CLASSES)])
    made.eval()
    with torch.no_grad():
        pixels = torch.rand(2, 3, 64, 64)
        image = standardised(pixels)
        seen = (pixels - torch.tensor(_clip.OPENAI_MEAN)[:, None, None]) / torch.tensor(
            _clip.OPENAI_STD
        )[:, None, None]
        expected = 10 * (
            F.normalize(made.encode_image(seen), dim=1)
            @ F.normalize(made.encode_text(texts), dim=1).T
        )
        found = algorithm.eval().predict(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for explainer in ("lrp", "gradcam", "input_gradient"):
        heatmap = get(explainer)(algorithm.network, image, torch.tensor([0, 1]))
        assert heatmap.isfinite().all() and heatmap.any()
    with pytest.raises(UserError, match=r"none.pt"):
        teacher(clip_model="tiny-RN", clip_weights="none.pt")
