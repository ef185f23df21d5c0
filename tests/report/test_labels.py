"""Scores of images with several labels, against scikit-learn, loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from benchmark.core.counts import (
    accuracy,
    confusion_matrix,
    group_counts,
    num_images,
    worst_group_accuracy,
)
from benchmark.report.statistics.calibration import calibration_error
from benchmark.report.statistics.delong import auc_interval, auc_of_labels
from benchmark.report.statistics.delta_method import sampling_sd
from benchmark.report.statistics.multilabel import MACRO, macro_scores
from benchmark.report.statistics.plug_in import overall, per_class
from benchmark.report.statistics.worst_group import worst_group_interval
from tests.support.messages import mentions


def drawn(n: int, labels: int, seed: int, common: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores; the errors of an image's labels share a term of this scale."""
    rng = np.random.default_rng(seed)
    label = rng.random((n, labels)) < np.linspace(0.3, 0.6, labels)
    noise = common * rng.normal(size=(n, 1)) + rng.normal(size=(n, labels))
    return label, np.where(label, 1.0, -1.0) * (1.0 + noise)


def counted(
    label: np.ndarray, predicted: np.ndarray, confounder: np.ndarray, confounders: int
) -> np.ndarray:
    """Return counts [label, confounder, present, predicted], counted one answer at a time."""
    counts = np.zeros((label.shape[1], confounders, 2, 2), np.int64)
    for i in range(len(label)):
        for k in range(label.shape[1]):
            counts[k, confounder[i], int(label[i, k]), int(predicted[i, k])] += 1
    return counts


def test_scores_against_sklearn() -> None:
    label, score = drawn(200, 3, 0)
    predicted, confounder = score > 0, np.arange(200) % 2
    counts = counted(label, predicted, confounder, 2)
    assert num_images(counts) == 200
    assert accuracy(counts) == pytest.approx((label == predicted).mean())
    scores = per_class(counts)
    for k in range(3):
        mine = label[:, k], predicted[:, k]
        assert scores["recall"][k] == pytest.approx(recall_score(*mine))
        assert scores["specificity"][k] == pytest.approx(recall_score(*mine, pos_label=0))
        assert scores["precision"][k] == pytest.approx(precision_score(*mine))
        assert scores["f1"][k] == pytest.approx(f1_score(*mine))
    each = [balanced_accuracy_score(label[:, k], predicted[:, k]) for k in range(3)]
    assert overall(counts)["balanced_accuracy"] == pytest.approx(np.mean(each))
    assert overall(counts)["macro_f1"] == pytest.approx(f1_score(label, predicted, average="macro"))
    assert overall(counts)["macro_precision"] == pytest.approx(
        precision_score(label, predicted, average="macro")
    )
    assert np.array_equal(confusion_matrix(counts)[1], counts[1, 0] + counts[1, 1])


def test_groups_are_label_answer_and_confounder() -> None:
    label, score = drawn(90, 2, 1)
    predicted, confounder = score > 0, np.arange(90) % 3
    counts = counted(label, predicted, confounder, 3)
    accuracies, right, total = [], *group_counts(counts)
    for k in range(2):
        for there in (False, True):
            for z in range(3):
                rows = (confounder == z) & (label[:, k] == there)
                accuracies.append((predicted[rows, k] == there).mean())
                assert total[len(accuracies) - 1] == rows.sum()
    assert right / total == pytest.approx(accuracies)
    assert worst_group_accuracy(counts) == min(accuracies)
    assert len(total) == 12
    envelope = worst_group_interval(right, total)
    assert envelope.low is not None and envelope.high is not None
    assert envelope.value == min(accuracies)
    assert envelope.low < envelope.value < envelope.high


def test_one_label_is_a_matrix_of_two_classes() -> None:
    label, score = drawn(120, 1, 2)
    found = macro_scores(label, score > 0)
    table = counted(label, score > 0, np.zeros(120, int), 1)[0, 0]
    expected = sampling_sd(table)
    assert found["balanced_accuracy"].sd == pytest.approx(expected["balanced_accuracy"][0])
    for name, of_yes in (
        ("macro_precision", "precision"),
        ("macro_specificity", "specificity"),
        ("macro_f1", "f1"),
    ):
        assert found[name].sd == pytest.approx(expected[of_yes][1])


def test_clusters_of_equal_images_are_one_image() -> None:
    label, score = drawn(80, 3, 3)
    twice = np.repeat(np.arange(80), 2)
    one = macro_scores(label, score > 0)
    both = macro_scores(label[twice], score[twice] > 0, cluster=twice)
    for name in MACRO:
        assert both[name].value == pytest.approx(one[name].value)
        assert both[name].sd == pytest.approx(one[name].sd, rel=0.05)  # up to the two added images


@pytest.mark.parametrize("common", [pytest.param(0.0, marks=pytest.mark.slow), 1.5])
def test_intervals_hold_when_labels_share_their_images(common: float) -> None:
    wide, score = drawn(400_000, 4, 99, common)
    truth = macro_scores(wide, score > 0)
    area = float(auc_of_labels(wide, score)[1].value or 0.0)
    held = dict.fromkeys([*MACRO, "auc"], 0)
    for seed in range(300):
        label, score = drawn(150, 4, seed, common)
        found = macro_scores(label, score > 0)
        for name in MACRO:
            low, high, true = found[name].low, found[name].high, truth[name].value
            assert low is not None and high is not None and true is not None
            held[name] += low <= true <= high
        mean = auc_of_labels(label, score)[1]
        held["auc"] += mean.low <= area <= mean.high  # type: ignore[operator]
    for name, many in held.items():
        assert 275 <= many <= 298, (name, many)  # 95 % of 300 is 285, with a standard error of 3.8


def test_auc_of_labels() -> None:
    label, score = drawn(100, 3, 5)
    per_label, mean = auc_of_labels(label, score)
    for k in range(3):
        assert per_label[k] == auc_interval(label[:, k], score[:, k])
    assert mean.value == pytest.approx(roc_auc_score(label, score))
    same = auc_of_labels(np.repeat(label[:, :1], 2, 1), np.repeat(score[:, :1], 2, 1))[1]
    assert same.sd == pytest.approx(per_label[0].sd)  # the same label twice tells no more than once
    label[:, 1] = True
    per_label, mean = auc_of_labels(label, score)
    assert per_label[1].value is None and "label 1" in mean.note and mean.sd is not None
    assert auc_of_labels(np.ones((5, 2)), score[:5, :2])[1].value is None
    with pytest.raises(ValueError, match="shapes"):
        auc_of_labels(label[:, :2], score)


def test_degenerate_labels_are_named() -> None:
    label, score = drawn(60, 3, 6)
    label[:, 0], predicted = True, score > 0
    found = macro_scores(label, predicted)
    assert mentions(found["macro_f1"].note, "left out", "label 0")
    assert found["macro_f1"].value == pytest.approx(
        f1_score(label[:, 1:], predicted[:, 1:], average="macro")
    )
    predicted[:, 2] = False
    found = macro_scores(label, predicted)
    assert (
        found["macro_precision"].value is None
        and "label 2 is never predicted" in found["macro_precision"].note
    )
    assert found["macro_f1"].value is not None
    nothing = macro_scores(label[:, :1], label[:, :1]).values()
    assert all(e.value is None and "all yes or all no" in e.note for e in nothing)
    perfect = macro_scores(label[:, 1:], label[:, 1:])
    assert perfect["macro_f1"].value == 1.0 and perfect["macro_f1"].sd > 0  # type: ignore[operator]
    empty = np.zeros((2, 1, 2, 2), np.int64)
    assert overall(empty) == {}
    assert np.isnan(accuracy(empty))


def test_calibration_counts_every_answer() -> None:
    label, score = drawn(50, 2, 7)
    probability = 1 / (1 + np.exp(-np.abs(score.ravel())))
    right = ((score > 0) == label).ravel()
    bins = np.ceil(probability * 15).astype(int)
    expected = sum(abs((right - probability)[bins == b].sum()) for b in range(1, 16)) / 100
    assert calibration_error(label.astype(int), score) == pytest.approx(expected)
