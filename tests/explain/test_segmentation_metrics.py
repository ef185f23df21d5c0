"""Pixel accuracy and pooled IoU: the report's numbers are those of counts pooled over images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.explain.segmentation import relevance_segmentation
from benchmark.report.statistics.trial_samples import TrialSample, pooled_iou_sample, sample_mean


def images(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.rand(n, 6, 7, generator=generator).double()
    mask = torch.rand(n, 6, 7, generator=generator) < torch.rand(n, 1, 1, generator=generator)
    return relevance + 0.5 * mask, mask


def values(name: str, relevance: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return np.asarray(EXPLANATION_METRICS.get(name)()(relevance, mask))


def pooled(*trials: tuple[torch.Tensor, torch.Tensor]) -> TrialSample:
    accuracy, found = (
        TrialSample(tuple(values(name, *trial) for trial in trials), False)
        for name in ("pixel_accuracy", "found_foreground")
    )
    sample = pooled_iou_sample(accuracy, found)
    assert sample is not None
    return sample


def test_means_are_the_pooled_measures() -> None:
    trials = [images(30, 0), images(20, 1)]
    sample = pooled(*trials)
    for trial, mean in zip(trials, sample.trial_means, strict=True):
        counts = relevance_segmentation(*trial)
        assert mean == pytest.approx(counts.mean_iou(), abs=1e-12)
        accuracy = values("pixel_accuracy", *trial).mean()
        assert accuracy == pytest.approx(counts.pixel_accuracy(), abs=1e-12)


def test_the_interval_is_that_of_the_bootstrap() -> None:
    """The sd over images of the linearised values is the sd of the pooled IoU over resamples."""
    relevance, mask = images(300, 2)
    estimate, _ = sample_mean(pooled((relevance, mask)))
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(400):
        rows = torch.from_numpy(rng.integers(0, 300, 300))
        resampled.append(_pooled_by_counts(relevance[rows], mask[rows]))
    assert estimate.sd == pytest.approx(float(np.std(resampled)), rel=0.15)
    assert estimate.low is not None and estimate.low < estimate.value  # type: ignore[operator]


def _pooled_by_counts(relevance: torch.Tensor, mask: torch.Tensor) -> float:
    predicted = relevance > relevance.mean((1, 2), keepdim=True)
    sides = [(predicted, mask), (~predicted, ~mask)]
    return float(np.mean([float((p & m).sum() / (p | m).sum()) for p, m in sides]))


def test_degenerate_maps() -> None:
    """A constant map predicts background everywhere; a map that is not finite is not defined."""
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0] = True
    constant = torch.ones(1, 4, 4)
    assert values("pixel_accuracy", constant, mask).tolist() == [0.75]
    assert values("found_foreground", constant, mask).tolist() == [0.0]
    assert pooled((constant, mask)).trial_means == [pytest.approx(0.75 / 2)]
    empty = torch.zeros_like(mask)  # there is no foreground, and none is found
    assert pooled((constant, empty)).trial_means == [pytest.approx(1.0)]
    assert np.isnan(values("pixel_accuracy", constant * torch.nan, mask)).all()
    one = TrialSample((np.array([np.nan]),), True)
    assert pooled_iou_sample(one, one) is None
    two = TrialSample((np.array([0.5, 0.5]),), True)
    assert pooled_iou_sample(two, TrialSample((np.array([0.5]),), True)) is None
