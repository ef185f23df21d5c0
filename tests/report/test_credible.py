"""Credible intervals against closed forms, quadrature and slow direct samplers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmark.report.statistics.credible import (
    DRAWS,
    accuracy_bounds,
    credible_bounds,
    paired_gap_posterior,
    recall_posterior,
    unpaired_gap_posterior,
)
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS
from benchmark.report.statistics.posterior import accuracy_credible, confusion_posterior
from tests.report.test_intervals_posterior import (
    DOGS,
    FIVE,
    XRAY,
    beta_rule,
    from_definition,
    number,
)

TAILS = (0.025, 0.975)
#: Standard error of a tail probability of 2.5 % from this many draws.
ERROR = np.sqrt(0.025 * 0.975 / DRAWS)


def share_below(table: np.ndarray, bound: float) -> float:
    """Return P(accuracy ≤ bound) of two classes by Gauss quadrature over μ and the first recall."""
    size = table.sum(1)
    share, weight = beta_rule(size[0] + 1, size[1] + 1, 80)
    recall, recall_weight = beta_rule(table[0, 0] + 1, table[0, 1] + 1, 80)
    left = (bound - share[:, None] * recall) / (1.0 - share[:, None])
    second = stats.beta(table[1, 1] + 1, table[1, 0] + 1)
    return float(weight @ second.cdf(left) @ recall_weight)


@pytest.mark.parametrize(
    "table", [DOGS, np.array([[30, 20], [2, 60]]), np.array([[50, 0], [0, 40]])]
)
def test_bounds_of_the_accuracy_agree_with_quadrature(table: np.ndarray) -> None:
    alone = accuracy_bounds(table)
    among_all = credible_bounds(table)["accuracy"][0]
    for bounds in (alone, among_all):
        for bound, tail in zip(bounds, TAILS, strict=True):
            assert share_below(table, bound) == pytest.approx(tail, abs=5 * ERROR + 1e-4)


@pytest.mark.parametrize("table", [XRAY, FIVE[[0, 1, 3, 4]][:, [0, 1, 3, 4]]])
def test_bounds_agree_with_a_slow_direct_sampler(table: np.ndarray) -> None:
    random, draws = np.random.default_rng(5), 50_000
    mu = random.dirichlet(table.sum(1) + 1, draws)
    theta = np.stack([random.dirichlet(row + 1, draws) for row in table], axis=1)
    found = credible_bounds(table, 50_000)
    for (name, j), values in from_definition(mu, theta).items():
        for bound, tail in zip(found[name][j], TAILS, strict=True):
            error = np.sqrt(2 * 0.025 * 0.975 / draws)
            assert np.mean(values <= bound) == pytest.approx(tail, abs=5 * error), (name, j)


def test_bounds_of_recall_are_quantiles_of_a_beta() -> None:
    found = credible_bounds(FIVE, 100)["recall"]
    for j, row in enumerate(FIVE):
        if row.sum():
            beta = stats.beta(row[j] + 1, row.sum() - row[j] + 4)
            np.testing.assert_allclose(found[j], beta.ppf(TAILS), atol=1e-12)
        else:
            assert np.isnan(found[j]).all()


@pytest.mark.parametrize("n", [1, 7, 200])
def test_none_and_all_of_n_have_closed_forms(n: int) -> None:
    """The posteriors are Beta(1, n + 1) and its mirror image."""
    none, every = (recall_posterior(correct, n, 2) for correct in (0, n))
    assert none is not None and every is not None
    quantiles = [1.0 - (1.0 - tail) ** (1.0 / (n + 1)) for tail in TAILS]
    assert (none.low, none.high) == pytest.approx(quantiles)
    assert (every.low, every.high) == pytest.approx([1.0 - q for q in quantiles[::-1]])
    assert none.value == pytest.approx(1.0 / (n + 2))
    assert every.sd == pytest.approx(stats.beta(n + 1, 1).std())
    assert recall_posterior(0, 0, 2) is None


def test_the_estimate_has_mean_sd_and_bounds_of_the_posterior() -> None:
    posterior = confusion_posterior(FIVE, draws=20_000, credible=True)
    for name in (*PER_CLASS, *OVERALL):
        for j in range(len(FIVE) if name in PER_CLASS else 1):
            found = getattr(posterior, name)
            plug_in = found[j] if name in PER_CLASS else found
            shown = posterior.credible(name, j)
            if plug_in.value is None:
                assert shown.value is None and shown.note
                continue
            assert shown.is_posterior and shown.value == plug_in.posterior_mean
            assert shown.sd == plug_in.sd
            low, high = number(shown.low), number(shown.high)
            assert 0.0 <= low < number(shown.value) < high <= 1.0
            assert high - low == pytest.approx(2 * 1.96 * number(shown.sd), rel=0.12), (name, j)
    alone = accuracy_credible(FIVE)
    assert alone.value == pytest.approx(posterior.accuracy.posterior_mean)
    assert alone.low == pytest.approx(number(posterior.credible("accuracy").low), abs=2e-3)


def test_bounds_must_be_requested() -> None:
    with pytest.raises(ValueError, match="credible=True"):
        confusion_posterior(DOGS, draws=100).credible("accuracy")


def test_a_collapsed_classifier_has_bounds_where_its_scores_are_defined() -> None:
    posterior = confusion_posterior([[30, 0], [30, 0]], draws=5_000, credible=True)
    assert posterior.credible("precision", 1).value is None
    assert number(posterior.credible("recall", 1).low) > 0.0
    assert number(posterior.credible("recall", 0).high) < 1.0


def test_the_paired_gap_is_a_difference_of_dirichlet_shares() -> None:
    pairs = np.array([[5, 3], [40, 52]])
    found = paired_gap_posterior(pairs)
    joint = np.random.default_rng(9).dirichlet(pairs.ravel() + 0.5, 100_000)
    gap = joint[:, 2] - joint[:, 1]
    assert found.value == pytest.approx(gap.mean(), abs=5 * gap.std() / np.sqrt(100_000))
    assert found.sd == pytest.approx(gap.std(), rel=0.01)
    for bound, tail in zip((number(found.low), number(found.high)), TAILS, strict=True):
        assert np.mean(gap <= bound) == pytest.approx(tail, abs=0.003)


@pytest.mark.parametrize("correct", [0, 30])
def test_the_paired_gap_of_pairs_that_never_differ_is_centred_at_zero(correct: int) -> None:
    pairs = np.array([[30 - correct, 0], [0, correct]])
    found = paired_gap_posterior(pairs)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert -0.1 < number(found.low) < 0.0 < number(found.high) < 0.1


def test_the_unpaired_gap_adds_the_variances() -> None:
    other = np.array([[20, 31], [25, 25]])
    found = unpaired_gap_posterior(DOGS, other)
    first, second = accuracy_credible(DOGS), accuracy_credible(other)
    sd = np.hypot(number(first.sd), number(second.sd))
    difference = number(first.value) - number(second.value)
    assert found.value == pytest.approx(difference, abs=5 * sd / np.sqrt(DRAWS))
    assert found.sd == pytest.approx(sd, rel=0.01)
    assert number(found.low) == pytest.approx(difference - 1.96 * sd, abs=0.1 * sd)
