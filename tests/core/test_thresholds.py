"""Youden's threshold against a search over all cuts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.core.thresholds import youden_threshold, youden_thresholds


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 40)
    score = np.round(rng.normal(label), 1)  # with ties
    found = youden_threshold(label, score)
    assert found is not None

    def index(threshold: float) -> float:
        above = score > threshold
        return float(above[label == 1].mean() + (~above)[label == 0].mean() - 1)

    cuts = [*score, score.min() - 1]
    assert index(found) == pytest.approx(max(map(index, cuts)))


def test_separated_scores_are_cut_in_the_middle_of_the_gap() -> None:
    assert youden_threshold(np.array([1, 0, 1, 0]), np.array([3.0, -2.0, 1.0, 0.0])) == 0.5


def test_of_equal_cuts_the_middle_one() -> None:
    label = np.array([0, 1, 0, 1, 0, 1])
    score = np.arange(6.0)
    assert youden_threshold(label, score) == 2.5


@pytest.mark.parametrize(
    ("label", "score"), [([1, 1], [0.0, 1.0]), ([0, 0], [0.0, 1.0]), ([0, 1], [2.0, 2.0]), ([], [])]
)
def test_undefined(label: list[int], score: list[float]) -> None:
    assert youden_threshold(np.array(label), np.array(score)) is None


def test_undefined_thresholds_are_zero() -> None:
    label = np.array([[0, 1], [1, 1]])
    assert youden_thresholds(label, np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [2.0, 0.0]


def test_labels_that_are_not_known_do_not_count() -> None:
    label = np.array([[0], [1], [-1]])
    assert youden_thresholds(label, np.array([[1.0], [3.0], [9.0]])).tolist() == [2.0]
