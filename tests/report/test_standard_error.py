"""Standard errors of several components, moderated variances and shrunken probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from benchmark.report.statistics.moderated_variance import (
    TrialVariance,
    moderated_variances,
    trial_variances,
)
from benchmark.report.statistics.shrinkage import PRIOR_MEAN, Noise, posterior_differences
from benchmark.report.statistics.standard_error import StandardError
from benchmark.report.statistics.stratified_mean import crossed_variance
from benchmark.report.statistics.worst_group import (
    GroupAccuracy,
    accuracy_of_counts,
    accuracy_of_images,
    worst_group_difference,
)


@pytest.mark.parametrize("freedom", [2.0, 7.5, math.inf])
def test_one_component_is_students_test(freedom: float) -> None:
    error = StandardError((0.04,), (freedom,))
    student = stats.norm if math.isinf(freedom) else stats.t(freedom)
    assert error.half_width() == pytest.approx(0.2 * student.ppf(0.975))
    for difference in (0.0, 0.1, -0.5, 3.0):
        assert error.p_value(difference) == pytest.approx(
            2 * student.sf(abs(difference) / 0.2), rel=1e-6
        )


def test_the_p_value_is_the_level_whose_interval_touches_zero() -> None:
    error = StandardError((0.01, 0.02), (2.0, math.inf))
    for level in (0.6, 0.05, 1e-4):
        assert error.p_value(-error.half_width(level / 2)) == pytest.approx(level, rel=1e-6)
    assert error.p_value(1e9) < 1e-9
    assert error.sd == pytest.approx(math.sqrt(0.03))
    assert StandardError((0.0, 0.02), (2.0, math.inf)).half_width() == pytest.approx(
        math.sqrt(0.02) * stats.norm.ppf(0.975)
    )


def test_two_methods_have_the_variance_of_their_difference() -> None:
    values = np.array([[0.8, 0.7, 0.75], [0.6, 0.62, 0.5]])
    first, second = trial_variances(values)
    assert first.variance + second.variance == pytest.approx((values[0] - values[1]).var(ddof=1))
    assert first.degrees_of_freedom == 2.0


def test_an_effect_that_all_methods_share_cancels() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(5, 3))
    moved = values + 10.0 * random.normal(size=3)
    for one, other in zip(trial_variances(values), trial_variances(moved), strict=True):
        assert one.variance == pytest.approx(other.variance)


def test_moderated_variances_solve_smyths_equations() -> None:
    variances = np.array([0.1, 8.0, 0.5, 30.0, 0.02, 2.0])
    moderated, freedom = moderated_variances(variances, 4.0)
    prior_freedom = freedom - 4.0
    logs = np.log(variances) - digamma(2.0) + math.log(2.0)
    assert polygamma(1, prior_freedom / 2) == pytest.approx(logs.var(ddof=1) - polygamma(1, 2.0))
    prior = math.exp(logs.mean() + digamma(prior_freedom / 2) - math.log(prior_freedom / 2))
    expected = (prior_freedom * prior + 4.0 * variances) / freedom
    assert moderated == pytest.approx(expected)


def test_equal_variances_are_pooled_and_zeros_do_no_harm() -> None:
    moderated, freedom = moderated_variances(np.array([1.0, 1.1, 0.9, 1.0]), 2.0)
    assert moderated == pytest.approx([1.0] * 4)
    assert math.isinf(freedom)
    assert moderated_variances(np.zeros(4), 2.0)[0] == pytest.approx([0.0] * 4)
    assert np.isfinite(moderated_variances(np.array([0.0, 1.0, 1.2, 0.8]), 2.0)[0]).all()
    assert trial_variances(np.zeros((4, 3)))[0].variance == 0.0


def known(*sds: float) -> list[Noise]:
    """Return errors whose variance is known."""
    return [Noise(sd**2) for sd in sds]


def test_posterior_differences_are_those_of_a_simulated_posterior() -> None:
    """Draw from the prior, keep the draws that come close to what was observed, and count."""
    random = np.random.default_rng(1)
    draws = 1_000_000
    between = random.gamma(2.0, PRIOR_MEAN / 2.0, draws)
    true = between * random.normal(size=(3, draws))
    delta = true[1:] - true[0]
    reference = math.sqrt(1.5e-4) * random.normal(size=draws)  # half of the smaller variance
    observed = delta + np.sqrt([[1.5e-4], [2.5e-4]]) * random.normal(size=delta.shape) - reference
    near = (np.abs(observed - [[0.03], [-0.01]]) < 0.003).all(0)
    kept = delta[:, near]
    found = posterior_differences([0.03, -0.01], known(math.sqrt(3e-4), 0.02), 0.01)
    tolerance = 4 * 0.5 / math.sqrt(near.sum()) + 0.02
    for k in range(2):
        assert found[k].positive == pytest.approx((kept[k] > 0).mean(), abs=tolerance)
        assert found[k].equivalent == pytest.approx((np.abs(kept[k]) < 0.01).mean(), abs=tolerance)
        shown = found[k].estimate
        sd = kept[k].std()
        error = 5 * sd / math.sqrt(near.sum()) + 0.001
        assert shown.value == pytest.approx(kept[k].mean(), abs=error)
        assert shown.sd == pytest.approx(sd, abs=error)
        bounds = np.quantile(kept[k], (0.025, 0.975))
        assert (shown.low, shown.high) == pytest.approx(tuple(bounds), abs=4 * error)


def test_probabilities_without_noise_and_with_nothing_but_noise() -> None:
    sure, _ = posterior_differences([0.5, -0.5], known(1e-3, 1e-3), 0.01)
    assert sure.positive > 0.999 and sure.equivalent < 0.001
    (unsure,) = posterior_differences([0.1], known(10.0), 0.01)
    assert 0.5 < unsure.positive < 0.52
    (zero,) = posterior_differences([0.0], known(0.02), 0.01)
    assert zero.positive == pytest.approx(0.5)


def test_the_variance_between_trials_is_unknown_too() -> None:
    """Draw variances, differences and what was observed; keep the draws that come close."""
    random = np.random.default_rng(2)
    draws = 4_000_000
    freedom, trials, known_variance, residual = 4.0, 3, 1e-4, 5e-5
    sigma = PRIOR_MEAN / 2.0 * np.sqrt(random.uniform(size=draws) ** -2 - 1.0)
    by_trials = residual + 2.0 * sigma**2 / trials
    estimated = by_trials * random.chisquare(freedom, draws) / freedom
    between = random.gamma(2.0, PRIOR_MEAN / 2.0, draws)
    true = between * random.normal(size=(3, draws))
    sd = np.sqrt((by_trials + known_variance) / 2.0)
    observed = true + sd * random.normal(size=(3, draws))
    near = (np.abs(observed[1:] - observed[0] - [[0.04], [0.01]]) < 0.005).all(0)
    near &= np.abs(np.log(estimated / 3e-4)) < 0.3
    delta = (true[1:] - true[0])[:, near]
    noise = Noise(known_variance, 3e-4, freedom, trials, residual)
    found = posterior_differences([0.04, 0.01], [noise, noise], 0.01)
    assert near.sum() > 2_000
    for k in range(2):
        assert found[k].positive == pytest.approx((delta[k] > 0).mean(), abs=0.04)
        assert found[k].equivalent == pytest.approx((np.abs(delta[k]) < 0.01).mean(), abs=0.04)
        bounds = np.quantile(delta[k], (0.025, 0.975))
        shown = (found[k].estimate.low, found[k].estimate.high)
        assert shown == pytest.approx(tuple(bounds), abs=0.006)


def test_many_degrees_of_freedom_are_a_known_variance() -> None:
    differences = [0.03, -0.01]
    exact = posterior_differences(differences, known(0.02, 0.02), 0.01)
    many = posterior_differences(differences, [Noise(1e-4, 3e-4, 1e5, 5)] * 2, 0.01)
    for one, other in zip(exact, many, strict=True):
        assert one.positive == pytest.approx(other.positive, abs=1e-3)
        assert one.equivalent == pytest.approx(other.equivalent, abs=1e-3)
    few = posterior_differences(differences, [Noise(1e-4, 3e-4, 2.0, 3)] * 2, 0.01)
    assert abs(few[0].positive - 0.5) < abs(exact[0].positive - 0.5)


def test_equal_minima_with_other_groups_are_not_told_apart() -> None:
    hundred = [100] * 4
    found = worst_group_difference(
        accuracy_of_counts([70, 70, 70, 70], hundred), accuracy_of_counts([72, 90, 95, 90], hundred)
    )
    assert found.low < 0.0 < found.high and found.p_value > 0.5
    bad = accuracy_of_counts([30, 90], [100, 100])
    good = accuracy_of_counts([70, 90], [100, 100])
    worse = worst_group_difference(bad, good)
    assert worse.high < 0.0 and worse.p_value < 1e-4
    better = worst_group_difference(good, bad)
    assert (better.low, better.high) == pytest.approx((-worse.high, -worse.low))
    assert better.p_value == pytest.approx(worse.p_value)


def test_one_group_is_the_difference_of_two_proportions() -> None:
    first = accuracy_of_counts([60], [100])
    second = accuracy_of_counts([80], [100])
    variance = (62 / 104) * (42 / 104) / 100 + (82 / 104) * (22 / 104) / 100
    half = stats.norm.ppf(0.975) * math.sqrt(variance)
    found = worst_group_difference(first, second)
    assert (found.low, found.high) == pytest.approx((-0.2 - half, -0.2 + half))
    assert found.p_value == pytest.approx(2 * stats.norm.sf(0.2 / math.sqrt(variance)))
    over_trials = worst_group_difference(first, second, TrialVariance(0.002, 3.0))
    total = variance + 0.002
    freedom = 3.0 * (total / 0.002) ** 2
    assert over_trials.p_value == pytest.approx(2 * stats.t.sf(0.2 / math.sqrt(total), freedom))


def test_images_of_a_group_are_crossed_with_trials() -> None:
    random = np.random.default_rng(0)
    group = np.repeat([0, 3], [40, 60])
    correct = (random.random((3, 100)) < 0.4 + 0.4 * random.random(100)).astype(float)
    found = accuracy_of_images(correct, group)
    for k, g in enumerate((0, 3)):
        error = crossed_variance(correct[:, group == g]).error
        assert error is not None
        assert found.mean[k] == pytest.approx(correct[:, group == g].mean())
        assert found.image_variance[k] == pytest.approx(error.variances[1])
    # The difficulty of images that never changes is not averaged out.
    same = accuracy_of_images(np.stack([correct[0]] * 3), group)
    size = np.array([40, 60])
    share = same.mean
    assert (same.image_variance > share * (1 - share) / size).all()
    alone = accuracy_of_images(np.ones((3, 1)), np.zeros(1))
    assert alone.image_variance[0] > 0.0


def test_many_groups_are_compared_as_few_are() -> None:
    """With more than a hundred pairs of groups quantiles are interpolated."""
    random = np.random.default_rng(2)
    groups = 30
    mine = GroupAccuracy(0.6 + 0.3 * random.random(groups), 1e-4 + 4e-3 * random.random(groups))
    theirs = GroupAccuracy(mine.mean + 0.2, mine.image_variance)
    between = TrialVariance(1e-3, 2.0)
    found = worst_group_difference(mine, theirs, between)
    difference = mine.mean[:, None] - theirs.mean
    variance = mine.image_variance[:, None] + theirs.image_variance + 1e-3
    freedom = 2.0 * (variance / 1e-3) ** 2
    half = stats.t.ppf(1 - 0.025 / groups, freedom) * np.sqrt(variance)
    assert found.high == pytest.approx((difference + half).max(1).min(), abs=1e-4)
    assert found.low == pytest.approx((difference - half).min(0).max(), abs=1e-4)
