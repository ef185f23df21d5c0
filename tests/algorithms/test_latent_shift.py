"""Latent shift: known maps of linear networks, bounds of the shift, and a frozen classifier."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.latent_shift import LENGTHS, first_beyond, latent_shift, log_odds
from benchmark import explain
from benchmark.core.errors import UserError
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.models.autoencoder import Autoencoder
from tests.support.every_algorithm import spec_of
from tests.support.runs import failure, lines, plan_runs, run
from tests.support.tiny import TinyRun, build, make_batch

SIZE = (2, 4, 5)
#: Bisection halves the interval between two lengths this often.
PRECISION = 2.0**-6


def built(seed: int = 0, **changed: Any) -> Any:
    start = build("erm", seed=7)
    upstream = {"classifier": start.eval().requires_grad_(False)}
    small = {"autoencoder_width": 2, "latent": 4, **changed}
    return build("latent_shift", seed=seed, upstream=upstream, **small)


class LinearCase:
    """D(z) = A z + b and s(x) = w·x, for three latent vectors float64[3,6]."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.A, self.b, self.w, self.z = draw(40, 6), draw(40), draw(40), draw(3, 6)
        self.z *= 4

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z @ self.A.T + self.b).view(-1, *SIZE)

    def score(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1) @ self.w / 40

    def movement(self) -> torch.Tensor:
        """The change of the image for a shift as long as z, with its sign, float64[3,2,4,5]."""
        gradient = self.A.T @ self.w
        direction = -gradient / gradient.norm() * self.z.norm(dim=1, keepdim=True)
        return (direction @ self.A.T).view(-1, *SIZE)

    def map(self, **bounds: Any) -> torch.Tensor:
        return latent_shift(self.score, self.decode, self.z, **bounds)


@pytest.mark.parametrize("fall", [0.1, 0.5, 0.9])
def test_map_of_a_linear_decoder_ends_where_the_probability_has_fallen(fall: float) -> None:
    case = LinearCase()
    movement = case.movement()
    image = case.decode(case.z)
    found = case.map(fall=fall, largest_change=1e9)
    for i in range(3):
        odds = case.score(image)[i].item()
        wanted = (1 - fall) / (1 + math.exp(-odds))
        slope = case.score(movement)[i].item()
        length = (math.log(wanted / (1 - wanted)) - odds) / slope
        assert 2**-7 < length < 8
        expected = length * movement[i].abs()
        torch.testing.assert_close(found[i], expected, rtol=PRECISION, atol=0)
        # the place of the relevance is exact
        torch.testing.assert_close(found[i] / found[i].sum(), expected / expected.sum())


def test_map_ends_where_the_image_has_changed_enough() -> None:
    found = LinearCase().map(fall=1.0, largest_change=0.75)
    mean = found.flatten(1).mean(1)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.75), rtol=PRECISION, atol=0)


def test_map_is_the_largest_change_over_all_frames() -> None:
    """With D(z) = sin z the change is not largest in the last frame."""
    z = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    found = latent_shift(
        lambda image: image.sum((1, 2, 3)) * 1e-3,
        torch.sin,
        z,
        fall=1.0,
        largest_change=1e9,
        frames=64,
    )
    step = LENGTHS[-1] * z.flatten().norm().item() / math.sqrt(2) / 64
    changes = [abs(math.sin(0.5 - step * (i + 1)) - math.sin(0.5)) for i in range(64)]
    assert max(changes) > changes[-1]
    torch.testing.assert_close(found, torch.full_like(found, max(changes)))


def test_a_score_that_does_not_depend_on_the_image_has_no_map() -> None:
    case = LinearCase()
    found = latent_shift(lambda image: image.sum((1, 2, 3)) * 0, case.decode, case.z)
    assert torch.equal(found, torch.zeros_like(found))


def test_lengths_are_the_first_ones_beyond_the_bound() -> None:
    bound = torch.tensor([0.001, 0.3, 1.0, 7.9, 100.0], dtype=torch.float64)
    found = first_beyond(lambda length: length >= bound, torch.ones_like(bound))
    assert (found >= bound)[:-1].all()
    torch.testing.assert_close(found[1:-1], bound[1:-1], rtol=PRECISION, atol=0)
    assert found[0] <= LENGTHS[0] and found[-1] == LENGTHS[-1]


def test_log_odds_are_those_of_softmax_sigmoid_and_one_logit() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    target = torch.tensor([0, 2, 1, 1])
    for several, probability in ((False, logits.softmax(1)), (True, logits.sigmoid())):
        p = probability.gather(1, target[:, None])[:, 0]
        found = log_odds(logits, target, torch.tensor(several))
        torch.testing.assert_close(found, (p / (1 - p)).log())
    one = log_odds(logits[:, :1], torch.tensor([0, 1, 1, 0]), torch.tensor(False))
    torch.testing.assert_close(one, logits[:, 0] * torch.tensor([-1, 1, 1, -1]))


@pytest.mark.parametrize("size", [(3, 16, 16), (1, 17, 30), (2, 8, 5)])
def test_autoencoder_has_a_small_latent_map_for_any_size(size: tuple[int, int, int]) -> None:
    network = Autoencoder(size, width=2, depth=3, latent=5)
    image = torch.randn(4, *size)
    latent = network.encode(image)
    assert latent.shape == (4, 5, math.ceil(size[1] / 8), math.ceil(size[2] / 8))
    assert network.decode(latent).shape == image.shape
    assert torch.equal(network(image), network.decode(network.encode(image)))


def test_reconstruction_improves_and_the_record_says_so() -> None:
    algorithm = built(autoencoder_width=8, latent=16, lr=1e-2)
    assert algorithm.report() == {}
    before, after = [], []
    for kept, steps in ((before, 1), (after, 40)):
        tiny_run = TinyRun(algorithm, 0, steps)
        algorithm.fit(tiny_run)
        kept.append(algorithm.report()["squared_errors"]["train"])
    assert after[0]["reconstruction"] < 0.9 * before[0]["reconstruction"]
    (batch,) = tiny_run.batches("val")
    error = (algorithm.eval().network.autoencoder(batch.image) - batch.image).square().mean()
    found = algorithm.report()["squared_errors"]["val"]
    assert found["reconstruction"] == pytest.approx(error.item(), rel=1e-5)
    assert found["mean colour"] == pytest.approx(batch.image.square().mean().item(), rel=1e-5)


def test_classifier_does_not_change_and_the_autoencoder_does() -> None:
    algorithm = built()
    classifier = algorithm.setting.upstream["classifier"]
    image = make_batch().image
    state = {key: value.clone() for key, value in algorithm.network.classifier.state_dict().items()}
    before = [p.clone() for p in algorithm.network.autoencoder.parameters()]
    for step in range(2):
        algorithm.train()
        algorithm.step(make_batch(seed=step).strip(algorithm.needs))
    assert all(
        torch.equal(value, state[key])
        for key, value in algorithm.network.classifier.state_dict().items()
    )
    assert torch.equal(algorithm.predict(image), classifier.predict(image))
    assert not any(m.training for m in algorithm.network.classifier.modules())
    moved = zip(before, algorithm.network.autoencoder.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


def test_heatmaps_depend_on_the_class_and_not_on_the_batch() -> None:
    algorithm = built().eval()
    image = make_batch().image
    zeros = torch.zeros(12, dtype=torch.long)
    heatmap = explain.get("native")(algorithm.network, image, zeros)
    assert heatmap.shape == image.shape
    assert heatmap.min() >= 0 and heatmap.flatten(1).amax(1).min() > 0
    other = explain.get("native")(algorithm.network, image, zeros + 1)
    assert not torch.allclose(other, heatmap)
    with torch.inference_mode():
        alone = explain.get("native")(algorithm.network, image[3:4], zeros[3:4])
    torch.testing.assert_close(alone, heatmap[3:4], rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in algorithm.network.parameters())


def test_images_with_several_labels_have_independent_probabilities() -> None:
    algorithm = built()
    batch = make_batch().strip(algorithm.needs)
    algorithm.loss(batch)
    assert not algorithm.network.independent
    several = torch.nn.functional.one_hot(batch.label, 3).float()
    algorithm.loss(type(batch)(image=batch.image, label=several, index=batch.index))
    assert algorithm.network.independent


def test_networks_that_are_no_backbones_are_refused() -> None:
    other = build("erm", seed=7)
    other.network = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"latent_shift.*Linear"):
        build("latent_shift", upstream={"classifier": other})


def test_a_latent_map_of_one_position_needs_two_images_per_step() -> None:
    kind = ALGORITHMS.get("latent_shift")
    info = DATASETS.get("tiny")().info()
    side = max(info.image_size[1:])
    for depth, rows in ((1, 1), (side.bit_length() - 1, 2)):
        spec = spec_of("latent_shift")
        spec.hparams["autoencoder_depth"] = depth
        assert kind.fewest_rows(spec, info) == rows


def test_a_sweep_trains_and_measures_it_for_each_model(tmp_path: Path) -> None:
    folders = plan_runs(
        tmp_path,
        "erm",
        budget={"steps": 4, "evaluate_every": 2},
        compute={"explanations": False},
        explanations={"explainers": ["latent_shift"], "metrics": ["mass"], "images": 4},
    )
    assert len(folders) == 3
    for folder in folders:
        assert run(folder) == "done", failure(folder)
    trained, measured = (read_record(folder) for folder in folders[1:])
    losses = {line["step"]: line["objective"] for line in lines(folders[1]) if "objective" in line}
    assert trained.selected["val_objective"].step == min(losses, key=lambda step: losses[step])
    assert set(trained.extra["squared_errors"]) == {"train", "val"}
    assert measured.measurement is not None
    assert measured.measurement.explainer == "latent_shift"
    assert measured.measurement.splits["unbiased"].undefined["mass"] == 0
