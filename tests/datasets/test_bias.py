"""Assignment of confounders: shares, evenness, and the extremes."""

from __future__ import annotations

import numpy as np
import pytest

from datasets._sources import bias_assignment


def group_counts(label: np.ndarray, confounder: np.ndarray, num_confounders: int) -> np.ndarray:
    """Return the number of images by class and confounder."""
    table = np.zeros((num_confounders, num_confounders), int)
    np.add.at(table, (label, confounder), 1)
    return table


@pytest.mark.parametrize("num_confounders", [2, 10])
@pytest.mark.parametrize("bias", [0.0, 0.1, 0.5, 0.8, 0.95, 1.0])
def test_shares_are_exact_up_to_rounding_and_the_rest_is_even(
    num_confounders: int, bias: float
) -> None:
    rng = np.random.default_rng(1)
    label = rng.permutation(
        np.repeat(np.arange(num_confounders), rng.integers(100, 200, num_confounders))
    ).astype(np.int64)
    table = group_counts(
        label,
        bias_assignment.assign_confounders(rng, label, num_confounders, bias),
        num_confounders,
    )
    size = table.sum(1)
    assert (np.abs(np.diag(table) - bias * size) <= 0.5).all()
    others = table[~np.eye(num_confounders, dtype=bool)].reshape(
        num_confounders, num_confounders - 1
    )
    assert (others.max(1) - others.min(1) <= 1).all()


def test_the_remainder_favours_no_confounder() -> None:
    """Three conflicting images cannot be even over nine colours, but over many draws they are."""
    label = np.repeat(np.arange(10), 60)
    total = sum(
        group_counts(
            label, bias_assignment.assign_confounders(np.random.default_rng(s), label, 10, 0.95), 10
        )
        for s in range(300)
    )
    others = total[~np.eye(10, dtype=bool)]
    assert others.sum() == 300 * 30
    assert np.abs(others - 100).max() < 50  # 5 standard deviations of a count of 100


def test_which_image_conflicts_is_random() -> None:
    label = np.zeros(50, np.int64)
    conflicting_rows = {
        tuple(
            np.flatnonzero(
                bias_assignment.assign_confounders(np.random.default_rng(s), label, 2, 0.9)
            )
        )
        for s in range(20)
    }
    assert len(conflicting_rows) == 20


def test_neither_environment_is_ever_empty() -> None:
    label = np.repeat(np.arange(10), 4)
    for bias in (0.001, 0.999):
        confounder = bias_assignment.assign_confounders(np.random.default_rng(0), label, 10, bias)
        environment = bias_assignment.bias_environments("train", label, confounder, bias)
        assert environment is not None
        assert all(set(environment[label == c]) == {0, 1} for c in range(10))
    assert bias_assignment.assign_confounders(
        np.random.default_rng(0), np.array([3]), 10, 0.95
    ).tolist() == [3]  # one image: nothing to divide


def test_test_splits_are_aligned_even_and_shifted() -> None:
    label = np.repeat(np.arange(10), 50).astype(np.int64)
    splits = bias_assignment.confounders_of_splits(3, "test", label, 10, 0.95)
    assert list(splits) == ["biased", "unbiased", "deceiving"]
    assert (group_counts(label, splits["biased"], 10) == 50 * np.eye(10)).all()
    assert (group_counts(label, splits["unbiased"], 10) == 5).all()
    assert (
        group_counts(label, splits["deceiving"], 10) == 50 * np.roll(np.eye(10), 1, axis=1)
    ).all()
    again = bias_assignment.confounders_of_splits(3, "test", label, 10, 0.1)
    assert all((splits[name] == again[name]).all() for name in splits)


@pytest.mark.parametrize(
    ("bias", "divided"), [(0.0, False), (0.1, True), (0.95, True), (1.0, False)]
)
def test_environments_exist_only_between_the_extremes(bias: float, divided: bool) -> None:
    assert bias_assignment.provided_annotations(bias).environments is divided
    assert len(bias_assignment.environment_names(bias)) == (2 if divided else 0)
    label = np.repeat(np.arange(2), 10)
    confounder = bias_assignment.assign_confounders(np.random.default_rng(0), label, 2, bias)
    environment = bias_assignment.bias_environments("train", label, confounder, bias)
    if divided:
        assert environment is not None
        assert environment.tolist() == [int(c != k) for c, k in zip(label, confounder, strict=True)]
    else:
        assert environment is None
    assert bias_assignment.bias_environments("biased", label, confounder, bias) is None


def test_streams_depend_on_every_part_of_their_name() -> None:
    first = {
        name: bias_assignment.random_stream(*name).random()
        for name in ((1, "a"), (1, "b"), (2, "a"), (1, "a", "b"))
    }
    assert len(set(first.values())) == 4
    assert bias_assignment.random_stream(1, "a").random() == first[1, "a"]
