"""Test scores of counts against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from benchmark.core.counts import (
    accuracy,
    correct_and_total,
    group_accuracy,
    group_counts,
    worst_group,
    worst_group_accuracy,
)
from benchmark.report.statistics.plug_in import overall, per_class
from tests.support.fake_sweep import confusion_counts


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
    assert accuracy(counts) == pytest.approx(sk.accuracy_score(label, predicted), abs=1e-15)
    assert overall(counts)["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(label, predicted), abs=1e-14
    )
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        label, predicted, labels=range(classes)
    )
    scores = per_class(counts)
    assert scores["precision"] == pytest.approx(precision)
    assert scores["recall"] == pytest.approx(recall)
    assert scores["f1"] == pytest.approx(f1)
    specificity = [sk.recall_score(label == k, predicted == k, pos_label=0) for k in range(classes)]
    assert scores["specificity"] == pytest.approx(specificity)
    means = overall(counts)
    assert means["macro_f1"] == pytest.approx(sk.f1_score(label, predicted, average="macro"))
    assert means["macro_precision"] == pytest.approx(
        sk.precision_score(label, predicted, average="macro")
    )
    groups = [
        sk.accuracy_score(label[g], predicted[g])
        for g in (
            (label == y) & (confounder == z) for y in range(classes) for z in range(confounders)
        )
    ]
    assert group_accuracy(counts) == pytest.approx(groups)
    assert worst_group_accuracy(counts) == pytest.approx(min(groups))
    assert worst_group(counts) == int(np.argmin(groups))


def test_sums_do_not_overflow_small_types() -> None:
    counts = np.full((3, 2, 2), 255, np.uint8)
    assert correct_and_total(counts) == (3 * 2 * 255, 3 * 4 * 255)
    assert group_counts(counts)[1].tolist() == [510] * 6


def test_a_class_without_images_is_left_out_and_undefined() -> None:
    counts = np.array([[[8, 2, 0], [1, 9, 0], [0, 0, 0]]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = per_class(counts)
        assert scores["recall"] == [0.8, 0.9, None]
        assert scores["precision"][2] is None
        assert scores["f1"][2] is None
        assert overall(counts)["balanced_accuracy"] == pytest.approx(0.85)
        assert group_accuracy(counts) == pytest.approx([0.8, 0.9, np.nan], nan_ok=True)
        assert worst_group(counts) == 0
        assert worst_group_accuracy(counts) == 0.8


def test_no_images_at_all() -> None:
    counts = np.zeros((2, 2, 2), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(accuracy(counts))
        assert np.isnan(worst_group_accuracy(counts))
        assert worst_group(counts) is None
        assert overall(counts) == {}


def test_the_generator_counts_as_it_says() -> None:
    label, confounder, predicted, counts = images(1, 3, 3)
    assert np.array_equal(confusion_counts(label, confounder, predicted, 3), counts)
