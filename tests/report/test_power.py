"""The power of a comparison, by simulated tests."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmark.report.statistics.power import (
    describe_power,
    family_tail,
    planned_error,
    power,
    trials_needed,
    with_trials,
)
from benchmark.report.statistics.standard_error import StandardError


def test_power_is_the_share_of_simulated_tests_that_find_the_difference() -> None:
    error = StandardError((2e-4, 3e-4), (30.0, math.inf))
    estimates = 0.05 + error.sd * np.random.default_rng(0).normal(size=100_000)
    found = (estimates > error.half_width(0.01)).mean()
    assert power(error, 0.05, 0.01) == pytest.approx(found, abs=0.006)
    assert power(error, -0.05, 0.01) == power(error, 0.05, 0.01)
    assert power(error, 0.0, 0.025) < 0.05


def test_more_trials_shrink_only_the_first_component() -> None:
    error = StandardError((6e-4, 3e-4), (4.0, math.inf))
    more = with_trials(error, 3, 9)
    assert more.variances == pytest.approx((2e-4, 3e-4))
    assert more.degrees_of_freedom == (16.0, math.inf)
    assert with_trials(error, 3, 3) == error


def test_the_number_of_trials_is_the_smallest_that_is_enough() -> None:
    error = StandardError((6e-4, 1e-4), (4.0, math.inf))
    needed = trials_needed(error, 3, 0.05, 0.025)
    assert needed is not None and needed > 2
    assert power(with_trials(error, 3, needed), 0.05, 0.025) >= 0.8
    assert power(with_trials(error, 3, needed - 1), 0.05, 0.025) < 0.8
    few_images = StandardError((6e-4, 1e-2), (4.0, math.inf))
    assert trials_needed(few_images, 3, 0.05, 0.025) is None


def test_the_tail_pays_for_all_pairs() -> None:
    assert family_tail(2, 0.05) == 0.025
    assert family_tail(6, 0.05) == pytest.approx(0.025 / 15)


def test_a_plan_says_how_much_it_can_find() -> None:
    error = planned_error(3, 500, 6)
    assert error.variances == pytest.approx(((2 * 0.015**2 + 0.0003) / 3, 0.0001))
    assert error.degrees_of_freedom == (10.0, math.inf)
    clause = describe_power(error, 3, 500, 6, 0.05)
    found = f"{100 * power(error, 0.05, family_tail(6, 0.05)):.0f} %"
    assert "3 trials and 500 images" in clause and found in clause
    needed = trials_needed(error, 3, 0.05, family_tail(6, 0.05))
    assert f"{needed} trials" in clause
    single = describe_power(planned_error(1, 500, 2), 1, 500, 2, 0.05)
    assert "1 trial and 500 images" in single and "takes" not in single
