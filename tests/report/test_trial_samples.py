"""Means, differences and AUCs of values per image and trial."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmark.report.statistics.rank_agreement import kendall_tau, rank_agreement
from benchmark.report.statistics.stratified_mean import crossed_variance
from benchmark.report.statistics.trial_samples import (
    TrialSample,
    auc_sample,
    compare_with_best,
    sample_mean,
)

RNG = np.random.default_rng(7)


def sample(*rows: np.ndarray, same: bool = False) -> TrialSample:
    return TrialSample(tuple(rows), same)


def test_one_trial_is_the_mean_over_defined_images() -> None:
    z = RNG.normal(size=50)
    row = np.append(z, np.nan)
    estimate, error = sample_mean(sample(row))
    se = z.std(ddof=1) / math.sqrt(50)
    assert estimate.value == pytest.approx(z.mean()) and estimate.sd == pytest.approx(se)
    assert estimate.low == pytest.approx(z.mean() - 1.959964 * se, rel=1e-6)
    assert error is not None and "over images" in estimate.kind
    assert sample(row).undefined == 1


def test_trials_with_images_of_their_own_have_students_interval() -> None:
    rows = [RNG.normal(loc, size=size) for loc, size in ((0, 30), (1, 40), (2, 20))]
    means = np.array([row.mean() for row in rows])
    estimate, _ = sample_mean(sample(*rows))
    low, high = stats.t.interval(0.95, 2, means.mean(), means.std(ddof=1) / math.sqrt(3))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_trials_with_the_same_images_are_crossed() -> None:
    table = RNG.normal(size=(3, 25)) + RNG.normal(size=25)
    estimate, error = sample_mean(sample(*table, same=True))
    expected = crossed_variance(table)
    assert error == expected.error and estimate.low == pytest.approx(expected.low)
    holes = table.copy()
    holes[1, 4] = np.nan
    estimate, error = sample_mean(sample(*holes, same=True))
    assert error == crossed_variance(np.delete(table, 4, axis=1)).error
    assert estimate.value == pytest.approx(np.mean([np.nanmean(row) for row in holes]))


def test_what_is_undefined_has_a_note() -> None:
    nothing = np.full(5, np.nan)
    assert sample_mean(sample(nothing))[0].value is None
    estimate, error = sample_mean(sample(nothing, RNG.normal(size=5)))
    assert error is None and estimate.low is None and "not defined in every" in estimate.note
    estimate, error = sample_mean(sample(np.ones(5), np.ones(5)))
    assert estimate.value == 1.0 and error is None and estimate.low is None


@pytest.mark.parametrize("same", [False, True])
def test_the_best_is_told_from_the_rest_image_by_image(same: bool) -> None:
    images = RNG.normal(0, 5, size=(3, 60))  # that all share
    noise = [RNG.normal(0, 0.1, size=(3, 60)) for _ in range(4)]
    samples: list[TrialSample | None] = [
        sample(*(images + shift + e), same=same)
        for shift, e in zip((0.0, 1.0, 1.005, -2.0), noise, strict=True)
    ]
    best, found = compare_with_best([*samples, None], higher_is_better=True)
    assert best in (1, 2) and found[best] is None and found[4] is None
    p = [difference.p_holm for difference in found if difference]
    assert sum(value is not None and value < 0.05 for value in p) == 2
    lowest, _ = compare_with_best(samples, higher_is_better=False)
    assert lowest == 3


def test_all_pairs_are_paid_for() -> None:
    rows = [RNG.normal(size=40) for _ in range(3)]
    best, found = compare_with_best([sample(row) for row in rows], higher_is_better=True)
    assert best is not None
    others = [i for i in range(3) if i != best]
    raw = [
        stats.norm.sf(abs(z.mean() / (z.std(ddof=1) / math.sqrt(40)))) * 2
        for z in (rows[i] - rows[best] for i in others)
    ]
    got = [found[i] for i in others]
    assert [d.p for d in got if d] == pytest.approx(raw)
    smaller, larger = sorted(raw)
    adjusted = sorted(d.p_holm for d in got if d and d.p_holm is not None)
    assert adjusted[0] == pytest.approx(min(1.0, smaller * 1.5 * 2))
    assert adjusted[1] == pytest.approx(max(min(1.0, larger * 1.5), adjusted[0]))


def test_equal_samples_do_not_differ() -> None:
    row = RNG.normal(size=20)
    best, found = compare_with_best([sample(row), sample(row)], higher_is_better=True)
    assert best == 0 and found[1] is not None and found[1].p_holm == 1.0
    best, found = compare_with_best([sample(row, row), sample(row, row)], higher_is_better=True)
    assert found[1] is not None and found[1].p_holm == 1.0


def test_the_auc_counts_pairs_and_pairs_images() -> None:
    first, second = RNG.normal(size=30), RNG.normal(0.7, size=30)
    found = auc_sample(sample(first), sample(second))
    assert found is not None
    pairs = np.sign(second[:, None] - first[None, :]) / 2 + 0.5
    assert found.trial_means[0] == pytest.approx(pairs.mean())
    # the variance of a U-statistic with paired samples, by the bootstrap over images
    drawn = RNG.integers(30, size=(4000, 30))
    sampled = [pairs[np.ix_(rows, rows)].mean() for rows in drawn]
    assert sample_mean(found)[0].sd == pytest.approx(np.std(sampled), rel=0.15)
    holes = np.append(first, 5.0), np.append(second, np.nan)
    again = auc_sample(sample(holes[0]), sample(holes[1]))
    assert again is not None and again.trial_means == pytest.approx(found.trial_means)
    assert auc_sample(sample(first), sample(second[:-1])) is None
    assert auc_sample(sample(first), sample(first, first)) is None


def test_equal_models_have_an_auc_of_one_half() -> None:
    row = RNG.normal(size=30)
    found = auc_sample(sample(row), sample(row))
    assert found is not None and found.trial_means == pytest.approx([0.5])


def test_kendall_is_that_of_scipy() -> None:
    scores = RNG.integers(0, 4, size=(8, 3)).astype(float)
    tau = kendall_tau(scores)
    for a in range(3):
        for b in range(3):
            assert tau[a, b] == pytest.approx(stats.kendalltau(scores[:, a], scores[:, b])[0])
    assert np.isnan(kendall_tau(np.ones((4, 2)))).all()


def test_agreement_of_rankings_has_an_interval() -> None:
    quality = np.linspace(0, 1, 6)
    trials = []
    for _ in range(2):
        one = quality[:, None] + RNG.normal(0, 0.2, size=(6, 200))
        reverse = -quality[:, None] + RNG.normal(0, 0.2, size=(6, 200))
        noise = RNG.normal(size=(6, 200))
        trials.append(np.stack([one, reverse, noise], axis=1))
    trials[0][0, 0, 0] = np.nan
    found = rank_agreement(trials, same_images=False, draws=200)
    assert found[0][1].value == pytest.approx(-1.0) and found[0][0].value == 1.0
    low, high = found[0][2].low, found[0][2].high
    assert low is not None and high is not None and -1.0 <= low < high <= 1.0 and high - low > 0.3
    assert rank_agreement(trials, same_images=False, draws=200)[0][2] == found[0][2]
    tied = [np.zeros((3, 2, 10))]
    assert rank_agreement(tied, same_images=True, draws=20)[0][1].value is None
