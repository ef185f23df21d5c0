"""The posterior of every score of a confusion matrix, as the TEA paper's Appendix H has it, without MCMC.

Model (Zhang, Wang & Zhao, ICTIR 2015): n ~ Mult(N, μ), μ ~ Dir(1); row j of the matrix ~ Mult(n_j, θ_j), θ_j ~ Dir(1).
The likelihood factorises, so the posterior is a product of M + 1 independent Dirichlets and can be sampled directly.

What is computed how:
    in closed form   recall (Beta), balanced accuracy, accuracy and specificity (Dirichlet-weighted means of Betas)
    by exact draws   precision, F1 and the macro averages of precision, specificity and F1
Only moments are kept. ``sd`` is the posterior's, as the paper prints it; the interval is the plug-in value ± 1.96 times
the sampling sd of ``delta``. Posterior quantiles and means are not printed: with many classes the flat prior pulls
recall towards 1/M, and with few images per class it makes the posterior itself too narrow for an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmark.report.statistics.delta_method import sampling_sd
from benchmark.report.statistics.estimate import (
    Estimate,
    Floats,
    Ints,
    checked_counts,
    clipped,
    listed,
    normal_quantile,
)
from benchmark.report.statistics.moments import Moments

#: Draws that are always made, and the Monte Carlo error (of a posterior mean) that more draws must reach.
MINIMUM_DRAWS = 400_000
TARGET_ERROR = 1e-4
PER_CLASS = ("recall", "precision", "specificity", "f1")
OVERALL = ("accuracy", "balanced_accuracy", "macro_precision", "macro_specificity", "macro_f1")
KIND = "± posterior sd; interval from the sampling sd"
#: Scores without a closed form, in the order of the rows that a block of draws has.
_SAMPLED = ("precision", "f1", "macro_precision", "macro_specificity", "macro_f1")


@dataclass(frozen=True)
class PosteriorEstimate(Estimate):
    """A score of a confusion matrix: plug-in value, posterior sd, interval plug-in ± 1.96 · sampling sd.

    Attributes:
        sampling_sd: of the plug-in value over repeated test sets, see ``delta.sampling_sd``.
        posterior_mean: for checks between engines; not for a table (see the module's first lines).
        monte_carlo_error: standard error of ``posterior_mean`` from finite draws; 0 for a closed form.
        sd_error: the same of ``sd``.
    """

    sampling_sd: float | None = None
    posterior_mean: float | None = None
    monte_carlo_error: float | None = None
    sd_error: float | None = None

    @property
    def interval_sd(self) -> float | None:
        """The sampling sd."""
        return self.sampling_sd


@dataclass(frozen=True)
class ConfusionPosterior:
    """Every score of one confusion matrix. Per class: one estimate per row; macro: the mean over classes with images.

    Attributes:
        draws: posterior draws behind the sampled scores (all chains together for NUTS).
        monte_carlo_error: the largest of all scores.
        engine: ``exact`` or ``nuts``.
        divergences: divergent NUTS transitions; None for the exact engine, which has none.
        note: classes that the macro scores leave out, and why.
    """

    recall: tuple[PosteriorEstimate, ...]
    precision: tuple[PosteriorEstimate, ...]
    specificity: tuple[PosteriorEstimate, ...]
    f1: tuple[PosteriorEstimate, ...]
    accuracy: PosteriorEstimate
    balanced_accuracy: PosteriorEstimate
    macro_precision: PosteriorEstimate
    macro_specificity: PosteriorEstimate
    macro_f1: PosteriorEstimate
    draws: int
    monte_carlo_error: float
    engine: str
    divergences: int | None
    note: str


def confusion_posterior(
    counts: ArrayLike,
    draws: int | None = None,
    seed: int = 0,
    engine: str = "exact",
    level: float = 0.95,
) -> ConfusionPosterior:
    """Value, posterior sd and interval of every score of a confusion matrix.

    Args:
        counts: [M, M] whole numbers; ``counts[j, k]`` images of class j were predicted to be k. M is at least 2.
        draws: exact engine: number of independent draws, by default max(400,000, (sd/1e-4)²) so that every Monte Carlo
            error is at most 1e-4; NUTS: draws per chain after tuning, by default 10,000 as in the paper. The exact
            engine's time grows with M² · draws.
        seed: same seed, same numbers.
        engine: ``exact`` (independent draws) or ``nuts`` (PyMC, 4 chains, 1,000 tuning draws each).
        level: of the intervals.

    A class without images has no row in the model: its recall, precision and F1 are None with a note, and the macro
    scores are means over the other classes.

    Raises:
        ValueError: not a square table of counts, no images, fewer than two classes, unknown engine, no draws.
    Source: TEA paper, Appendix H; Zhang, Wang & Zhao (ICTIR 2015), section 3.
    """
    table = _checked_table(counts)
    if draws is not None and draws < 1:
        raise ValueError(f"The number of draws must be at least 1; got {draws}.")
    values = plug_in(table)
    moments, divergences = closed_form(table), None
    if engine == "exact":
        sampled, made = sampled_moments(table, values, draws, seed)
        moments.update(sampled)
    elif engine == "nuts":
        from benchmark.report.statistics.posterior_nuts import (
            nuts_moments,  # PyMC takes seconds to import
        )

        moments, made, divergences = nuts_moments(table, 10_000 if draws is None else draws, seed)
    else:
        raise ValueError(f'The engine is "exact" or "nuts"; got {engine!r}.')
    return _assembled(table, values, moments, made, engine, divergences, level)


def accuracy_posterior(counts: ArrayLike, level: float = 0.95) -> PosteriorEstimate:
    """The accuracy alone, as ``confusion_posterior`` has it: its moments are exact, so nothing is drawn."""
    table = _checked_table(counts)
    sampling = float(sampling_sd(table)["accuracy"][0])
    return _estimate(
        float(plug_in(table)["accuracy"][0]), closed_form(table)["accuracy"], sampling, 0, level, ""
    )


def _checked_table(counts: ArrayLike) -> Ints:
    table = checked_counts(counts, "counts of the confusion matrix")
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(
            f"A confusion matrix is square, [true class, predicted class]; got shape {table.shape}."
        )
    if len(table) < 2:
        raise ValueError(
            "A confusion matrix needs at least two classes; with one, every prediction is right."
        )
    if not table.any():
        raise ValueError("The confusion matrix holds no images; there is nothing to estimate from.")
    return table


def plug_in(table: Ints) -> dict[str, Floats]:
    """Every score's plug-in value, NaN where it is undefined; the macro scores are means over classes with images.

    A class with images that is never predicted has F1 0 and no precision, and then there is no macro precision:
    leaving such a class out would reward a collapsed classifier.
    """
    total, size, predicted = table.sum(), table.sum(1), table.sum(0)
    right = np.diag(table)
    present = size > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / size
        # Where every image belongs to one class, its precision is 1 whatever the classifier does.
        precision = np.where(present & (size < total), right / predicted, np.nan)
        specificity = 1.0 - (predicted - right) / (total - size)
        f1 = np.where(present, 2.0 * right / (size + predicted), np.nan)
    return {
        "recall": recall,
        "precision": precision,
        "specificity": specificity,
        "f1": f1,
        "accuracy": np.array([right.sum() / total]),
        "balanced_accuracy": recall[present].mean(keepdims=True),
        "macro_precision": precision[present].mean(keepdims=True),
        "macro_specificity": specificity[present].mean(keepdims=True),
        "macro_f1": f1[present].mean(keepdims=True),
    }


def closed_form(table: Ints) -> dict[str, Moments]:
    """Exact posterior moments of recall, specificity, accuracy and balanced accuracy; NaN where undefined."""
    size = table.sum(1)
    present = np.flatnonzero(size)
    classes = len(table)
    weight = size + 1.0
    with np.errstate(invalid="ignore"):
        mean = (table + 1.0) / (size + classes)[:, None]
        variance = mean * (1.0 - mean) / (size + classes + 1.0)[:, None]
    recall, recall_variance = np.diag(mean).copy(), np.diag(variance).copy()
    specificity = np.full((2, classes), np.nan)
    for j in range(classes):
        others = present[present != j]
        if len(others):
            specificity[:, j] = _weighted_mean_moments(
                weight[others], mean[others, j], variance[others, j]
            )
    accuracy = _weighted_mean_moments(weight[present], recall[present], recall_variance[present])
    balanced = recall[present].mean(), recall_variance[present].sum() / len(present) ** 2
    pairs = {
        "recall": (recall, recall_variance),
        "specificity": (1.0 - specificity[0], specificity[1]),
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
    }
    exact = {name: (np.atleast_1d(m), np.sqrt(np.atleast_1d(v))) for name, (m, v) in pairs.items()}
    return {
        name: Moments(m, sd, np.zeros(len(m)), np.zeros(len(m))) for name, (m, sd) in exact.items()
    }


def _weighted_mean_moments(weight: Floats, mean: Floats, variance: Floats) -> tuple[float, float]:
    """Mean and variance of Σ w_i x_i with w ~ Dir(weight), independent x_i of the given moments.

    From E[w_i w_k] = a_i (a_k + 1{i=k}) / (A (A + 1)), arranged so that nothing large is subtracted.
    """
    total = weight.sum()
    centre = float((weight * mean).sum() / total)
    between = (weight * (mean - centre) ** 2).sum() / total / (total + 1.0)
    within = (weight * (weight + 1.0) * variance).sum() / (total * (total + 1.0))
    return centre, float(between + within)


def sampled_moments(
    table: Ints, values: dict[str, Floats], draws: int | None, seed: int
) -> tuple[dict[str, Moments], int]:
    """Moments of the scores without a closed form, from independent exact draws, and how many draws were made.

    Without ``draws``: 400,000, and then as many more as the widest printed score needs for an error of 1e-4.
    """
    present = np.flatnonzero(table.sum(1))
    centre = np.concatenate(
        [values[name][present] if name in PER_CLASS else values[name] for name in _SAMPLED]
    )
    printed = np.isfinite(centre)
    # Sums are taken about the plug-in value: in single precision the square of a small deviation is accurate.
    shift = np.where(printed, centre, 0.5).astype(np.float32)[:, None]
    sums, squares, made = np.zeros(len(shift)), np.zeros(len(shift)), 0
    wanted = MINIMUM_DRAWS if draws is None else draws
    generator, rows = np.random.default_rng(seed), table[present]
    # A block of gammas fits the cache, and its memory is asked for once: both are worth a quarter of the time.
    block = max(100, min(4_000, 400_000 // rows.size))
    gamma, weight = (
        np.empty((*rows.shape, block), np.float32),
        np.empty((len(rows), block), np.float32),
    )
    while made < wanted:
        now = min(block, wanted - made)
        scores = _draw(generator, rows, present, gamma[..., :now], weight[:, :now])
        scores -= shift
        sums += scores.sum(axis=1, dtype=np.float64)
        squares += np.einsum("ij,ij->i", scores, scores)
        made += scores.shape[1]
        if made == wanted and draws is None:
            widest = (squares / made - (sums / made) ** 2)[printed].max()
            wanted = max(wanted, math.ceil(widest / TARGET_ERROR**2))
    offset = sums / made
    mean, sd = shift[:, 0] + offset, np.sqrt(np.maximum(squares / made - offset**2, 0.0))
    return _unpacked(mean, sd, made, present, len(table)), made


def _unpacked(
    mean: Floats, sd: Floats, made: int, present: Ints, classes: int
) -> dict[str, Moments]:
    moments, at = {}, 0
    for name in _SAMPLED:
        where = present if name in PER_CLASS else np.array([0])
        stack = np.full((2, classes if name in PER_CLASS else 1), np.nan)
        stack[:, where] = mean[at : at + len(where)], sd[at : at + len(where)]
        moments[name] = Moments(
            stack[0], stack[1], stack[1] / math.sqrt(made), stack[1] / math.sqrt(2.0 * made)
        )
        at += len(where)
    return moments


def _draw(
    generator: np.random.Generator,
    rows: Ints,
    present: Ints,
    gamma: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """[scores, block]: a block of posterior draws of the scores of ``_SAMPLED``; overwrites ``gamma`` and ``weight``.

    Gammas are nearly all of the work, so they are drawn in single precision; the error of that, 1e-7 per draw, is far
    below the Monte Carlo error. Scores do not change when all of μ is scaled, so μ stays unnormalised.
    """
    for i, row in enumerate(rows):
        for k, count in enumerate(row):
            generator.standard_gamma(count + 1.0, out=gamma[i, k], dtype=np.float32)
        _row_weight(generator, int(row.sum()), gamma[i], weight[i])
    gamma *= weight[:, None]
    return _scores(gamma, present)


def _row_weight(
    generator: np.random.Generator, size: int, gamma: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Fill ``out`` with μ_i / Σ_k γ_ik, so that γ_ik · out is μ_i θ_ik, with μ_i ~ Gamma(size + 1).

    A Dirichlet's sum G ~ Gamma(size + M) is independent of its direction θ, and Gamma(size + 1) is G · Beta(size + 1,
    M − 1). For few classes that Beta, a product of powers of uniforms, is cheaper than one more gamma.
    """
    classes, block = gamma.shape
    if classes > 4:
        generator.standard_gamma(size + 1.0, out=out, dtype=np.float32)
        out /= gamma.sum(axis=0)
        return
    out.fill(0.0)
    for k in range(1, classes):
        out -= generator.standard_exponential(block, dtype=np.float32) * np.float32(
            1.0 / (size + k)
        )
    np.exp(out, out=out)


def _scores(joint: NDArray[np.float32], present: Ints) -> NDArray[np.float32]:
    """The scores of ``_SAMPLED``, [2K + 3, block], from μ_i θ_ik in [K, M, block]."""
    many, _, block = joint.shape
    scores = np.empty((2 * many + 3, block), np.float32)
    size, predicted = joint.sum(axis=1), joint.sum(axis=0)[present]
    right = joint[np.arange(many), present]
    np.divide(right, predicted, out=scores[:many])
    np.divide(2.0 * right, size + predicted, out=scores[many : 2 * many])
    np.mean(scores[:many], axis=0, out=scores[-3])
    if many > 1:
        np.mean(1.0 - (predicted - right) / (size.sum(axis=0) - size), axis=0, out=scores[-2])
    else:
        scores[-2] = 0.5  # undefined and not printed
    np.mean(scores[many : 2 * many], axis=0, out=scores[-1])
    return scores


def _assembled(
    table: Ints,
    values: dict[str, Floats],
    moments: dict[str, Moments],
    draws: int,
    engine: str,
    divergences: int | None,
    level: float,
) -> ConfusionPosterior:
    absent = np.flatnonzero(table.sum(1) == 0)
    note = (
        f"no test images of class {listed(list(absent))}; macro scores leave it out"
        if len(absent)
        else ""
    )
    sampling = sampling_sd(table)
    scores: dict[str, list[PosteriorEstimate]] = {}
    for name in (*PER_CLASS, *OVERALL):
        scores[name] = [
            _estimate(
                float(value),
                moments[name],
                float(sampling[name][j]),
                j,
                level,
                note if name.startswith(("macro", "balanced")) else "",
            )
            if np.isfinite(value)
            else PosteriorEstimate(None, None, None, None, "none", _why_undefined(table, name, j))
            for j, value in enumerate(values[name])
        ]
    error = max(score.monte_carlo_error or 0.0 for group in scores.values() for score in group)
    return ConfusionPosterior(
        recall=tuple(scores["recall"]),
        precision=tuple(scores["precision"]),
        specificity=tuple(scores["specificity"]),
        f1=tuple(scores["f1"]),
        accuracy=scores["accuracy"][0],
        balanced_accuracy=scores["balanced_accuracy"][0],
        macro_precision=scores["macro_precision"][0],
        macro_specificity=scores["macro_specificity"][0],
        macro_f1=scores["macro_f1"][0],
        draws=draws,
        monte_carlo_error=error,
        engine=engine,
        divergences=divergences,
        note=note,
    )


def _estimate(
    value: float, moments: Moments, sampling: float, j: int, level: float, note: str
) -> PosteriorEstimate:
    mean, sd, error, sd_error = (
        float(m[j]) for m in (moments.mean, moments.sd, moments.error, moments.sd_error)
    )
    half = normal_quantile(level) * sampling
    low, high = clipped(value - half, value + half, (0.0, 1.0))
    return PosteriorEstimate(value, sd, low, high, KIND, note, sampling, mean, error, sd_error)


def _why_undefined(table: Ints, name: str, j: int) -> str:
    size, predicted = table.sum(1), table.sum(0)
    if name in PER_CLASS:
        if size[j] == 0 and name != "specificity":
            return f"no test images of class {j}"
        if size[j] == size.sum():
            return f"all test images are of class {j}"
        return f"class {j} is never predicted"
    if (size > 0).sum() == 1:
        return f"all test images are of class {int(np.argmax(size))}"
    never = np.flatnonzero((size > 0) & (predicted == 0))
    return f"class {listed(list(never))} {'is' if len(never) == 1 else 'are'} never predicted"
