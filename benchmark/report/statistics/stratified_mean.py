"""Means over images, each class counted equally, with the uncertainty of images, patients and trials."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from benchmark.report.statistics.estimate import (
    Estimate,
    Floats,
    Ints,
    checked_values,
    clipped,
    listed,
    normal_estimate,
    normal_quantile,
)
from benchmark.report.statistics.hypothesis_tests import (
    probability_equivalent,
    probability_positive,
    two_sided_p,
)


@dataclass(frozen=True)
class Contrast(Estimate):
    """The difference Δ of two methods on the same images.

    Attributes:
        p_value: two-sided, normal; 1 where the methods agree on every image; None where there is no sd otherwise.
        p_positive: P(Δ > 0). p_equivalent: P(|Δ| < margin). None where there is no sd.
        margin: in the unit of z; 0.01 is one point.
    """

    p_value: float | None = None
    p_positive: float | None = None
    p_equivalent: float | None = None
    margin: float = 0.01


@dataclass(frozen=True)
class CrossedEstimate(Estimate):
    """A mean over trials and test images.

    Attributes:
        trials, images: how many.
        degrees_of_freedom: Satterthwaite's, of sd²; None where there is no interval.
        trials_sd: standard deviation of the trials' means (the usual "± over seeds"); None with one trial.
    """

    trials: int = 1
    images: int = 0
    degrees_of_freedom: float | None = None
    trials_sd: float | None = None


def stratified_mean(
    z: ArrayLike,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    level: float = 0.95,
    limits: tuple[float, float] | None = None,
) -> Estimate:
    """The mean over classes of the class means of a per-image quantity; balanced accuracy when z is correctness.

    Args:
        z: [n] any finite quantity: correctness, correct_A − correct_B, biased − deceiving.
        stratum: [n] class of each image; one stratum when None.
        cluster: [n] patient of each image, when images of one patient are not independent. A patient may have images
            in several classes.
        level: of the interval. limits: range of the score, for example (0, 1); bounds are kept inside.
    Returns:
        est = (1/M) Σ_j mean z_j, var = (1/M²) Σ_j s_j²/n_j; with clusters Σ_patients (Σ (z_i − mean z_j))²/n_j² stands
        in place of s_j²/n_j. No interval, but a note, when a class has a single image (or patient) or nothing varies.
    Raises:
        ValueError: no images, NaN, or lengths that differ.
    Source: the usual stratified estimator (Cochran 1977, section 5.4); clusters as in Liang & Zeger (1986).
    """
    values = checked_values(z, "per-image values", 1)
    names, which = _codes(stratum, len(values), "strata")
    patient = None if cluster is None else _codes(cluster, len(values), "clusters")[1]
    value = float(_means(values, which).mean())
    sd = math.sqrt(_variance(values, which, patient))
    why = _single_units(names, which, patient)
    if not why and sd <= 1e-12 * max(1.0, float(np.abs(values).max())):
        why = "no interval: the values do not vary within any class"
    if why:
        return Estimate(value, None, None, None, "none", why)
    kind = "normal, per class" if cluster is None else "normal, per class, clustered by patient"
    return normal_estimate(value, sd, kind, level, limits)


def contrast(
    z: ArrayLike,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    level: float = 0.95,
    margin: float = 0.01,
) -> Contrast:
    """The difference of two methods on the same images: Δ ± se, P(better), P(equivalent) and a p-value.

    Args:
        z: [n] per-image differences, for example correct_A − correct_B.
        stratum, cluster, level: as in ``stratified_mean``.
        margin: |Δ| below it counts as equivalent.
    Raises:
        ValueError: as in ``stratified_mean``; a margin that is not positive.
    """
    mean = stratified_mean(z, stratum, cluster, level)
    p_value = two_sided_p(mean)
    if not np.any(
        z
    ):  # the same answers on every image: no evidence of a difference, but no proof of equality either
        images = np.size(z)
        mean = Estimate(
            0.0, None, None, None, "none", f"no interval: the two agree on all {images} images"
        )
        p_value = 1.0
    return Contrast(
        **asdict(mean),
        p_value=p_value,
        p_positive=probability_positive(mean),
        p_equivalent=probability_equivalent(mean, margin),
        margin=margin,
    )


def crossed_variance(
    correct: ArrayLike,
    stratum: ArrayLike | None = None,
    level: float = 0.95,
    cluster: ArrayLike | None = None,
) -> CrossedEstimate:
    """The mean over several trials evaluated on the same test images, with both kinds of uncertainty.

    Pooling the trials forgets that the images recur; "± over seeds" forgets that the test set is finite.

    Args:
        correct: [S, n] correctness (or any finite quantity) of n images in S trials.
        stratum: [n] class of each image, for a balanced mean; the plain mean when None.
        level: of the interval.
        cluster: [n] patient of each image, who then takes the place of the image: with the sum of his deviations from
            the mean. A patient with images in two strata counts as two.
    Returns:
        The mean with sd² = Var = max(MS_s + MS_i − MS_r, MS_s, MS_i)/(S n) and Satterthwaite's degrees of freedom, not
        below S − 1. The interval gives each component its own quantile, t²(S−1) MS_s + t²(n−1) (MS_i − MS_r)₊: with
        Satterthwaite's degrees of freedom t·sd holds the truth only 88–92 times in 100 for two or three trials that
        differ much, because MS_s is sometimes small by chance and then the degrees of freedom are wrongly large.
        With one trial only the test sampling is known, and ``kind`` says so.
    Raises:
        ValueError: not a matrix, empty, NaN, or strata of another length.
    Source: two-way crossed random-effects analysis of variance (Satterthwaite 1946; quantile per component as in Howe
        1974). With strata the image and residual terms are summed over classes with weights 1/M².
    """
    table = checked_values(correct, "trials × images values", 2)
    normal_quantile(level)  # refuses a level that is none
    trials, images = table.shape
    limits = (0.0, 1.0) if np.isin(table, (0.0, 1.0)).all() else None
    if trials == 1:
        single = stratified_mean(table[0], stratum, cluster, level, limits)
        note = "; ".join(filter(None, ("one trial: test sampling only", single.note)))
        kind = "none" if single.sd is None else "test sampling only"
        return CrossedEstimate(
            single.value, single.sd, single.low, single.high, kind, note, 1, images
        )
    names, which = _codes(stratum, images, "strata")
    if cluster is not None:
        table, which = _patients(table, which, _codes(cluster, images, "clusters")[1])
    per_trial = np.array([_means(row, which).mean() for row in table])
    value, spread = float(per_trial.mean()), float(per_trial.std(ddof=1))
    why = _single_units(names, which, None)
    if not why:
        variance, freedom, half = _crossed(table, which, per_trial, 0.5 + level / 2.0)
        if variance > (1e-12 * max(1.0, float(np.abs(table).max()))) ** 2:
            low, high = clipped(value - half, value + half, limits)
            kind = "crossed trials × images" if cluster is None else "crossed trials × patients"
            return CrossedEstimate(
                value, math.sqrt(variance), low, high, kind, "", trials, images, freedom, spread
            )
        why = "no interval: all answers are the same"
    return CrossedEstimate(value, None, None, None, "none", why, trials, images, None, spread)


def _crossed(
    table: Floats, which: Ints, per_trial: Floats, upper: float
) -> tuple[float, float, float]:
    """Var(mean), its degrees of freedom and the interval's half width. Terms are mean squares over S n, per stratum."""
    trials = len(table)
    strata = int(which.max()) + 1
    by_trials = per_trial.var(ddof=1) / trials
    by_images, residual = np.zeros(strata), np.zeros(strata)
    size = np.bincount(which)
    for j in range(strata):
        part = table[:, which == j]
        image_mean = part.mean(0)
        rest = part - image_mean - part.mean(1, keepdims=True) + part.mean()
        by_images[j] = image_mean.var(ddof=1) / (size[j] * strata**2)
        residual[j] = (
            (rest**2).sum() / ((trials - 1) * (size[j] - 1)) / (trials * size[j] * strata**2)
        )
    total = by_trials + by_images.sum() - residual.sum()
    scale = by_trials**2 / (trials - 1) + (by_images**2 / (size - 1)).sum()
    scale += (residual**2 / ((trials - 1) * (size - 1))).sum()
    freedom = total**2 / scale if scale > 0.0 else 0.0
    only_images = max(float(by_images.sum() - residual.sum()), 0.0)
    half = math.hypot(
        stdtrit(trials - 1.0, upper) * math.sqrt(by_trials),
        stdtrit(float((size - 1).sum()), upper) * math.sqrt(only_images),
    )
    return max(total, by_trials, by_images.sum()), max(freedom, trials - 1.0), half


def _patients(table: Floats, which: Ints, patient: Ints) -> tuple[Floats, Ints]:
    """Patients in place of images: [S, units] whose mean per stratum and trial is that of the images, and strata.

    A unit's value is m + (n_units/n_images) Σ (z − m) with the stratum's mean m: the linearised ratio, so that a large
    patient counts by his images.
    """
    pairs, unit = np.unique(np.stack([which, patient]), axis=1, return_inverse=True)
    unit = unit.ravel()
    mean = np.array([table[:, which == j].mean() for j in range(int(which.max()) + 1)])
    scale = np.bincount(pairs[0]) / np.bincount(which)
    sums = np.stack([np.bincount(unit, row) for row in table - mean[which]])
    return mean[pairs[0]] + sums * scale[pairs[0]], pairs[0]


def _codes(labels: ArrayLike | None, length: int, what: str) -> tuple[list[object], Ints]:
    """Names, and for each image the position of its name; a single nameless group when ``labels`` is None."""
    if labels is None:
        return [""], np.zeros(length, np.int64)
    array = np.asarray(labels)
    if array.shape != (length,):
        raise ValueError(
            f"The {what} must name each of the {length} images; got shape {array.shape}."
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"The {what} contain NaN; give every image a name or a number.")
    names, which = np.unique(array, return_inverse=True)
    return names.tolist(), which.astype(np.int64)


def _means(values: Floats, which: Ints) -> Floats:
    return np.bincount(which, values) / np.bincount(which)


def _variance(values: Floats, which: Ints, patient: Ints | None) -> float:
    """Var of the mean of class means; 0 contributed by a class with one image, which the caller refuses."""
    size = np.bincount(which)
    share = (values - _means(values, which)[which]) / (size * len(size))[which]
    if patient is None:
        return float((share**2 * (size / np.maximum(size - 1, 1))[which]).sum())
    return float((np.bincount(patient, share) ** 2).sum())


def _single_units(names: list[object], which: Ints, patient: Ints | None) -> str:
    """Why there is no variance: the classes with a single image or patient; empty when there are none."""
    if patient is None:
        units, what = np.bincount(which), "image"
    else:
        pairs = np.unique(np.stack([which, patient]), axis=1)
        units, what = np.bincount(pairs[0]), "patient"
    alone = [names[j] for j in np.flatnonzero(units == 1)]
    if not alone:
        return ""
    where = f" in class {listed(alone)}" if alone != [""] else ""
    return f"no interval: a single {what}{where}"
