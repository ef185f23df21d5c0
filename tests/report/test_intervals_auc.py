"""AUC and DeLong's variance against the O(n²) definition and scikit-learn; missing intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from benchmark.report.statistics.delong import auc_contributions, auc_interval, auc_one_vs_rest
from tests.support.messages import mentions


def compared(label: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return AUC, V10 and V01 by comparing every pair: 1 for a larger score, ½ for a tie."""
    x, y = scores[label == 1][:, None], scores[label == 0][None]
    wins = (x > y) + 0.5 * (x == y)
    return float(wins.mean()), wins.mean(1), wins.mean(0)


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("pull", [0.3, 1.0, 2.0])
def test_delong_agrees_with_comparing_every_pair(digits: int | None, pull: float) -> None:
    random = np.random.default_rng(1)
    label = np.repeat([1, 0, 1], [25, 40, 12])
    scores = random.normal(size=len(label)) + pull * label
    scores = scores if digits is None else scores.round(digits)
    area, hits, misses = compared(label, scores)
    variance = hits.var(ddof=1) / 37 + misses.var(ddof=1) / 40
    found = auc_interval(label, scores)
    assert found.value == pytest.approx(area, abs=1e-14)
    assert found.value == pytest.approx(roc_auc_score(label, scores), abs=1e-14)
    assert found.sd == pytest.approx(np.sqrt(variance), abs=1e-14)
    assert auc_interval(label.astype(bool), scores) == found


def test_only_the_order_of_scores_and_no_order_of_images_matters() -> None:
    random = np.random.default_rng(2)
    label = random.random(200) < 0.4
    scores = (random.normal(size=200) + label).round(1)
    expected = auc_interval(label, scores)
    shuffled = random.permutation(200)
    for other_label, other_scores in (
        (label[shuffled], scores[shuffled]),
        (label, (scores * 10).round().astype(np.int32)),
        (~label, -scores),
    ):
        same = auc_interval(other_label, other_scores)
        assert (same.value, same.sd) == pytest.approx((expected.value, expected.sd), abs=1e-14)
    # The largest scores are infinite and therefore tie; they tie on the other side as well.
    infinite = auc_interval(label, np.where(scores > 2.0, np.inf, np.exp(scores)))
    capped = auc_interval(label, np.minimum(scores, 2.05))
    assert (infinite.value, infinite.sd) == pytest.approx((capped.value, capped.sd), abs=1e-14)


def test_the_interval_is_delongs_on_the_logit_scale_with_welchs_degrees_of_freedom() -> None:
    random = np.random.default_rng(3)
    label = np.repeat([1, 0], [30, 80])
    scores = random.normal(size=110) + 1.2 * label
    area, hits, misses = compared(label, scores)
    a, b = hits.var(ddof=1) / 30, misses.var(ddof=1) / 80
    found = auc_interval(label, scores)
    assert found.value == pytest.approx(area) and found.sd == pytest.approx(np.sqrt(a + b))
    half = (
        stats.t.ppf(0.975, (a + b) ** 2 / (a**2 / 29 + b**2 / 79))
        * np.sqrt(a + b)
        / (area * (1 - area))
    )
    logit = np.log(area / (1 - area))
    assert found.low == pytest.approx(1 / (1 + np.exp(half - logit)))
    assert found.high == pytest.approx(1 / (1 + np.exp(-half - logit)))
    assert found.kind == "DeLong, logit scale"


def test_the_mean_over_classes_knows_that_they_share_images() -> None:
    random = np.random.default_rng(4)
    label = random.integers(0, 3, 150)
    scores = random.normal(size=(150, 3))
    scores[np.arange(150), label] += 1.0
    per_class, mean = auc_one_vs_rest(label, scores)
    influence = np.zeros((3, 150))
    for k in range(3):
        own = (label == k).astype(int)
        area, hits, misses = compared(own, scores[:, k])
        assert per_class[k].value == pytest.approx(area)
        influence[k, own == 1] = (hits - area) / np.sqrt(own.sum() * (own.sum() - 1.0))
        rest = len(own) - own.sum()
        influence[k, own == 0] = (misses - area) / np.sqrt(rest * (rest - 1.0))
    assert mean.value == pytest.approx(np.mean([e.value for e in per_class]))
    assert mean.sd == pytest.approx(np.sqrt((influence @ influence.T).mean()))
    # Two classes with opposite scores have the same AUC, so their mean is as uncertain as one.
    two = auc_one_vs_rest(label > 0, np.stack([-scores[:, 1], scores[:, 1]], 1))
    one = auc_interval(label > 0, scores[:, 1])
    assert two[1].sd == pytest.approx(one.sd)
    assert two[1].low == pytest.approx(one.low)


@pytest.mark.parametrize(
    ("label", "scores", "value", "words"),
    [
        ([1, 1, 0, 0, 0], [7, 7, 7, 7, 7], 0.5, "constant"),
        ([1, 0, 0, 0], [2.5, 1, 2, 3], 2 / 3, "single image"),
        ([1, 1, 1], [1, 2, 3], None, "no image outside the class"),
        ([0, 0], [1, 2], None, "no image of the class"),
    ],
)
def test_where_there_is_no_interval_a_note_says_why(
    label: list, scores: list, value: float | None, words: str
) -> None:
    found = auc_interval(label, scores)
    assert found.value == (None if value is None else pytest.approx(value))
    assert (found.sd, found.low, found.high, found.kind) == (None, None, None, "none")
    assert words in found.note


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (5, 30), (40, 20)])
def test_a_perfect_auc_has_the_bound_of_as_many_independent_pairs(
    positives: int, negatives: int
) -> None:
    label = np.repeat([1, 0], [positives, negatives])
    found = auc_interval(label, label)
    pairs = min(positives, negatives)
    exact = stats.binomtest(pairs, pairs).proportion_ci(0.95, "exact")
    assert (found.value, found.sd, found.high) == (1.0, None, 1.0)
    assert found.low == pytest.approx(exact.low)
    reverse = auc_interval(label, 1 - label)
    assert (reverse.value, reverse.low) == (0.0, 0.0)
    assert reverse.high == pytest.approx(1 - exact.low)


def test_contributions_are_those_behind_the_variance() -> None:
    random = np.random.default_rng(6)
    label = random.integers(0, 3, 150)
    scores = random.normal(size=(150, 3))
    scores[np.arange(150), label] += 1.0
    per_class, mean = auc_one_vs_rest(label, scores)
    contributions, of_mean = auc_contributions(label, scores)
    for estimate, found in zip(per_class, contributions, strict=True):
        assert found is not None
        assert estimate.sd == pytest.approx(np.sqrt((found.values**2).sum()))
    assert of_mean is not None
    assert mean.sd == pytest.approx(np.sqrt((of_mean.values**2).sum()))
    lonely, none = auc_contributions([0, 1, 1], scores[:3, :2])
    assert (lonely[0], none) == (None, None)


def test_the_mean_names_the_classes_it_leaves_out() -> None:
    random = np.random.default_rng(5)
    label, scores = np.repeat([0, 2], 20), random.random((40, 3))
    per_class, mean = auc_one_vs_rest(label, scores)
    assert per_class[1].value is None and mentions(mean.note, "without", "class 1")
    assert mean.low is not None
    assert mentions(auc_one_vs_rest([1, 1], scores[:2])[1].note, "undefined", "one class")
    single = auc_one_vs_rest([0, 1, 1], scores[:3])[1]
    assert single.value is not None and single.low is None
    assert "single image" in single.note


@pytest.mark.parametrize(
    ("label", "scores", "words"),
    [
        ([1, 0, 1, 0], [1.0, float("nan"), 2.0, 3.0], "NaN"),
        ([1, 0, 2, 0], [1.0, 1.0, 2.0, 3.0], "0 or 1"),
        ([1, 0, 1], [1.0, 1.0], "3 labels"),
        ([], [], "at least one image"),
        ([1, 0, 1, 0], ["a", "b", "c", "d"], "numbers"),
    ],
)
def test_bad_input_is_refused(label: list, scores: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        auc_interval(label, scores)


def test_bad_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="class numbers from 0 to 1"):
        auc_one_vs_rest([0, 2], [[0.1, 0.9], [0.4, 0.6]])
    with pytest.raises(ValueError, match="labels \\[n\\]"):
        auc_one_vs_rest([0, 1], [0.1, 0.9])
    with pytest.raises(ValueError, match="must be equal"):
        auc_interval([0, 1], [[0.1, 0.9]])
