"""Metrics from counts against scikit-learn on the images that the counts stand for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from benchmark.core import counts as from_counts
from benchmark.report.statistics import metrics
from tests.report.fake_sweep import confusion_counts


def images(
    seed: int, classes: int, confounders: int, n: int = 3000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """label, confounder, predicted, counts."""
    rng = np.random.default_rng(seed)
    label, confounder = rng.integers(classes, size=n), rng.integers(confounders, size=n)
    predicted = np.where(rng.random(n) < 0.6, label, rng.integers(classes, size=n))
    counts = np.zeros((confounders, classes, classes), np.int64)
    np.add.at(counts, (confounder, label, predicted), 1)
    return label, confounder, predicted, counts


@pytest.mark.parametrize(("classes", "confounders"), [(2, 2), (3, 5), (10, 10), (2, 1)])
@pytest.mark.parametrize("compact", [False, True])
def test_against_sklearn(classes: int, confounders: int, compact: bool) -> None:
    label, confounder, predicted, counts = images(classes, classes, confounders)
    counts = counts.astype(np.min_scalar_type(counts.max())) if compact else counts
    assert metrics.average_accuracy(counts) == pytest.approx(
        sk.accuracy_score(label, predicted), abs=1e-15
    )
    assert metrics.balanced_accuracy(counts) == pytest.approx(
        sk.balanced_accuracy_score(label, predicted), abs=1e-14
    )
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        label, predicted, labels=range(classes)
    )
    per_class = metrics.per_class(counts)
    assert per_class["precision"] == pytest.approx(precision)
    assert per_class["recall"] == pytest.approx(recall)
    assert per_class["f1"] == pytest.approx(f1)
    specificity = [sk.recall_score(label == k, predicted == k, pos_label=0) for k in range(classes)]
    assert per_class["specificity"] == pytest.approx(specificity)
    overall = metrics.overall(counts)
    assert overall["macro_f1"] == pytest.approx(sk.f1_score(label, predicted, average="macro"))
    assert overall["macro_precision"] == pytest.approx(
        sk.precision_score(label, predicted, average="macro")
    )
    groups = [
        sk.accuracy_score(label[g], predicted[g])
        for g in (
            (label == y) & (confounder == z) for y in range(classes) for z in range(confounders)
        )
    ]
    assert metrics.group_accuracy(counts) == pytest.approx(groups)
    worst = metrics.worst_group(counts)
    assert worst is not None
    assert (worst.accuracy, worst.group) == (pytest.approx(min(groups)), int(np.argmin(groups)))


def test_sums_do_not_overflow_small_types() -> None:
    counts = np.full((3, 2, 2), 255, np.uint8)
    assert from_counts.correct_and_total(counts) == (3 * 2 * 255, 3 * 4 * 255)
    assert from_counts.group_counts(counts)[1].tolist() == [510] * 6


def test_a_class_without_images_is_left_out_and_undefined() -> None:
    counts = np.array([[[8, 2, 0], [1, 9, 0], [0, 0, 0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        per_class = metrics.per_class(counts)
        assert per_class["recall"] == [0.8, 0.9, None]
        assert per_class["precision"][2] is None and per_class["f1"][2] is None
        assert metrics.balanced_accuracy(counts) == pytest.approx(0.85)
        assert metrics.group_accuracy(counts) == [0.8, 0.9, None]
        worst = metrics.worst_group(counts)
    assert worst is not None and (worst.group, worst.groups, worst.empty) == (0, 2, 1)


def test_no_images_at_all() -> None:
    counts = np.zeros((2, 2, 2), np.uint8)
    assert metrics.average_accuracy(counts) is None
    assert metrics.balanced_accuracy(counts) is None
    assert metrics.worst_group(counts) is None
    assert metrics.overall(counts) == {}
    assert (
        metrics.signed_gap({"biased": counts, "deceiving": counts}, ("biased", "deceiving")) is None
    )


def test_gap_keeps_its_sign() -> None:
    good, bad = np.array([[[9, 1], [1, 9]]]), np.array([[[2, 8], [8, 2]]])
    splits = ("biased", "deceiving")
    assert metrics.signed_gap({"biased": good, "deceiving": bad}, splits) == pytest.approx(0.7)
    assert metrics.signed_gap({"biased": bad, "deceiving": good}, splits) == pytest.approx(-0.7)
    assert metrics.signed_gap({"biased": good}, splits) is None


def test_the_generator_counts_as_it_says() -> None:
    label, confounder, predicted, counts = images(1, 3, 3)
    assert np.array_equal(confusion_counts(label, confounder, predicted, 3), counts)
