"""Means over images, patients and trials, gaps, worst groups and tests, against other formulas."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from benchmark.report.statistics.estimate import Estimate, without_interval
from benchmark.report.statistics.generalization_gap import paired_gap, unpaired_gap
from benchmark.report.statistics.hypothesis_tests import holm, mcnemar
from benchmark.report.statistics.moderated_variance import TrialVariance
from benchmark.report.statistics.posterior import confusion_posterior
from benchmark.report.statistics.stratified_mean import contrast, crossed_variance, stratified_mean
from benchmark.report.statistics.worst_group import worst_group_interval

Z = stats.norm.ppf(0.975)


def number(value: float | None) -> float:
    assert value is not None
    return value


def test_a_stratified_mean_adds_the_classes_variances() -> None:
    random = np.random.default_rng(0)
    names = np.array(["cat", "dog", "emu"])[random.integers(0, 3, 60)]
    z = random.normal(size=60)
    parts = [z[names == name] for name in ("cat", "dog", "emu")]
    found = stratified_mean(z, names)
    sd = np.sqrt(sum(p.var(ddof=1) / len(p) for p in parts)) / 3
    assert found.value == pytest.approx(np.mean([p.mean() for p in parts]))
    assert found.sd == pytest.approx(sd)
    assert found.high == pytest.approx(number(found.value) + Z * sd)
    alone = stratified_mean(z)
    assert (alone.value, alone.sd) == (pytest.approx(z.mean()), pytest.approx(stats.sem(z)))
    assert stratified_mean([1, 1, 1, 0], limits=(0.0, 1.0)).high == 1.0


def test_clusters_are_summed_before_they_are_squared() -> None:
    random = np.random.default_rng(1)
    stratum, patient = np.repeat([0, 1], [30, 50]), np.repeat(np.arange(20), 4)
    patient[:32], patient[32:] = patient[:32], patient[32:] + 100  # no patient in both classes
    stratum = (patient >= 100).astype(int)
    z = random.normal(size=80) + random.normal(size=200)[patient]
    variance = 0.0
    for j in (0, 1):
        deviation = z[stratum == j] - z[stratum == j].mean()
        own = patient[stratum == j]
        variance += (
            sum(deviation[own == p].sum() ** 2 for p in np.unique(own)) / len(deviation) ** 2
        )
    assert stratified_mean(z, stratum, patient).sd == pytest.approx(np.sqrt(variance) / 2)
    # Every image a patient of its own: the plain formula with n in place of n − 1.
    separate = stratified_mean(z, None, np.arange(80))
    assert separate.sd == pytest.approx(z.std() / np.sqrt(80))


def test_a_patient_in_two_classes_brings_a_covariance() -> None:
    z, stratum, patient = [1.0, 3.0, 1.0, 3.0], [0, 0, 1, 1], ["a", "b", "a", "b"]
    # Class means always move together, so the mean of two classes is as uncertain as one.
    assert stratified_mean(z, stratum, patient).sd == pytest.approx(
        number(stratified_mean(z[:2], None, ["a", "b"]).sd)
    )


@pytest.mark.parametrize(
    ("z", "stratum", "cluster", "words"),
    [
        ([1.0, 0.0, 1.0], ["a", "a", "b"], None, "single image in class b"),
        ([1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1], [5, 5, 6, 7], "single patient in class 0"),
        ([0.1, 0.1, 0.3, 0.3], [0, 0, 1, 1], None, "do not vary within any class"),
        ([0.5], None, None, "a single image"),
    ],
)
def test_without_variance_there_is_a_note(
    z: list, stratum: list | None, cluster: list | None, words: str
) -> None:
    found = stratified_mean(z, stratum, cluster)
    assert found.value is not None and (found.sd, found.low, found.high) == (None, None, None)
    assert words in found.note


def test_a_contrast_has_the_normal_p_value() -> None:
    random = np.random.default_rng(2)
    z = random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=300)
    found = contrast(z, np.arange(300) % 3)
    normal = stats.norm(number(found.value), number(found.sd))
    assert found.p_value == pytest.approx(2 * min(normal.sf(0), normal.cdf(0)))
    same = contrast(np.zeros(20))
    assert (same.value, same.low, same.p_value) == (0.0, None, 1.0)
    assert "agree on all 20 images" in same.note
    always = contrast(np.ones(20))
    assert (always.value, always.low, always.p_value) == (1.0, None, None)


def sums_of_squares(table: np.ndarray) -> tuple[float, float, float]:
    """MS of trials, images and residual by least squares on dense dummy variables."""
    trials, images = table.shape
    s, i = (c.ravel() for c in np.meshgrid(np.arange(trials), np.arange(images), indexing="ij"))
    y = table.ravel().astype(float)
    one, by_s, by_i = np.ones((len(y), 1)), np.eye(trials)[s], np.eye(images)[i]

    def left(*design: np.ndarray) -> float:
        x = np.hstack(design)
        return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum())

    residual = left(one, by_s, by_i)
    trial, image = left(one, by_i) - residual, left(one, by_s) - residual
    return trial / (trials - 1), image / (images - 1), residual / ((trials - 1) * (images - 1))


@pytest.mark.parametrize(("trials", "images", "spread"), [(3, 25, 0.0), (4, 30, 0.3), (2, 12, 0.1)])
def test_crossed_variance_is_the_two_way_table(trials: int, images: int, spread: float) -> None:
    random = np.random.default_rng(trials)
    chance = 0.6 + spread * random.normal(size=(trials, 1)) + 0.3 * random.normal(size=images)
    correct = (random.random((trials, images)) < chance).astype(int)
    ms_s, ms_i, ms_r = sums_of_squares(correct)
    found = crossed_variance(correct)
    ms_i += trials * pseudo_variance(correct.mean(), images)
    of_images = max(ms_i - ms_r, ms_i - ms_s, 0)
    cells = trials * images
    assert found.value == pytest.approx(correct.mean())
    assert found.sd == pytest.approx(np.sqrt((ms_s + of_images) / cells))
    squared = stats.t.ppf(0.975, trials - 1) ** 2 * ms_s
    squared += stats.t.ppf(0.975, images - 1) ** 2 * of_images
    half = np.sqrt(squared / cells)
    assert found.low == pytest.approx(max(0.0, correct.mean() - half))
    assert found.high == pytest.approx(min(1.0, correct.mean() + half))


def pseudo_variance(share: float, images: int) -> float:
    """Return how much p(1 − p) grows with one more correct and one more wrong image."""
    raised = (share * images + 1) / (images + 2)
    return max(raised * (1 - raised) - share * (1 - share), 0)


def test_a_known_variance_between_trials_takes_the_place_of_the_own_one() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(3, 40)) + random.normal(size=40)
    ms_s, ms_i, ms_r = sums_of_squares(values)
    known = 0.5 * ms_s / 40
    found = crossed_variance(values, between=TrialVariance(known, 17.0))
    of_images = max(ms_i - ms_r, ms_i - 40 * known, 0) / 120
    assert found.sd == pytest.approx(np.sqrt(known / 3 + of_images))
    squared = stats.t.ppf(0.975, 17) ** 2 * known / 3 + stats.t.ppf(0.975, 39) ** 2 * of_images
    assert found.high - found.value == pytest.approx(np.sqrt(squared))
    assert found.error is not None
    assert found.error.half_width(0.05) < found.error.half_width()


def test_trials_that_err_on_other_images_have_an_interval() -> None:
    """Three trials, each wrong on another image: the trials agree, the images do not."""
    correct = 1.0 - np.eye(3, 200)
    found = crossed_variance(correct)
    assert found.value == pytest.approx(0.995)
    one_trial = Z * np.sqrt((2 / 202) * (200 / 202) / 200)
    half = number(found.value) - number(found.low)
    assert one_trial / np.sqrt(3) < half < 1.1 * one_trial
    assert found.high == 1.0


def test_crossed_variance_over_classes_adds_their_tables() -> None:
    random = np.random.default_rng(5)
    correct, stratum = random.normal(size=(4, 30)), np.repeat([0, 1, 2], [6, 10, 14])
    per_trial = np.array([[row[stratum == j].mean() for j in range(3)] for row in correct]).mean(1)
    trial = per_trial.var(ddof=1) / 4
    tables = [sums_of_squares(correct[:, stratum == j]) for j in range(3)]
    images, residual = (
        sum(t[k] / (4 * n * 9) for t, n in zip(tables, (6, 10, 14), strict=True)) for k in (1, 2)
    )
    found = crossed_variance(correct, stratum)
    assert found.value == pytest.approx(per_trial.mean())
    assert found.sd == pytest.approx(np.sqrt(max(trial + images - residual, trial, images)))
    same = crossed_variance(correct, np.zeros(30))
    assert (same.sd, same.low) == (crossed_variance(correct).sd, crossed_variance(correct).low)


def test_one_trial_says_test_sampling_only_and_equal_answers_say_so() -> None:
    row = np.array([1, 0, 1, 1, 0, 1])
    found = crossed_variance(row[None])
    assert found.kind == "test sampling only" and "test sampling only" in found.note
    assert found.sd == pytest.approx(stats.sem(row))
    perfect = crossed_variance(np.ones((3, 50)))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(1 - stats.t.ppf(0.975, 49) * np.sqrt(51 / 52**2 / 50))
    constant = crossed_variance(np.full((3, 50), 0.5))
    assert (constant.sd, constant.low) == (None, None)
    assert constant.note
    assert crossed_variance(np.ones((1, 50))).low is None
    assert "single image" in crossed_variance(np.array([[1], [0]])).note
    # Trials that always agree add nothing to what the images say.
    values = np.array([0.1, 0.7, 0.3, 0.4])
    agreeing = crossed_variance(np.stack([values, values, values]))
    assert agreeing.sd == pytest.approx(stats.sem(values))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "2 axes"),
        ([[]], "empty"),
        ([[1.0, float("nan")]], "NaN"),
        ([1, 0], "2 axes"),
        ([["a"]], "numbers"),
    ],
)
def test_bad_matrices_are_refused(bad: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        crossed_variance(bad)


def test_bad_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="each of the 3 images"):
        stratified_mean([1, 0, 1], [0, 1])
    with pytest.raises(ValueError, match="strata contain NaN"):
        stratified_mean([1, 0, 1], [0.0, 1.0, float("nan")])
    with pytest.raises(ValueError, match="clusters"):
        contrast([1, 0, 1], None, [0, 1])


def test_paired_gap_has_the_posteriors_sd_about_the_plug_in() -> None:
    tables = np.array([[[5, 3], [14, 60]], [[20, 0], [9, 30]]])
    gap = paired_gap(tables)
    random = np.random.default_rng(0)
    # Cells in the order (wrong, wrong), (wrong, right), (right, wrong), (right, right).
    draws = [random.dirichlet(t.ravel() + 0.5, 400_000) for t in tables]
    gaps = np.mean([d[:, 2] - d[:, 1] for d in draws], axis=0)
    assert gap.value == pytest.approx(((14 - 3) / 82 + 9 / 59) / 2)
    assert gap.sd == pytest.approx(gaps.std(), rel=0.005)
    assert gap.low == pytest.approx(number(gap.value) - Z * number(gap.sd))
    assert gap.high == pytest.approx(number(gap.value) + Z * number(gap.sd))
    flipped = paired_gap(tables.transpose(0, 2, 1))
    assert flipped.value == pytest.approx(-number(gap.value))
    assert (flipped.low, flipped.high) == pytest.approx((-number(gap.high), -number(gap.low)))
    assert paired_gap(tables[0]).value == pytest.approx(11 / 82)


def test_classes_without_pairs_are_named() -> None:
    gap = paired_gap([[[0, 0], [0, 0]], [[10, 6], [5, 40]]])
    assert gap.value == pytest.approx(-1 / 61)
    assert gap.note == "left out: class 0 without pairs"
    agreed = paired_gap([[[0, 0], [0, 30]]])
    assert agreed.value == 0.0
    assert number(agreed.sd) > 0


def test_unpaired_gap_adds_the_variances() -> None:
    biased = confusion_posterior([[48, 2], [3, 47]], draws=1_000).balanced_accuracy
    deceiving = confusion_posterior([[20, 30], [25, 25]], draws=1_000).balanced_accuracy
    gap = unpaired_gap(biased, deceiving)
    assert gap.value == pytest.approx(0.5)
    assert gap.sd == pytest.approx(np.hypot(number(biased.sd), number(deceiving.sd)))
    half = Z * np.hypot(number(biased.sampling_sd), number(deceiving.sampling_sd))
    assert gap.low == pytest.approx(0.5 - half)
    plain = Estimate(0.9, 0.03, 0.84, 0.96, "normal"), Estimate(0.95, 0.04, 0.87, 1.0, "normal")
    assert unpaired_gap(*plain).low == pytest.approx(-0.05 - Z * 0.05)
    missing = unpaired_gap(without_interval(None, "no images"), deceiving)
    assert missing.value is None
    assert "biased: no images" in missing.note
    without = unpaired_gap(biased, worst_group_interval([8, 9], [10, 10]))
    assert without.value is not None
    assert without.low is None
    assert "no sd" in without.note


def test_worst_group_uses_exact_binomial_bounds() -> None:
    correct, total = [45, 90, 7, 30], [50, 100, 10, 30]
    found = worst_group_interval(correct, total)
    tests = [stats.binomtest(k, n) for k, n in zip(correct, total, strict=True)]
    assert found.value == 0.7 and found.sd is None
    assert found.low == pytest.approx(min(t.proportion_ci(0.95, "exact").low for t in tests))
    assert found.high == pytest.approx(
        min(t.proportion_ci(1 - 0.05 / 4, "exact").high for t in tests)
    )
    for k in (0, 20):
        edge = worst_group_interval([k], [20])
        exact = stats.binomtest(k, 20).proportion_ci(0.95, "exact")
        assert (edge.low, edge.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
        assert edge.note == "one group only"
    empty = worst_group_interval([3, 0, 4], [5, 0, 5])
    assert empty.value == 0.6 and "group 1 without test images" in empty.note
    assert empty.high == worst_group_interval([3, 4], [5, 5]).high


@pytest.mark.parametrize(
    ("correct", "total", "words"),
    [
        ([], [], "empty"),
        ([0, 0], [0, 0], "No group has any images"),
        ([3], [2], "Group 0 has more correct"),
        ([1, 2], [5], "one size per group"),
        ([-1], [5], "negative"),
        ([float("nan")], [5], "NaN"),
    ],
)
def test_bad_groups_are_refused(correct: list, total: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worst_group_interval(correct, total)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([[1, 2, 3]], "shape"),
        (np.zeros((2, 2, 2)), "no pairs"),
        ([[1, -2], [3, 4]], "negative"),
        ([], "empty"),
    ],
)
def test_bad_pairs_are_refused(tables: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        paired_gap(tables)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    for n10, n01 in product(range(8), range(8)):
        expected = stats.binomtest(n10, n10 + n01).pvalue if n10 + n01 else 1.0
        assert mcnemar(n10, n01) == pytest.approx(expected)
    # 2 (1 + 5)/2⁵ by hand.
    assert mcnemar(1, 4) == mcnemar(4, 1) == pytest.approx(float(Fraction(12, 32)))
    assert mcnemar(5000, 5400) == pytest.approx(stats.binomtest(5000, 10400).pvalue)
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1 gives .02 .03 .06 .04; the last may not be below .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([0.8, 0.9]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, bad])


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    random = np.random.default_rng(6)
    for _ in range(50):
        p = random.random(6) ** 3
        order, rejected = np.argsort(p), set()
        for k, at in enumerate(order):
            if p[at] > 0.05 / (6 - k):
                break
            rejected.add(int(at))
        assert {at for at, value in enumerate(holm(list(p))) if number(value) <= 0.05} == rejected
