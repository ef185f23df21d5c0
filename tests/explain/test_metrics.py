"""Explanation metrics against loops over pixels, and the images for which they are undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.explain import metrics

PIXELS = 6 * 7


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    """Six random maps with masks of different sizes."""
    rng = np.random.default_rng(0)
    relevance = rng.gamma(0.5, size=(6, 6, 7))
    mask = rng.random((6, 6, 7)) < np.linspace(0.1, 0.9, 6)[:, None, None]
    return relevance, mask


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_mass_is_the_share_of_the_sum(maps: tuple[np.ndarray, np.ndarray]) -> None:
    expected = [a[s].sum() / a.sum() for a, s in zip(*maps, strict=True)]
    np.testing.assert_allclose(metrics.relevance_mass(*tensors(*maps)), expected, rtol=1e-12)


def test_rank_counts_hits_among_the_largest(maps: tuple[np.ndarray, np.ndarray]) -> None:
    expected = []
    for a, s in zip(*maps, strict=True):
        largest = np.argsort(-a.ravel(), kind="stable")[: s.sum()]
        expected.append(s.ravel()[largest].mean())
    np.testing.assert_allclose(metrics.relevance_rank(*tensors(*maps)), expected, rtol=1e-12)


def test_of_equal_pixels_the_first_has_the_higher_rank() -> None:
    relevance = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    first = torch.tensor([[[True, False], [False, False]]])
    assert metrics.relevance_rank(relevance, first).item() == 1.0
    assert metrics.relevance_rank(relevance, first.flip(2)).item() == 0.0


def test_complexity_is_the_entropy(maps: tuple[np.ndarray, np.ndarray]) -> None:
    expected = []
    for a in maps[0]:
        p = a / a.sum()
        expected.append(-sum(x * math.log(x) for x in p.ravel() if x > 0))
    np.testing.assert_allclose(metrics.complexity(*tensors(maps[0])), expected, rtol=1e-12)


def test_sparseness_is_the_mean_absolute_difference_of_pixels(
    maps: tuple[np.ndarray, np.ndarray],
) -> None:
    """The Gini index is Σ|aᵢ − aⱼ| / (2 n² mean(a))."""
    expected = []
    for a in maps[0]:
        v = a.ravel() / a.max() + metrics.GINI_OFFSET
        differences = np.abs(v[:, None] - v[None]).sum()
        expected.append(differences / (2 * len(v) ** 2 * v.mean()))
    np.testing.assert_allclose(metrics.sparseness(*tensors(maps[0])), expected, rtol=1e-10)


def test_correlation_is_numpys(maps: tuple[np.ndarray, np.ndarray]) -> None:
    expected = [np.corrcoef(a.ravel(), s.ravel())[0, 1] for a, s in zip(*maps, strict=True)]
    np.testing.assert_allclose(metrics.mask_correlation(*tensors(*maps)), expected, rtol=1e-10)


def test_one_relevant_pixel() -> None:
    relevance = torch.zeros(1, 6, 7)
    relevance[0, 2, 3] = 5.0
    mask = relevance > 0
    assert metrics.relevance_mass(relevance, mask).item() == 1.0
    assert metrics.relevance_rank(relevance, mask).item() == 1.0
    assert metrics.complexity(relevance).item() == 0.0
    assert metrics.sparseness(relevance).item() == pytest.approx(1 - 1 / PIXELS, abs=1e-5)
    assert metrics.mask_correlation(relevance, mask).item() == pytest.approx(1.0)


def test_a_constant_map_has_no_order() -> None:
    relevance = torch.full((1, 6, 7), 3.0)
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[:, :2] = True
    assert metrics.relevance_mass(relevance, mask).item() == pytest.approx(1 / 3)
    assert metrics.relevance_rank(relevance, mask).isnan().all()
    assert metrics.mask_correlation(relevance, mask).isnan().all()
    assert metrics.complexity(relevance).item() == pytest.approx(math.log(PIXELS))
    assert metrics.sparseness(relevance).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("pixel", [0.0, math.inf, math.nan])
def test_maps_of_zeros_and_with_nonfinite_pixels_are_undefined(pixel: float) -> None:
    relevance = torch.zeros(1, 6, 7)
    relevance[0, 1, 1] = pixel
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[:, :2] = True
    for masked in (metrics.relevance_mass, metrics.relevance_rank, metrics.mask_correlation):
        assert masked(relevance, mask).isnan().all(), masked
    for unmasked in (metrics.complexity, metrics.sparseness):
        assert unmasked(relevance).isnan().all(), unmasked


def test_an_empty_mask_is_undefined() -> None:
    relevance = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    empty = torch.zeros(2, 6, 7, dtype=torch.bool)
    for masked in (metrics.relevance_mass, metrics.relevance_rank, metrics.mask_correlation):
        assert masked(relevance, empty).isnan().all(), masked


def test_results_are_float64_and_images_are_independent(
    maps: tuple[np.ndarray, np.ndarray],
) -> None:
    relevance, mask = tensors(*maps)
    whole = metrics.relevance_rank(relevance.float(), mask)
    single = [metrics.relevance_rank(relevance[i : i + 1].float(), mask[i : i + 1]) for i in (0, 5)]
    assert whole.dtype == torch.float64
    assert torch.equal(whole[[0, 5]], torch.cat(single))


def test_wrong_input_is_refused() -> None:
    relevance = torch.ones(2, 4, 4)
    with pytest.raises(ValueError, match=r"\[2, 4, 4\], \[2, 1, 4, 4\]"):
        metrics.relevance_mass(relevance, torch.ones(2, 1, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="negative"):
        metrics.complexity(-relevance)


def test_the_recorded_metrics_are_registered() -> None:
    assert {"energy", "correlation"} <= set(EXPLANATION_METRICS.names())
