"""TokenCut on planted clusters and degenerate features."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from benchmark.explain.tokencut import component_of_seed, second_eigenvector, tokencut

GRID = (6, 8)


def planted(mask: np.ndarray, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Features of two orthogonal directions, inside and outside of a mask, with noise."""
    rng = np.random.default_rng(seed)
    directions = np.eye(2, 16)
    features = np.where(mask.reshape(-1, 1), directions[0], directions[1])
    return features + noise * rng.standard_normal(features.shape)


def square(top: int, left: int, size: int = 3) -> np.ndarray:
    mask = np.zeros(GRID, dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (3, 5)])
def test_a_planted_object_is_found(seed: int, place: tuple[int, int]) -> None:
    mask = square(*place)
    found = tokencut(planted(mask, seed=seed), GRID)
    assert found.dtype == bool
    assert np.array_equal(found, mask)


def test_of_two_pieces_the_larger_is_taken() -> None:
    large = square(0, 0, 3)
    small = square(4, 6, 2)
    assert np.array_equal(tokencut(planted(large | small, noise=0.0), GRID), large)


def test_of_two_equal_pieces_the_first_is_taken() -> None:
    first = square(0, 0, 2)
    second = square(4, 6, 2)
    assert np.array_equal(tokencut(planted(first | second, noise=0.0), GRID), first)


def test_pieces_that_touch_at_a_corner_are_two_pieces() -> None:
    first = square(0, 0, 3)
    second = square(3, 3, 2)
    assert np.array_equal(tokencut(planted(first | second, noise=0.0), GRID), first)


def test_the_sign_of_the_eigenvector_does_not_matter() -> None:
    vector = np.random.default_rng(1).standard_normal(GRID)
    assert np.array_equal(component_of_seed(vector), component_of_seed(-vector))
    mask = square(1, 2)
    symmetric = np.where(mask, 1.0, -1.0)
    assert np.array_equal(component_of_seed(symmetric), component_of_seed(-symmetric))


def test_the_eigenvector_solves_the_normalised_cut() -> None:
    features = planted(square(2, 3))
    vector = second_eigenvector(features, 0.2)
    assert vector is not None
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.where(unit @ unit.T > 0.2, 1.0, 1e-5)
    degree = weights.sum(1)
    # the same problem in its symmetric form
    symmetric = np.eye(48) - weights / np.sqrt(np.outer(degree, degree))
    values, _ = scipy.linalg.eigh(symmetric)
    quotient = vector @ (np.diag(degree) - weights) @ vector / (vector**2 @ degree)
    assert quotient == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize(
    "features",
    [np.ones((48, 5)), np.zeros((48, 5)), np.eye(48)],
    ids=["constant", "zero", "all different"],
)
def test_patches_without_a_cut_give_an_empty_mask(features: np.ndarray) -> None:
    assert not tokencut(features, GRID).any()


def test_one_patch_gives_an_empty_mask() -> None:
    assert not tokencut(np.ones((1, 3)), (1, 1)).any()


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[48, D\]"):
        tokencut(np.ones((47, 3)), GRID)
    with pytest.raises(ValueError, match="finite"):
        tokencut(np.full((48, 3), np.nan), GRID)
