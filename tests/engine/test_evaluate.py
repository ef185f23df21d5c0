"""Counts against a dense confusion matrix, and the selection that follows from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.counts import accuracy
from benchmark.core.criteria import CRITERIA
from benchmark.core.dataset import UNKNOWN, GroupedDataset
from benchmark.core.needs import Needs
from benchmark.core.registry import BACKBONES
from benchmark.engine import evaluate as module
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.evaluate import Evaluation, evaluate, images_per_objective, images_per_pass
from benchmark.engine.exceptions import NonFiniteError
from benchmark.engine.selection import Selection, criterion_values
from tests.support.random_data import random_data


class Reader(Algorithm):
    """Its logits are a fixed linear map of the image's corner; the objective is the mean label."""

    name = "reader"
    needs = Needs(val_groups=True)

    def __init__(self) -> None:
        network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(105, 3), torch.nn.Dropout(0.5)
        )
        super().__init__(Setting(3, 2, 2, (3, 5, 7), {}, 1, lambda **_: network))
        self.shown: list[Batch] = []

    def objective(self, batch: Batch) -> torch.Tensor:
        self.shown.append(batch)
        assert torch.is_grad_enabled() and not self.training
        return batch.label.double().mean()


def _made(data: GroupedDataset) -> tuple[Reader, DeviceSplit]:
    torch.manual_seed(0)
    return Reader(), DeviceSplit(data, "train", torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 7, 500])
def test_counts_are_a_confusion_matrix_per_confounder(size: int) -> None:
    data = random_data(60)
    arrays = data.splits["train"]
    reader, split = _made(data)
    reader.train()
    evaluation = evaluate(reader, split, 3, 2, scores=True, objective=True, max_images=size)
    assert (
        evaluation.score is not None
        and evaluation.score.shape == (60, 3)
        and evaluation.score.dtype == np.float32
    )
    predicted = evaluation.score.argmax(1)
    for c in range(2):
        rows = arrays.confounder == c
        dense = confusion_matrix(arrays.label[rows], predicted[rows], labels=[0, 1, 2])
        assert np.array_equal(evaluation.counts[c], dense)
    assert evaluation.counts.dtype == np.int64 and evaluation.counts.sum() == 60
    assert accuracy(evaluation.counts) == accuracy_score(arrays.label, predicted)
    assert evaluation.objective == pytest.approx(arrays.label.mean(), rel=1e-12)
    assert reader.training  # left as it was found
    with torch.no_grad():
        expected = reader.eval().network(split.batch(np.arange(60)).image)
    np.testing.assert_allclose(evaluation.score, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_class_sets_keep_the_best_k(k: int) -> None:
    """The label is among the best k exactly if an accepted class was among the scored best k."""
    rng = np.random.default_rng(k)
    images, classes = 200, 8
    scored = np.array([True] * 6 + [False] * 2)
    label = rng.integers(0, 6, images)
    accepted = rng.random((images, classes)) < 0.25
    accepted[np.arange(images), label] = True
    data = random_data(images)
    arrays = replace(data.splits["train"], label=label, accepted=accepted, scored=scored)
    split = DeviceSplit(replace(data, splits={"train": arrays}), "train", torch.device("cpu"))
    logits = torch.from_numpy(rng.normal(size=(images, classes)))
    batch = split.batch(np.arange(images))
    found = module.apply_class_sets(logits, batch, split)
    of_scored = logits.masked_fill(~torch.from_numpy(scored), -torch.inf)
    best = of_scored.topk(k, dim=1).indices
    expected = torch.from_numpy(accepted).gather(1, best).any(1)
    right = (found.topk(k, dim=1).indices == batch.label[:, None]).any(1)
    assert torch.equal(right, expected) and found.isfinite().all()
    assert 0 < right.sum() < images or k == 5


def test_without_class_sets_logits_are_unchanged() -> None:
    _, split = _made(random_data(9))
    logits = torch.randn(9, 3)
    assert module.apply_class_sets(logits, split.batch(np.arange(9)), split) is logits


def test_predictions_are_counted_by_class_sets() -> None:
    data = random_data(60)
    everything = replace(data.splits["train"], accepted=np.ones((60, 3), bool))
    reader, split = _made(replace(data, splits={"train": everything}))
    evaluation = evaluate(reader, split, 3, 2, scores=True)
    assert accuracy(evaluation.counts) == 1.0
    assert evaluation.score is not None
    assert (evaluation.score.argmax(1) == everything.label).all()


def test_images_that_the_network_enlarges_count_as_large() -> None:
    _, split = _made(random_data())
    kind = BACKBONES.get("resnet18")
    assert images_per_pass(split, kind(2, (3, 28, 28))) == module.MAX_BATCH
    assert (
        images_per_pass(split, kind(2, (3, 28, 28), side=224))
        == module.MAX_PIXELS // 224**2
        < module.MAX_BATCH
    )
    assert images_per_pass(split, kind(2, (3, 28, 28), side=224), 64, 16 * 224**2) == 16


@pytest.mark.parametrize(("pixels", "images"), [(10_000, 20), (35 * 7, 7), (35, 1), (1, 1)])
def test_large_images_pass_in_smaller_batches(pixels: int, images: int) -> None:
    reader, split = _made(random_data())  # 50 images of 5×7 pixels
    assert images_per_pass(split, torch.nn.Identity(), 20, pixels) == images
    evaluate(reader, split, 3, 2, objective=True, max_images=20, max_pixels=pixels)
    assert [len(batch) for batch in reader.shown] == [images] * (50 // images) + (
        [50 % images] if 50 % images else []
    )


@pytest.mark.parametrize(
    ("batch_size", "pixels", "images"), [(8, 35, 8), (1, 35 * 10, 10), (64, 35, 20), (1, 1, 1)]
)
def test_an_objective_takes_no_more_images_than_a_training_batch_or_few_pixels(
    batch_size: int, pixels: int, images: int
) -> None:
    reader, split = _made(random_data())  # 50 images of 5×7 pixels
    reader.hp = {"batch_size": batch_size}
    assert images_per_objective(split, reader, 20, pixels) == images


def test_an_objective_in_parts_is_the_mean_over_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, split = _made(random_data())
    monkeypatch.setattr(module, "images_per_objective", lambda *_: 8)
    evaluation = evaluate(reader, split, 3, 2, objective=True, max_images=20)
    assert [len(batch) for batch in reader.shown] == [8, 8, 4, 8, 8, 4, 8, 2]
    expected = random_data().splits["train"].label.mean()
    assert evaluation.objective == pytest.approx(expected, rel=1e-12)


def test_without_confounders_there_is_one_row() -> None:
    reader, split = _made(random_data(bare=True))
    evaluation = evaluate(reader, split, 3, 2)
    assert (
        evaluation.counts.shape == (1, 3, 3)
        and evaluation.score is None
        and evaluation.objective is None
    )


def test_the_objective_sees_what_is_declared_for_validation() -> None:
    reader, split = _made(random_data())
    evaluate(reader, split, 3, 2, objective=True)
    (batch,) = reader.shown
    assert batch.group is not None and batch.mask is batch.confounder is batch.environment is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_named(value: float) -> None:
    reader, split = _made(random_data())
    reader.current_step = 17
    with torch.no_grad():
        reader.network[1].bias[2] = value  # type: ignore[index]
    reader.train()
    with pytest.raises(NonFiniteError, match=r"logits on split train .*step 17") as found:
        evaluate(reader, split, 3, 2)
    assert (found.value.step, found.value.term) == (17, "logits on split train")
    assert reader.training


def test_an_objective_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, split = _made(random_data())
    monkeypatch.setattr(Reader, "objective", lambda self, batch: torch.tensor(math.nan))
    with pytest.raises(NonFiniteError, match="objective on split train became NaN"):
        evaluate(reader, split, 3, 2, objective=True)


# --- selection ---


def _answers(right: int, worst_right: int = 5, objective: float | None = None) -> Evaluation:
    """Ten images in each of two groups of one class; ``right`` and ``worst_right`` are correct."""
    counts = np.zeros((2, 2, 2), np.int64)
    counts[0, 0] = [right, 10 - right]
    counts[1, 0] = [worst_right, 10 - worst_right]
    return Evaluation(counts, objective=objective)


def _weights(step: int) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor([float(step)])}


def _after(selection: Selection, *evaluation: Evaluation) -> Selection:
    for i, answer in enumerate(evaluation, 1):
        selection.update(10 * i, answer, _weights(10 * i))
    return selection


ALL = tuple(CRITERIA)
MEASURED = tuple(name for name in ALL if not CRITERIA[name].uses_objective)


def test_each_criterion_picks_its_own_step() -> None:
    selection = _after(
        Selection(ALL),
        _answers(10, 4, objective=3.0),  # accuracy 0.7, worst 0.4, mean 0.55
        _answers(9, 5, objective=1.0),  # 0.7, 0.5, 0.6: as accurate as the first, which stays
        _answers(6, 6, objective=2.0),  # 0.6, 0.6, 0.6: a tie of the means, the earlier stays
        _answers(5, 5, objective=1.0),
    )
    assert selection.best == {
        "last": (40, 40.0),
        "val_accuracy": (10, 0.7),
        "val_worst_class": (10, 0.7),  # one class only has images
        "val_worst_group": (30, 0.6),
        "val_mean": (20, 0.6),
        "val_objective": (20, -1.0),
    }
    kept = {step: weights["w"].item() for step, weights in selection.weights.items()}
    assert kept == {10: 10, 20: 20, 30: 30, 40: 40}


def test_weights_are_copies_and_only_those_wanted_are_kept() -> None:
    selection, live = Selection(("val_accuracy",)), {"w": torch.zeros(2)}
    for step, right in ((1, 3), (2, 5), (3, 4), (4, 5)):
        live["w"].fill_(step)
        selection.update(step, _answers(right), live)
    assert selection.best == {"val_accuracy": (2, 0.5)}
    assert list(selection.weights) == [2] and selection.weights[2]["w"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("patience", "min_delta", "stops"),
    [
        (0, 0.0, None),
        (1, 0.0, 3),
        (2, 0.0, 4),
        (3, 0.0, None),
        (2, 0.06, 3),
        (2, 0.2, 3),
        (2, 0.04, 4),
    ],
)
def test_patience_counts_evaluations_without_improvement(
    patience: int, min_delta: float, stops: int | None
) -> None:
    """Accuracies 0.50, 0.55, 0.55, 0.50, 0.60."""
    selection = Selection(("val_accuracy", "last"), patience, min_delta)
    stopped = None
    for i, right in enumerate((5, 6, 6, 5, 7), 1):
        selection.update(i, _answers(right), _weights(i))
        if stopped is None and selection.exhausted:
            stopped = i
    assert stopped == stops


def test_small_improvements_add_up_to_one() -> None:
    selection = _after(
        Selection(("val_accuracy",), 3, 0.08), _answers(2), _answers(3), _answers(4), _answers(5)
    )
    assert (
        selection.waited == 1
    )  # 0.45 is more than 0.08 above the anchor 0.35, 0.5 not yet above 0.45


def test_patience_follows_the_first_criterion() -> None:
    worse_worst = [_answers(5 + i, 5 - i) for i in range(4)]  # equal accuracy, falling worst group
    assert not _after(Selection(("last", "val_worst_group"), 2), *worse_worst).exhausted
    assert _after(Selection(("val_worst_group", "last"), 2), *worse_worst).exhausted


def test_no_step_before_the_switch_is_chosen_while_there_is_a_later_one() -> None:
    """The best step is the first, but the method only begins at step 20."""
    evaluation = [_answers(10, 9), _answers(9, 9), _answers(6, 4), _answers(5, 6)]
    selection = _after(Selection(MEASURED, after=20), *evaluation)
    assert selection.best == {
        "last": (40, 40.0),
        "val_accuracy": (40, 0.55),
        "val_worst_class": (40, 0.55),
        "val_worst_group": (40, 0.5),
        "val_mean": (40, pytest.approx(0.525)),
    }
    assert list(selection.weights) == [40]
    (step, _) = _after(Selection(MEASURED, after=19), *evaluation).best["val_accuracy"]
    assert step == 20
    (step, _) = _after(Selection(MEASURED), *evaluation).best["val_accuracy"]
    assert step == 10


def test_a_run_that_never_reaches_the_switch_keeps_its_best_step() -> None:
    selection = _after(
        Selection(("val_accuracy",), after=500), _answers(5), _answers(8), _answers(6)
    )
    assert selection.best == {"val_accuracy": (20, 0.65)} and list(selection.weights) == [20]


def test_patience_waits_for_the_switch() -> None:
    """Four evaluations without improvement end nothing while the method has not begun."""
    selection = Selection(("val_accuracy",), 2, after=40)
    for i in range(1, 5):
        selection.update(10 * i, _answers(10 - i), _weights(10 * i))
        assert not selection.exhausted and selection.waited == 0
    for i, waited in ((5, 0), (6, 1), (7, 2)):
        selection.update(10 * i, _answers(3), _weights(10 * i))
        assert (selection.waited, selection.exhausted) == (waited, waited == 2)
    assert selection.best["val_accuracy"] == (50, 0.4)


def test_the_state_survives_a_checkpoint(tmp_path: Any) -> None:
    evaluation = [_answers(5), _answers(7, 4), _answers(6, 6), _answers(7, 5)]
    whole = _after(Selection(MEASURED, 2, 0.01), *evaluation)
    first = _after(Selection(MEASURED, 2, 0.01), *evaluation[:2])
    torch.save(first.state(), tmp_path / "state.pt")
    second = Selection(MEASURED, 2, 0.01)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for i in (3, 4):
        second.update(10 * i, evaluation[i - 1], _weights(10 * i))
    assert second.best == whole.best and second.weights == whole.weights
    assert (second.waited, second.anchor, second.exhausted) == (
        whole.waited,
        whole.anchor,
        whole.exhausted,
    )
    assert list(second.best) == list(whole.best)


def test_criteria_are_the_higher_the_better() -> None:
    values = criterion_values(ALL, 30, _answers(8, 4, objective=0.25))
    assert values == pytest.approx(
        {
            "last": 30,
            "val_accuracy": 0.6,
            "val_worst_class": 0.6,
            "val_worst_group": 0.4,
            "val_mean": 0.5,
            "val_objective": -0.25,
        }
    )
    with pytest.raises(ValueError, match="no objective"):
        criterion_values(("val_objective",), 1, _answers(1))


def test_a_split_of_one_image() -> None:
    data = random_data(1)
    reader, split = _made(data)
    assert evaluate(reader, split, 3, 2).counts.sum() == 1


def test_labels_that_are_not_known_are_not_counted() -> None:
    """Counts of each label are those of the images whose label is known."""
    data = random_data(60)
    rng = np.random.default_rng(0)
    label = rng.integers(-1, 2, (60, 3))
    arrays = replace(data.splits["train"], label=label)
    info = replace(data.info, multi_label=True)
    data = replace(data, info=info, splits={"train": arrays})
    reader, split = _made(data)
    evaluation = evaluate(reader, split, 3, 2, scores=True, max_images=7)
    assert evaluation.score is not None
    assert np.array_equal(split.label.isnan().numpy(), label == UNKNOWN)
    for k in range(3):
        for c in range(2):
            rows = (arrays.confounder == c) & (label[:, k] != UNKNOWN)
            dense = confusion_matrix(label[rows, k], evaluation.score[rows, k] > 0, labels=[0, 1])
            assert np.array_equal(evaluation.counts[k, c], dense)
