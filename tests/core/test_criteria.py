"""Counts and criteria against loops over images, with degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import recall_score

from benchmark.core.counts import (
    accuracy,
    class_counts,
    group_counts,
    worst_class_accuracy,
    worst_group_accuracy,
)
from benchmark.core.criteria import CRITERIA, Criterion, Validation, title_of


def test_worst_group_against_a_loop_and_without_empty_groups() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 9, (4, 3, 3))
    counts[1, 2] = 0  # a group without images
    counts[3] = 0  # a confounder without images
    dense = [
        counts[c, k, k] / counts[c, k].sum()
        for c in range(4)
        for k in range(3)
        if counts[c, k].sum()
    ]
    assert worst_group_accuracy(counts) == min(dense)
    assert (
        accuracy(counts) == sum(counts[c, k, k] for c in range(4) for k in range(3)) / counts.sum()
    )


def test_worst_class_is_the_lowest_recall_of_a_class_that_has_images() -> None:
    rng = np.random.default_rng(2)
    label, confounder = rng.integers(4, size=500), rng.integers(3, size=500)
    predicted = np.where(rng.random(500) < 0.7, label, rng.integers(5, size=500))
    counts = np.zeros((3, 5, 5), np.int64)  # no image of the fifth class
    np.add.at(counts, (confounder, label, predicted), 1)
    recalls = recall_score(label, predicted, labels=range(4), average=None)
    assert worst_class_accuracy(counts) == pytest.approx(recalls.min(), abs=1e-15)
    assert class_counts(counts)[1].tolist() == [*np.bincount(label, minlength=4), 0]


def test_worst_class_pools_the_groups_of_a_class() -> None:
    """One group of class 0 is always wrong, and both groups of class 1 are at 0.7."""
    counts = np.array([[[90, 0], [3, 7]], [[0, 10], [3, 7]]])
    assert worst_group_accuracy(counts) == 0.0
    assert worst_class_accuracy(counts) == 0.7


def test_with_several_labels_a_class_is_a_label_that_is_present_or_absent() -> None:
    counts = np.zeros((2, 2, 2, 2), np.int64)  # label, confounder, present, predicted
    counts[0] = [[[8, 2], [1, 9]], [[10, 0], [2, 3]]]
    counts[1] = [[[9, 1], [0, 10]], [[9, 1], [4, 1]]]
    right, total = class_counts(counts)
    assert right.tolist() == [18, 12, 18, 11] and total.tolist() == [20, 15, 20, 15]
    assert worst_class_accuracy(counts) == pytest.approx(11 / 15)
    assert worst_group_accuracy(counts) == pytest.approx(1 / 5)


def test_without_confounders_a_class_is_a_group() -> None:
    counts = np.array([[[5, 5, 0], [1, 8, 1], [0, 0, 10]]])
    assert worst_class_accuracy(counts) == worst_group_accuracy(counts) == 0.5
    assert [part.tolist() for part in class_counts(counts)] == [
        part.tolist() for part in group_counts(counts)
    ]


def test_small_integer_types_do_not_overflow() -> None:
    counts = np.full((2, 2, 2), 200, np.uint8)
    assert class_counts(counts)[1].tolist() == [800, 800]
    assert accuracy(counts) == worst_class_accuracy(counts) == 0.5


def test_without_images_nothing_is_best() -> None:
    empty = np.zeros((2, 3, 3), np.int64)
    assert all(
        math.isnan(value(empty)) for value in (accuracy, worst_class_accuracy, worst_group_accuracy)
    )


def test_every_criterion_on_a_known_case() -> None:
    """Class 0: 9 of 10 and 5 of 10 right; class 1: 6 of 10 and 6 of 10."""
    counts = np.array([[[9, 1], [4, 6]], [[5, 5], [4, 6]]])
    seen = Validation(step=30, counts=counts, objective=0.25)
    assert {name: rule.value(seen) for name, rule in CRITERIA.items()} == pytest.approx(
        {
            "last": 30,
            "val_accuracy": 26 / 40,
            "val_worst_class": 12 / 20,
            "val_worst_group": 5 / 10,
            "val_mean": (26 / 40 + 5 / 10) / 2,
            "val_objective": -0.25,
        }
    )


def test_only_criteria_of_groups_need_groups() -> None:
    needing = [name for name, rule in CRITERIA.items() if rule.needs.val_groups]
    assert needing == ["val_worst_group", "val_mean"]
    assert [name for name, rule in CRITERIA.items() if not rule.is_quality] == ["last"]


def test_a_registered_criterion_comes_after_the_built_in_ones() -> None:
    class Wrong(Criterion):
        name = "a_share_of_wrong_predictions"
        title = "share of wrong predictions"

        def value(self, validation: Validation) -> float:
            return 1 - accuracy(validation.counts)

    registry = CRITERIA.registry
    built_in = list(CRITERIA)
    CRITERIA.register(Wrong)
    try:
        assert list(CRITERIA) == [*built_in, Wrong.name] and len(CRITERIA) == len(built_in) + 1
        seen = Validation(step=1, counts=np.array([[[3, 1], [0, 4]]]))
        assert CRITERIA[Wrong.name].value(seen) == pytest.approx(1 / 8)
        assert title_of(Wrong.name) == str(CRITERIA[Wrong.name]) == Wrong.title
    finally:
        registry.withdraw(Wrong.name, ValueError("only for this test"))
        registry.broken.clear()
    assert list(CRITERIA) == built_in and Wrong.name not in CRITERIA


def test_a_name_from_another_version_is_its_own_title() -> None:
    assert title_of("val_auc") == "val_auc" and title_of("last") == "last step"
