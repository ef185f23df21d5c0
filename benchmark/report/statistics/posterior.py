"""The posterior of every score of a confusion matrix, as in the TEA paper's Appendix H.

Model (Zhang, Wang & Zhao, ICTIR 2015): n ~ Mult(N, μ), μ ~ Dir(1); row j of the matrix is
Mult(n_j, θ_j), θ_j ~ Dir(1). The likelihood factorises, so the posterior is a product of M + 1
independent Dirichlets, which can be sampled directly without MCMC.

Recall (a Beta), balanced accuracy, accuracy and specificity (Dirichlet-weighted means of Betas) are
computed in closed form; precision, F1 and the macro averages of precision, specificity and F1 from
independent draws. Only moments are kept. ``sd`` is the posterior's, as the paper prints it; the
interval is the plug-in value ± 1.96 times the sampling sd of ``delta_method``. Posterior quantiles
(``credible``) and means are printed on request only: with many classes the flat prior pulls recall
towards 1/M, and with few images per class it makes the posterior itself too narrow for an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmark.report.statistics.credible import KIND as CREDIBLE
from benchmark.report.statistics.credible import accuracy_bounds, credible_bounds
from benchmark.report.statistics.delta_method import accuracy_sampling_sd, sampling_sd
from benchmark.report.statistics.estimate import (
    NORMAL_QUANTILE,
    Estimate,
    Floats,
    Ints,
    checked_counts,
    clipped,
    listed,
)
from benchmark.report.statistics.moments import Moments
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS, plug_in

#: Number of draws that are always made.
MINIMUM_DRAWS = 400_000
#: Monte Carlo error of a posterior mean at which no more draws are made.
TARGET_ERROR = 1e-4
#: Draws per chain of NUTS after tuning, as in the paper.
NUTS_DRAWS = 10_000
KIND = "plug-in ± 1.96 sampling sd"
#: Scores without a closed form, in the order of the rows of a block of draws.
_SAMPLED = ("precision", "f1", "macro_precision", "macro_specificity", "macro_f1")


@dataclass(frozen=True)
class PosteriorEstimate(Estimate):
    """A score of a confusion matrix: plug-in value, posterior sd, interval from the sampling sd.

    Attributes:
        sampling_sd: Standard deviation of the plug-in value over repeated test sets.
        posterior_mean: Mean of the posterior.
        monte_carlo_error: Standard error of ``posterior_mean`` from finite draws; 0 for a closed
            form.
        sd_error: The same of ``sd``.
    """

    is_posterior: bool = True

    sampling_sd: float | None = None
    posterior_mean: float | None = None
    monte_carlo_error: float | None = None
    sd_error: float | None = None

    @property
    def interval_sd(self) -> float | None:
        """The sampling sd, from which the interval is made."""
        return self.sampling_sd


@dataclass(frozen=True)
class ConfusionPosterior:
    """Every score of one confusion matrix.

    Attributes:
        recall: One estimate per class.
        precision: One estimate per class.
        specificity: One estimate per class.
        f1: One estimate per class.
        accuracy: Of all images.
        balanced_accuracy: Mean recall of the classes that have images.
        macro_precision: Mean over the classes that have images.
        macro_specificity: Mean over the classes that have images.
        macro_f1: Mean over the classes that have images.
        draws: Posterior draws behind the sampled scores; of all chains together for NUTS.
        monte_carlo_error: The largest one of all scores.
        engine: ``exact`` or ``nuts``.
        divergences: Divergent transitions of NUTS; None for the exact engine.
        note: The classes that the macro scores leave out, and why.
        bounds: Credible bounds of each score, [M, 2] or [1, 2]; None if they were not requested.
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
    bounds: Mapping[str, Floats] | None = field(default=None, compare=False)

    def credible(self, name: str, j: int = 0) -> Estimate:
        """Return posterior mean, posterior sd and credible interval of a score.

        Args:
            name: One of ``PER_CLASS`` or ``OVERALL``.
            j: The class of a score per class.

        Returns:
            The estimate without a value where the plug-in score is undefined.

        Raises:
            ValueError: The bounds were not requested.
        """
        if self.bounds is None:
            raise ValueError("Request credible bounds: confusion_posterior(…, credible=True).")
        found = getattr(self, name)
        plug_in_estimate: PosteriorEstimate = found[j] if name in PER_CLASS else found
        return _credible(plug_in_estimate, *self.bounds[name][j])


def confusion_posterior(
    counts: ArrayLike,
    draws: int | None = None,
    seed: int = 0,
    engine: str = "exact",
    *,
    credible: bool = False,
) -> ConfusionPosterior:
    """Return value, posterior sd and interval of every score of a confusion matrix.

    A class without images has no row in the model: its recall, precision and F1 are None with a
    note, and the macro scores are means over the other classes.

    Args:
        counts: [M, M] whole numbers, true class × predicted class, with M ≥ 2.
        draws: For the exact engine the number of independent draws, by default
            max(400,000, (sd/1e-4)²), so that every Monte Carlo error is at most 1e-4. Its time
            grows with M² · draws. For NUTS the draws per chain after tuning, by default 10,000 as
            in the paper.
        seed: Seed of the draws; equal seeds give equal results.
        engine: ``exact`` (independent draws) or ``nuts`` (PyMC, 4 chains, 1,000 tuning draws each).
        credible: Whether the bounds of 95 % credible intervals are computed, too.

    Raises:
        ValueError: Not a square table of counts, no images, fewer than two classes, an unknown
            engine, or no draws.

    Source: TEA paper, Appendix H; Zhang, Wang & Zhao (ICTIR 2015), section 3.
    """
    table = _checked_table(counts)
    if draws is not None and draws < 1:
        raise ValueError(f"The number of draws must be at least 1; got {draws}.")
    values = plug_in(table)
    moments = closed_form(table)
    divergences = None
    bounds: Mapping[str, Floats] | None = None
    if engine == "exact":
        sampled, made = sampled_moments(table, values, draws, seed)
        moments.update(sampled)
        bounds = credible_bounds(table, draws, seed) if credible else None
    elif engine == "nuts":
        # PyMC takes seconds to import.
        from benchmark.report.statistics.posterior_nuts import nuts_moments

        moments, bounds, made, divergences = nuts_moments(table, draws or NUTS_DRAWS, seed)
    else:
        raise ValueError(f'The engine is "exact" or "nuts"; got {engine!r}.')
    posterior = _assembled(table, values, moments, made, engine, divergences)
    return replace(posterior, bounds=bounds)


def accuracy_posterior(counts: ArrayLike) -> PosteriorEstimate:
    """Return the accuracy alone, as in ``confusion_posterior``, without drawing samples."""
    table = _checked_table(counts)
    value = float(np.trace(table) / table.sum())
    present = table.sum(1) > 0
    size = table.sum(1)[present]
    mean, variance = _recall_moments(np.diag(table)[present], size, len(table))
    centre, spread = _weighted_mean_moments(size + 1.0, mean, variance)
    none = np.zeros(1)
    moments = Moments(np.array([centre]), np.array([math.sqrt(spread)]), none, none)
    return _estimate(value, moments, accuracy_sampling_sd(table), 0, "")


def accuracy_credible(counts: ArrayLike, draws: int | None = None) -> Estimate:
    """Return posterior mean, sd and credible interval of the accuracy alone.

    Args:
        counts: [M, M] counts, true class × predicted class.
        draws: Number of draws behind the bounds; by default 400,000.
    """
    bounds = accuracy_bounds(_checked_table(counts), draws)
    return _credible(accuracy_posterior(counts), *bounds)


def _credible(estimate: PosteriorEstimate, low: float, high: float) -> Estimate:
    if estimate.value is None:
        return estimate
    mean = estimate.posterior_mean
    return Estimate(
        mean, estimate.sd, float(low), float(high), CREDIBLE, estimate.note, is_posterior=True
    )


def _recall_moments(correct: Ints, size: Ints, classes: int) -> tuple[Floats, Floats]:
    """Return the mean and the variance of the recall of each class, a Beta distribution."""
    mean = (correct + 1.0) / (size + classes)
    return mean, mean * (1.0 - mean) / (size + classes + 1.0)


def _checked_table(counts: ArrayLike) -> Ints:
    table = checked_counts(counts, "counts of the confusion matrix")
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(
            f"A confusion matrix is square, [true class, predicted class]; got shape {table.shape}."
        )
    if len(table) < 2:
        raise ValueError(
            "A confusion matrix needs at least two classes; with one, every prediction is correct."
        )
    if not table.any():
        raise ValueError("The confusion matrix holds no images; there is nothing to estimate from.")
    return table


def closed_form(table: Ints) -> dict[str, Moments]:
    """Return the exact moments of recall, specificity, accuracy and balanced accuracy.

    They are NaN where the score is undefined.
    """
    size = table.sum(1)
    present = np.flatnonzero(size)
    classes = len(table)
    weight = size + 1.0
    with np.errstate(invalid="ignore"):
        mean = (table + 1.0) / (size + classes)[:, None]
        variance = mean * (1.0 - mean) / (size + classes + 1.0)[:, None]
    recall = np.diag(mean).copy()
    recall_variance = np.diag(variance).copy()
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
    """Return mean and variance of Σ w_i x_i, w ~ Dir(weight), with independent x_i.

    It follows from E[w_i w_k] = a_i (a_k + 1{i=k}) / (A (A + 1)), arranged so that no large numbers
    are subtracted from each other.
    """
    total = weight.sum()
    centre = float((weight * mean).sum() / total)
    between = (weight * (mean - centre) ** 2).sum() / total / (total + 1.0)
    within = (weight * (weight + 1.0) * variance).sum() / (total * (total + 1.0))
    return centre, float(between + within)


def sampled_moments(
    table: Ints, values: dict[str, Floats], draws: int | None, seed: int
) -> tuple[dict[str, Moments], int]:
    """Return the moments of the scores without a closed form, and the number of draws.

    If ``draws`` is None there are 400,000, and then as many more as the widest printed score needs
    for an error of 1e-4.
    """
    present = np.flatnonzero(table.sum(1))
    centre = np.concatenate(
        [values[name][present] if name in PER_CLASS else values[name] for name in _SAMPLED]
    )
    printed = np.isfinite(centre)
    # Sums of deviations from the plug-in value: their squares are accurate in single precision.
    shift = np.where(printed, centre, 0.5).astype(np.float32)[:, None]
    sums = np.zeros(len(shift))
    squares = np.zeros(len(shift))
    made = 0
    wanted = MINIMUM_DRAWS if draws is None else draws
    generator = np.random.default_rng(seed)
    rows = table[present]
    # A block of gammas fits the cache, and its memory is allocated once: both save a quarter of the
    # time.
    block = max(100, min(4_000, 400_000 // rows.size))
    gamma = np.empty((*rows.shape, block), np.float32)
    weight = np.empty((len(rows), block), np.float32)
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
    mean = shift[:, 0] + offset
    sd = np.sqrt(np.maximum(squares / made - offset**2, 0.0))
    return _unpacked(mean, sd, made, present, len(table)), made


def _unpacked(
    mean: Floats, sd: Floats, made: int, present: Ints, classes: int
) -> dict[str, Moments]:
    """Return the moments by name from the stacked rows of ``_SAMPLED``."""
    moments = {}
    start = 0
    for name in _SAMPLED:
        where = present if name in PER_CLASS else np.array([0])
        rows = slice(start, start + len(where))
        start = rows.stop
        size = classes if name in PER_CLASS else 1
        of_mean = np.full(size, np.nan)
        of_sd = np.full(size, np.nan)
        of_mean[where] = mean[rows]
        of_sd[where] = sd[rows]
        moments[name] = Moments(
            of_mean, of_sd, of_sd / math.sqrt(made), of_sd / math.sqrt(2.0 * made)
        )
    return moments


def _draw(
    generator: np.random.Generator,
    rows: Ints,
    present: Ints,
    gamma: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return a block of posterior draws of the scores of ``_SAMPLED``, [scores, block].

    Gammas are nearly all of the work, so they are drawn in single precision; its error of 1e-7 per
    draw is far below the Monte Carlo error. Scores do not change when all of μ is scaled, so μ
    stays unnormalised.

    Args:
        generator: Source of the draws.
        rows: [K, M] counts of the classes that have images.
        present: [K] numbers of these classes.
        gamma: [K, M, block] memory that is overwritten.
        weight: [K, block] memory that is overwritten.
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

    The sum G ~ Gamma(size + M) of a Dirichlet's gammas is independent of its direction θ, and
    Gamma(size + 1) is G · Beta(size + 1, M − 1). For few classes that Beta, a product of powers of
    uniforms, is cheaper than one more gamma.
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
    """Return the scores of ``_SAMPLED``, [2K + 3, block], from μ_i θ_ik in [K, M, block]."""
    classes, _, block = joint.shape
    scores = np.empty((2 * classes + 3, block), np.float32)
    precision = scores[:classes]
    f1 = scores[classes : 2 * classes]
    size = joint.sum(axis=1)
    predicted = joint.sum(axis=0)[present]
    correct = joint[np.arange(classes), present]
    np.divide(correct, predicted, out=precision)
    np.divide(2.0 * correct, size + predicted, out=f1)
    np.mean(precision, axis=0, out=scores[-3])
    if classes > 1:
        np.mean(1.0 - (predicted - correct) / (size.sum(axis=0) - size), axis=0, out=scores[-2])
    else:
        scores[-2] = 0.5  # undefined and not printed
    np.mean(f1, axis=0, out=scores[-1])
    return scores


def _assembled(
    table: Ints,
    values: dict[str, Floats],
    moments: dict[str, Moments],
    draws: int,
    engine: str,
    divergences: int | None,
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
    value: float, moments: Moments, sampling: float, j: int, note: str
) -> PosteriorEstimate:
    """Return the estimate of a score, or of class ``j``'s score."""
    mean, sd, error, sd_error = (
        float(m[j]) for m in (moments.mean, moments.sd, moments.error, moments.sd_error)
    )
    half = NORMAL_QUANTILE * sampling
    low, high = clipped(value - half, value + half, (0.0, 1.0))
    return PosteriorEstimate(
        value,
        sd,
        low,
        high,
        KIND,
        note,
        sampling_sd=sampling,
        posterior_mean=mean,
        monte_carlo_error=error,
        sd_error=sd_error,
    )


def _why_undefined(table: Ints, name: str, j: int) -> str:
    size = table.sum(1)
    predicted = table.sum(0)
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
