"""Worst groups over trials, patients over trials, and what one trial's accuracy is printed with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

from benchmark.report.report import make_report
from benchmark.report.statistics.delta_method import sampling_sd
from benchmark.report.statistics.stratified_mean import crossed_variance, stratified_mean
from benchmark.report.statistics.worst_group import worst_group_over_trials, worst_group_variance
from tests.support.fake_sweep import ERM, FakeSweep, World


def test_worst_group_over_trials_by_few_lines() -> None:
    right = np.array([[40, 30], [35, 38], [30, 33]])
    size = np.full((3, 2), 50)
    minima = np.array([0.6, 0.7, 0.6])
    mean = right.mean(0) / 50
    raised = (right + 2) / 54
    sd = np.sqrt((raised * (1 - raised) / 50).mean(0))
    below = norm.ppf(0.975) * sd[mean.argmin()]
    above = (mean + norm.ppf(1 - 0.0125) * sd).min() - minima.mean()
    half = t.ppf(0.975, 2) * minima.std(ddof=1) / math.sqrt(3)
    found = worst_group_over_trials(right, size)
    assert found.value == pytest.approx(minima.mean())
    assert found.sd == pytest.approx(minima.std(ddof=1))
    assert found.low == pytest.approx(minima.mean() - math.hypot(below, half))
    assert found.high == pytest.approx(minima.mean() + math.hypot(above, half))


def test_equal_trials_have_the_test_sample_left() -> None:
    one = worst_group_over_trials([[40, 30]] * 2, [[50, 50]] * 2)
    assert (
        one.sd == 0.0
        and one.low is not None
        and one.high is not None
        and one.low < 0.5
        and one.high > 0.7
    )
    perfect = worst_group_over_trials([[50, 0]] * 3, [[50, 0]] * 3)
    assert (
        perfect.value == perfect.high == 1.0 and perfect.low is not None and 0.9 < perfect.low < 1.0
    )
    assert "left out: group 1" in perfect.note
    for right, size in (([[1, 2]], [[3, 3]]), ([[1], [2]], [[3, 3], [3, 3]])):
        with pytest.raises(ValueError, match="two trials or more"):
            worst_group_over_trials(right, size)


def test_the_interval_holds_the_worst_group_where_t_of_the_minima_does_not() -> None:
    rng = np.random.default_rng(0)
    held = narrow = 0
    for _ in range(300):
        difficult = rng.normal(
            size=(20, 50)
        )  # the same 50 images of each of 20 groups in five trials
        right = rng.random((5, 20, 50)) < norm.cdf(1.5 + difficult)
        minima = right.mean(2).min(1)
        truth = norm.cdf(1.5 / math.sqrt(2))
        found = worst_group_over_trials(right.sum(2), np.full((5, 20), 50))
        assert found.low is not None and found.high is not None
        held += found.low <= truth <= found.high
        narrow += abs(minima.mean() - truth) <= t.ppf(0.975, 4) * minima.std(ddof=1) / math.sqrt(5)
    assert held >= 285 and narrow < 60


def test_variance_of_the_worst_group() -> None:
    assert worst_group_variance([45, 30, 0], [50, 50, 0]) == pytest.approx(
        (32 / 54) * (22 / 54) / 50
    )
    assert worst_group_variance([50], [50]) > 0


def test_patients_over_trials() -> None:
    rng = np.random.default_rng(1)
    z = (rng.random((3, 200)) < 0.7).astype(float)
    patient = rng.integers(40, size=200)
    own = crossed_variance(z, cluster=np.arange(200))
    plain = crossed_variance(z)
    assert (own.value, own.sd, own.low, own.high) == pytest.approx(
        (plain.value, plain.sd, plain.low, plain.high)
    )
    copies = crossed_variance(
        np.repeat(z, 3, 1), cluster=np.repeat(np.arange(200), 3)
    )  # tells no more than once
    assert copies.sd == pytest.approx(plain.sd) and copies.low == pytest.approx(plain.low)
    found = crossed_variance(z, cluster=patient)
    assert found.value == pytest.approx(z.mean()) and found.kind == "crossed trials × patients"
    # by the definition: a patient's linearised value in place of the image
    size = np.bincount(patient)
    units = (
        np.stack([np.bincount(patient, row - z.mean()) for row in z]) * len(size) / 200 + z.mean()
    )
    raised = (z.mean() * len(size) + 1) / (len(size) + 2)
    pseudo = (raised * (1 - raised) - z.mean() * (1 - z.mean())) / len(size)
    plain_units = crossed_variance(units).sd
    assert found.sd is not None and plain_units is not None
    assert found.sd**2 == pytest.approx(plain_units**2 + pseudo)
    one = crossed_variance(z[:1], cluster=patient)
    assert one.sd == pytest.approx(stratified_mean(z[0], cluster=patient).sd)


def test_patients_over_trials_hold() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        patient = rng.integers(60, size=300)
        lean = 1.2 * rng.normal(size=60)[patient] + 0.15 * rng.normal(size=(4, 1))
        z = rng.random((4, 300)) < norm.cdf(0.8 + lean)
        found = crossed_variance(z, cluster=patient)
        assert found.low is not None and found.high is not None
        held += found.low <= norm.cdf(0.8 / math.sqrt(1 + 1.44 + 0.0225)) <= found.high
    assert 368 <= held <= 396  # 95 % of 400 is 380, with a standard error of 4.4


def test_one_trials_accuracy_has_the_sampling_interval(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=300, classes=10), ERM, trials=(0,))
    report = make_report(fake.finish())
    row = report.tables[0].rows[0]
    found = row.values[0].estimate
    table = row.selected_runs[0].at.counts["unbiased"].sum(0, dtype=np.int64)
    sampling = sampling_sd(table)["accuracy"][0]
    assert found.value is not None and found.low is not None
    assert found.value - found.low == pytest.approx(norm.ppf(0.975) * sampling)
    assert found.interval_sd == pytest.approx(sampling) and found.sd != pytest.approx(
        sampling, rel=1e-3
    )
