"""Scores of a confusion matrix against other methods.

These are closed forms, quadrature, a slow direct sampler, the TEA paper's Table 3, and NUTS.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog
from scipy.special import roots_jacobi

from benchmark.report.statistics.delta_method import sampling_sd
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS, plug_in
from benchmark.report.statistics.posterior import (
    MINIMUM_DRAWS,
    ConfusionPosterior,
    PosteriorEstimate,
    accuracy_posterior,
    confusion_posterior,
)

XRAY = np.array([[280, 60, 66], [200, 907, 188], [56, 156, 1303]])
DOGS = np.array([[41, 10], [8, 42]])
FIVE = np.array(
    [[30, 1, 2, 0, 5], [4, 20, 0, 0, 3], [0, 0, 0, 0, 0], [1, 2, 3, 12, 0], [9, 9, 2, 1, 40]]
)


def every(posterior: ConfusionPosterior) -> dict[tuple[str, int], PosteriorEstimate]:
    scores = {(name, j): e for name in PER_CLASS for j, e in enumerate(getattr(posterior, name))}
    return scores | {(name, 0): getattr(posterior, name) for name in OVERALL}


def number(value: float | None) -> float:
    assert value is not None
    return value


def from_definition(mu: np.ndarray, theta: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """Return every score from μ [..., M] and θ [..., M, M] as written in Appendix H."""
    classes = mu.shape[-1]
    scores: dict[tuple[str, int], np.ndarray] = {}
    for j in range(classes):
        q = sum(mu[..., i] * theta[..., i, j] for i in range(classes))
        right = mu[..., j] * theta[..., j, j]
        scores["recall", j] = theta[..., j, j]
        scores["precision", j] = right / q
        scores["specificity", j] = 1 - (q - right) / (1 - mu[..., j])
        scores["f1", j] = 2 * right / (mu[..., j] + q)
    scores["accuracy", 0] = np.einsum("...j,...jj->...", mu, theta)
    parts = {
        "balanced_accuracy": "recall",
        "macro_precision": "precision",
        "macro_specificity": "specificity",
        "macro_f1": "f1",
    }
    for name, part in parts.items():
        scores[name, 0] = np.mean([scores[part, j] for j in range(classes)], axis=0)
    return scores


def beta_rule(a: float, b: float, nodes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature for E f(X), X ~ Beta(a, b)."""
    x, w = roots_jacobi(nodes, b - 1, a - 1)
    return (x + 1) / 2, w / w.sum()


@pytest.mark.parametrize("table", [DOGS, np.array([[3, 1], [0, 2]]), np.array([[50, 0], [0, 51]])])
def test_two_classes_agree_with_quadrature(table: np.ndarray) -> None:
    size = table.sum(1)
    rules = [
        beta_rule(size[0] + 1, size[1] + 1),
        *(beta_rule(row[0] + 1, row[1] + 1) for row in table),
    ]
    first, a, b = (g.ravel() for g in np.meshgrid(*(x for x, _ in rules), indexing="ij"))
    weight = np.prod(np.meshgrid(*(w for _, w in rules), indexing="ij"), axis=0).ravel()
    mu = np.stack([first, 1 - first], -1)
    theta = np.stack([np.stack([a, 1 - a], -1), np.stack([b, 1 - b], -1)], -2)
    found = every(confusion_posterior(table, draws=300_000))
    for key, values in from_definition(mu, theta).items():
        mean = float((weight * values).sum())
        sd = float(np.sqrt((weight * (values - mean) ** 2).sum()))
        error, sd_error = number(found[key].monte_carlo_error), number(found[key].sd_error)
        assert number(found[key].posterior_mean) == pytest.approx(mean, abs=4.5 * error + 1e-7), key
        # sd_error supposes a normal posterior; those at the edge have heavier tails.
        assert number(found[key].sd) == pytest.approx(sd, abs=7 * sd_error + 1e-7), key


@pytest.mark.parametrize(
    "table", [XRAY, FIVE[[0, 1, 3, 4]][:, [0, 1, 3, 4]], np.diag([9, 2, 7, 4, 6]) + 1]
)
def test_more_classes_agree_with_a_slow_direct_sampler(table: np.ndarray) -> None:
    random, draws = np.random.default_rng(3), 100_000
    mu = random.dirichlet(table.sum(1) + 1, draws)
    theta = np.stack([random.dirichlet(row + 1, draws) for row in table], axis=1)
    found = every(confusion_posterior(table, draws=200_000))
    for key, values in from_definition(mu, theta).items():
        sd = values.std()
        error = np.hypot(sd / np.sqrt(draws), number(found[key].monte_carlo_error))
        assert number(found[key].posterior_mean) == pytest.approx(values.mean(), abs=4.5 * error), (
            key
        )
        sd_error = np.hypot(sd / np.sqrt(2 * draws), number(found[key].sd_error))
        assert number(found[key].sd) == pytest.approx(sd, abs=6 * sd_error), key


def test_recall_is_a_beta_and_balanced_accuracy_adds_their_variances() -> None:
    posterior = confusion_posterior(XRAY, draws=1_000)
    betas = [stats.beta(row[j] + 1, row.sum() - row[j] + 2) for j, row in enumerate(XRAY)]
    for score, beta in zip(posterior.recall, betas, strict=True):
        assert score.posterior_mean == pytest.approx(beta.mean(), abs=1e-12)
        assert score.sd == pytest.approx(beta.std(), abs=1e-12)
        assert score.monte_carlo_error == 0.0
    assert posterior.balanced_accuracy.sd == pytest.approx(
        np.sqrt(sum(b.var() for b in betas)) / 3, abs=1e-12
    )


# Table 3 of the TEA paper, in per cent: sensitivity and specificity of the three classes, their F1,
# then macro F1, each with the printed ±. The caption says 406 normal images, but no matrix with 406
# gives six of these lines (the teacher's sensitivity 88, specificity 89 and F1 64 need at most 382,
# the line of RRR at least 352); 370 fits all twelve.
SIZES = (370, 1295, 1515)
TABLE_3 = {
    "standard classifier": "57 3 87 1 29 1 96 1 92 1 55 1 | 44 2 43 2 76 1 | 55 1",
    "Multi-task U-Net": "34 2 96 0 8 1 82 1 78 1 20 1 | 42 3 12 1 59 1 | 37 1",
    "AG-Sononet": "16 2 82 1 18 1 94 1 82 1 38 1 | 12 2 28 2 66 1 | 36 1",
    "ISNet": "57 3 94 1 93 1 83 1 84 1 100 0 | 56 2 86 1 91 1 | 77 1",
    "RRR": "57 3 79 1 45 1 89 1 75 1 74 1 | 36 2 55 1 74 1 | 55 1",
    "GAIN": "22 2 88 1 41 1 82 1 80 1 60 1 | 20 2 49 1 71 1 | 47 1",
    "ViT-B/16": "67 2 76 1 42 1 77 1 49 1 67 1 | 38 2 47 1 53 1 | 46 1",
    "TEA teacher": "88 2 89 1 59 1 94 1 86 1 78 1 | 64 2 70 1 82 1 | 72 1",
    "Grad-CAM & out.": "48 3 98 0 11 1 99 0 97 0 21 1 | 58 2 20 1 68 1 | 49 1",
    "student representations": "66 2 95 0 9 1 99 0 94 1 25 1 | 66 2 16 1 68 1 | 50 1",
    "student outputs": "76 2 94 0 18 1 99 0 91 1 34 1 | 68 2 30 2 69 1 | 56 1",
    "TEA student": "69 2 91 1 70 1 89 1 86 1 85 1 | 59 2 75 1 85 1 | 73 1",
}


def printed(method: str) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """Value and ± of each score of one line of the table."""
    rates, f1, macro = ([int(word) for word in part.split()] for part in TABLE_3[method].split("|"))
    keys = [(name, j) for j in range(3) for name in ("recall", "specificity")]
    keys += [("f1", j) for j in range(3)] + [("macro_f1", 0)]
    numbers = rates + f1 + macro
    return dict(zip(keys, numbers[::2], strict=True)), dict(zip(keys, numbers[1::2], strict=True))


def matrix_behind(values: dict[tuple[str, int], int]) -> np.ndarray:
    """Return a confusion matrix whose scores round to the printed ones, with the widest margin.

    That a score lies within ± half a point of a number is linear in the cells (for F1:
    2 C_jj ≥ f (n_j + q_j)), so a linear program finds the cells, first for narrower limits. Macro
    F1 is no condition and is left to be checked.
    """
    size = np.array(SIZES, dtype=float)
    rows = np.kron(np.eye(3), np.ones(3))
    for half in (0.2, 0.3, 0.4, 0.45, 0.48, 0.5, 0.52):
        above, limits = [], []
        for (name, j), value in values.items():
            right, row, column = np.zeros((3, 3, 3))
            right[j, j], row[j], column[:, j] = 1.0, 1.0, 1.0
            for sign, bound in ((1.0, (value + half) / 100.0), (-1.0, (value - half) / 100.0)):
                if name == "recall":
                    above.append(sign * right.ravel())
                    limits.append(sign * bound * size[j])
                elif name == "specificity":
                    above.append(sign * ((1.0 - row) * (1.0 - column)).ravel())
                    limits.append(sign * bound * (size.sum() - size[j]))
                elif name == "f1":
                    above.append(sign * (2.0 * right - bound * (row + column)).ravel())
                    limits.append(0.0)
        solved = linprog(np.zeros(9), above, limits, rows, size, bounds=(0, None))
        if solved.success:
            return np.rint(solved.x).astype(int).reshape(3, 3)
    raise AssertionError("no confusion matrix has these scores")


@pytest.mark.parametrize("method", TABLE_3)
def test_the_papers_table_3_comes_out_of_a_confusion_matrix(method: str) -> None:
    values, deviations = printed(method)
    scores = every(confusion_posterior(matrix_behind(values), draws=50_000))
    for key, value in values.items():
        # Cells are rounded to whole images; macro F1 is not among the linear conditions.
        assert 100 * number(scores[key].value) == pytest.approx(
            value, abs=0.75 if key[0] == "macro_f1" else 0.55
        ), key
        assert 100 * number(scores[key].sd) == pytest.approx(deviations[key], abs=0.55), key


def test_sampling_sd_is_the_delta_method_at_smoothed_counts() -> None:
    for table in (XRAY, DOGS, FIVE):
        classes = len(table)
        extra = np.where(np.eye(classes) == 1, 1.0, 1.0 / (classes - 1))
        size = table.sum(1, keepdims=True)
        smooth = (table + extra) * size / (size + 2.0)
        variance = {name: np.zeros_like(value) for name, value in plug_in(smooth).items()}  # type: ignore[arg-type]
        for cell in np.argwhere(smooth > 0):
            up, down = smooth.copy(), smooth.copy()
            up[tuple(cell)] += 1e-4
            down[tuple(cell)] -= 1e-4
            plus, minus = plug_in(up), plug_in(down)  # type: ignore[arg-type]
            for name in variance:
                variance[name] += smooth[tuple(cell)] * ((plus[name] - minus[name]) / 2e-4) ** 2
        for name, found in sampling_sd(table).items():
            defined = np.isfinite(plug_in(table)[name])
            np.testing.assert_allclose(
                found[defined], np.sqrt(variance[name][defined]), rtol=1e-5, err_msg=name
            )


def test_the_interval_is_made_from_the_sampling_sd_and_stays_in_range() -> None:
    for table in (XRAY, DOGS, np.diag([30, 40])):
        for score in every(confusion_posterior(table, draws=1_000)).values():
            value, sampling = number(score.value), number(score.sampling_sd)
            assert score.interval_sd == sampling > 0
            assert score.low == pytest.approx(max(0.0, value - stats.norm.ppf(0.975) * sampling))
            assert score.high == pytest.approx(min(1.0, value + stats.norm.ppf(0.975) * sampling))


def test_monte_carlo_error_is_reported_and_below_its_target() -> None:
    wide = confusion_posterior(np.array([[12, 4], [5, 15]]))
    assert wide.draws > MINIMUM_DRAWS
    assert 0.9e-4 < wide.monte_carlo_error <= 1.001e-4
    fixed = confusion_posterior(DOGS, draws=10_000)
    assert fixed.draws == 10_000
    assert fixed.macro_f1.monte_carlo_error == pytest.approx(number(fixed.macro_f1.sd) / 100)
    assert confusion_posterior(DOGS).draws >= MINIMUM_DRAWS


def test_a_seed_repeats_and_another_differs_within_the_error() -> None:
    one, again, other = (confusion_posterior(XRAY, draws=50_000, seed=seed) for seed in (1, 1, 2))
    assert one == again
    difference = number(one.macro_f1.posterior_mean) - number(other.macro_f1.posterior_mean)
    assert 0 < abs(difference) < 6 * number(one.macro_f1.monte_carlo_error)


def test_a_class_without_images_is_left_out_and_named() -> None:
    posterior = confusion_posterior(FIVE, draws=20_000)
    for score in (posterior.recall[2], posterior.precision[2], posterior.f1[2]):
        assert (score.value, score.low, score.note) == (None, None, "no test images of class 2")
    assert number(posterior.specificity[2].value) == pytest.approx(1 - 7 / 144)
    assert "class 2" in posterior.note and "class 2" in posterior.macro_f1.note
    present = [0, 1, 3, 4]
    recalls = [number(posterior.recall[j].value) for j in present]
    assert posterior.balanced_accuracy.value == pytest.approx(np.mean(recalls))
    # The model without the empty row, drawn slowly: predictions of the absent class stay possible.
    random = np.random.default_rng(0)
    mu = random.dirichlet(FIVE.sum(1)[present] + 1, 50_000)
    theta = np.stack([random.dirichlet(row + 1, 50_000) for row in FIVE[present]], axis=1)
    predicted = np.einsum("dk,dkm->dm", mu, theta)[:, present]
    right = mu * theta[:, np.arange(4), present]
    f1 = (2 * right / (mu + predicted)).mean(1)
    assert posterior.macro_f1.sd == pytest.approx(f1.std(), rel=0.03)
    assert posterior.macro_f1.posterior_mean == pytest.approx(f1.mean(), abs=0.002)


def test_degenerate_tables_give_notes_and_never_nan() -> None:
    collapsed = confusion_posterior([[30, 0, 0], [30, 0, 0], [30, 0, 0]], draws=2_000)
    assert (
        collapsed.precision[1].value is None
        and "class 1 is never predicted" in collapsed.precision[1].note
    )
    assert collapsed.macro_precision.value is None and "1 and 2" in collapsed.macro_precision.note
    assert collapsed.f1[1].value == 0.0 and collapsed.macro_f1.value == pytest.approx(0.5 / 3)
    single = confusion_posterior([[0, 0], [3, 9]], draws=2_000)
    assert single.specificity[1].value is None and single.macro_specificity.value is None
    assert single.precision[1].note == "all test images are of class 1"
    assert single.accuracy.value == single.balanced_accuracy.value == 0.75
    perfect = confusion_posterior(np.diag([20, 30, 0]), draws=2_000)
    assert (
        perfect.macro_f1.value == 1.0
        and 0.8 < number(perfect.macro_f1.low) < 1.0 == perfect.macro_f1.high
    )
    random = np.random.default_rng(0)
    for _ in range(40):
        table = random.integers(0, 3, (3, 3)) * random.integers(0, 2, (3, 3))
        if table.any():
            for score in every(confusion_posterior(table, draws=500)).values():
                numbers = [
                    getattr(score, f.name) for f in fields(score) if f.name not in ("kind", "note")
                ]
                assert (None in numbers) == (score.value is None)
                assert all(x is None or np.isfinite(x) for x in numbers)
                assert score.value is not None or score.note


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], "empty"),
        ([[1, 2, 3], [4, 5, 6]], "square"),
        ([[5]], "at least two classes"),
        ([[0, 0], [0, 0]], "no images"),
        ([[1, -1], [0, 2]], "negative"),
        ([[1, float("nan")], [0, 2]], "NaN"),
        ([[1, 0.5], [0, 2]], "fractions"),
        ([["a", "b"], ["c", "d"]], "numbers"),
    ],
)
def test_bad_counts_are_refused(counts: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        confusion_posterior(counts)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match='"exact" or "nuts"'):
        confusion_posterior(DOGS, engine="gibbs")
    with pytest.raises(ValueError, match="at least 1"):
        confusion_posterior(DOGS, draws=0)


@pytest.mark.slow
@pytest.mark.parametrize("table", [DOGS, FIVE])
def test_nuts_finds_the_same_posterior(table: np.ndarray) -> None:
    pytest.importorskip("pymc")
    exact_posterior = confusion_posterior(table, credible=True)
    exact = every(exact_posterior)
    posterior = confusion_posterior(table, draws=1_000, engine="nuts")
    assert posterior.engine == "nuts" and posterior.divergences == 0 and posterior.draws == 4_000
    for key, score in every(posterior).items():
        if score.value is None:
            assert exact[key].value is None
            continue
        error = number(score.monte_carlo_error)
        assert number(score.posterior_mean) == pytest.approx(
            number(exact[key].posterior_mean), abs=5 * error
        ), key
        assert number(score.sd) == pytest.approx(
            number(exact[key].sd), abs=5 * number(score.sd_error)
        ), key
        # A bound from 4,000 draws has an error of 0.05 sd, more if they are correlated.
        bounds = [one.credible(*key) for one in (posterior, exact_posterior)]
        tolerance = 0.3 * number(score.sd)
        assert bounds[0].low == pytest.approx(number(bounds[1].low), abs=tolerance), key
        assert bounds[0].high == pytest.approx(number(bounds[1].high), abs=tolerance), key


@pytest.mark.parametrize("seed", range(4))
def test_the_accuracy_alone_is_that_of_the_whole_posterior(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(0, 30, (4, 4)) * (random.random((4, 1)) < 0.8)
    table[0, 0] += 1
    alone = accuracy_posterior(table)
    whole = confusion_posterior(table, draws=100).accuracy
    for name in ("value", "sd", "low", "high", "sampling_sd", "posterior_mean"):
        assert getattr(alone, name) == pytest.approx(getattr(whole, name)), name
