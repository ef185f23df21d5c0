"""Means over images, with the uncertainty of images, patients and trials; classes count equally."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from benchmark.report.statistics.estimate import (
    Estimate,
    Floats,
    Ints,
    checked_values,
    clipped,
    listed,
    normal_estimate,
    without_interval,
)
from benchmark.report.statistics.hypothesis_tests import two_sided_p
from benchmark.report.statistics.moderated_variance import TrialVariance
from benchmark.report.statistics.standard_error import StandardError


@dataclass(frozen=True)
class Contrast(Estimate):
    """The difference Δ of two methods on the same images.

    Attributes:
        p_value: Two-sided, normal; 1 if the methods agree on every image; otherwise None without a
            standard deviation.
    """

    p_value: float | None = None


@dataclass(frozen=True)
class CrossedEstimate(Estimate):
    """A mean over trials and test images.

    Attributes:
        error: The standard error behind the interval; None where there is none, and with one trial.
    """

    error: StandardError | None = None


def stratified_mean(
    z: ArrayLike,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    limits: tuple[float, float] | None = None,
) -> Estimate:
    """Return the mean over classes of the class means of a quantity that each image has.

    This is the balanced accuracy if z is correctness. The variance of
    est = (1/M) Σ_j mean z_j is (1/M²) Σ_j s_j²/n_j; with clusters
    Σ_patients (Σ (z_i − mean z_j))²/n_j² takes the place of s_j²/n_j.

    Args:
        z: [n] finite quantity: correctness, correct_A − correct_B, biased − deceiving.
        stratum: [n] class of each image; None for a single stratum.
        cluster: [n] patient of each image, if images of one patient are not independent. A patient
            may have images in several classes.
        limits: Range of the score, for example (0, 1); the bounds are kept inside.

    Returns:
        The mean. It has no interval, but a note, when a class has a single image (or patient) or
        when nothing varies.

    Raises:
        ValueError: No images, NaN, or lengths that differ.

    Source: The usual stratified estimator (Cochran 1977, section 5.4); clusters as in Liang & Zeger
    (1986).
    """
    values = checked_values(z, "per-image values", 1)
    names, which = _codes(stratum, len(values), "strata")
    patient = None if cluster is None else _codes(cluster, len(values), "clusters")[1]
    value = float(_means(values, which).mean())
    sd = math.sqrt(_variance(values, which, patient))
    problem = _single_units(names, which, patient)
    if not problem and sd <= 1e-12 * max(1.0, float(np.abs(values).max())):
        problem = "no interval: the values do not vary within any class"
    if problem:
        return without_interval(value, problem)
    kind = "normal, per class" if cluster is None else "normal, per class, clustered by patient"
    return normal_estimate(value, sd, kind, limits)


def contrast(
    z: ArrayLike, stratum: ArrayLike | None = None, cluster: ArrayLike | None = None
) -> Contrast:
    """Return the difference of two methods on the same images, with its p-value.

    Args:
        z: [n] differences per image, for example correct_A − correct_B.
        stratum: As in ``stratified_mean``.
        cluster: As in ``stratified_mean``.

    Raises:
        ValueError: As in ``stratified_mean``.
    """
    if not np.any(z):
        # Equal predictions for all images are neither evidence of a difference nor of equality.
        mean = stratified_mean(z, stratum, cluster)
        note = f"no interval: the two agree on all {np.size(z)} images"
        return Contrast(mean.value, None, None, None, "none", note, p_value=1.0)
    mean = stratified_mean(z, stratum, cluster)
    return Contrast(**asdict(mean), p_value=two_sided_p(mean))


def crossed_variance(
    correct: ArrayLike,
    stratum: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    between: TrialVariance | None = None,
    added_variance: float = 0.0,
) -> CrossedEstimate:
    """Return the mean over several trials on the same test images, with both uncertainties.

    Pooling the trials ignores that the images recur, and the spread of the trials alone ignores
    that the test set is finite. The variance is max(MS_s + MS_i − MS_r, MS_s, MS_i)/(S n). Its
    part MS_s/(S n) has S − 1 degrees of freedom, the rest those of the images.

    Correctness gets pseudo-counts as with one trial (see ``sampling_sd``), so that an accuracy near
    0 or 1 does not look certain.

    Args:
        correct: [S, n] correctness (or any finite quantity) of n images in S trials.
        stratum: [n] class of each image, for a balanced mean; None for the plain mean.
        cluster: [n] patient of each image. The patient then takes the place of the image, with the
            sum of the deviations from the mean. A patient with images in two strata counts as two.
        between: Variance between trials in place of MS_s/n, for example one that several methods
            have in common.
        added_variance: Added to the variance of the images, for example for pseudo-counts.

    Returns:
        The mean. With one trial only the test sampling is known, and ``kind`` says so.

    Raises:
        ValueError: Not a matrix, empty, NaN, or strata of another length.

    Source: Two-way crossed random-effects analysis of variance (Searle, Casella & McCulloch,
    Variance Components, 4.4). With strata the image and residual terms are summed over classes
    with weights 1/M².
    """
    table = checked_values(correct, "trials × images values", 2)
    trials, images = table.shape
    limits = (0.0, 1.0) if np.isin(table, (0.0, 1.0)).all() else None
    if trials == 1:
        single = stratified_mean(table[0], stratum, cluster, limits)
        note = "; ".join(filter(None, ("one trial: test sampling only", single.note)))
        kind = "none" if single.sd is None else "test sampling only"
        return CrossedEstimate(**asdict(replace(single, kind=kind, note=note)))
    names, which = _codes(stratum, images, "strata")
    if cluster is not None:
        table, which = _patients(table, which, _codes(cluster, images, "clusters")[1])
    per_trial = np.array([_means(row, which).mean() for row in table])
    value = float(per_trial.mean())
    problem = _single_units(names, which, None)
    if problem:
        return CrossedEstimate(value, None, None, None, "none", problem)
    if between is None:
        between = TrialVariance(float(per_trial.var(ddof=1)), trials - 1.0)
    if limits is not None:
        added_variance += _pseudo_variance(table, which)
    error = _crossed_error(table, which, between, added_variance)
    if error.sd <= 1e-12 * max(1.0, float(np.abs(table).max())):
        problem = "no interval: all answers are the same"
        return CrossedEstimate(value, None, None, None, "none", problem)
    half = error.half_width()
    low, high = clipped(value - half, value + half, limits)
    kind = "crossed trials × images" if cluster is None else "crossed trials × patients"
    return CrossedEstimate(value, error.sd, low, high, kind, error=error)


def _crossed_error(
    table: Floats, which: Ints, between: TrialVariance, added: float
) -> StandardError:
    """Return the standard error of the mean of ``crossed_variance``.

    Args:
        table: [S, n] values.
        which: [n] stratum of each image.
        between: Variance between trials.
        added: Added to the variance of the images.
    """
    trials = len(table)
    strata = int(which.max()) + 1
    size = np.bincount(which)
    by_trials = between.variance / trials
    by_images = added
    residual = 0.0
    for j in range(strata):
        part = table[:, which == j]
        image_mean = part.mean(0)
        rest = part - image_mean - part.mean(1, keepdims=True) + part.mean()
        scale = size[j] * strata**2
        by_images += float(image_mean.var(ddof=1)) / scale
        mean_square = float((rest**2).sum()) / ((trials - 1) * (size[j] - 1))
        residual += mean_square / (trials * scale)
    of_images = max(by_images - residual, by_images - by_trials, 0.0)
    freedom = (between.degrees_of_freedom, float((size - 1).sum()))
    return StandardError((by_trials, of_images), freedom, residual)


def _pseudo_variance(table: Floats, which: Ints) -> float:
    """Return what one correct and one wrong image in each stratum add to the variance."""
    size = np.bincount(which)
    share = np.clip(_means(table.mean(0), which), 0.0, 1.0)
    raised = (share * size + 1.0) / (size + 2.0)
    added = raised * (1.0 - raised) - share * (1.0 - share)
    return float((np.maximum(added, 0.0) / size).sum()) / len(size) ** 2


def _patients(table: Floats, which: Ints, patient: Ints) -> tuple[Floats, Ints]:
    """Return the values [S, units] of patients in place of images, and the units' strata.

    Their mean per stratum and trial is that of the images. A unit's value is
    m + (n_units/n_images) Σ (z − m) with the stratum's mean m: the linearised ratio, so that a
    patient counts in proportion to the number of images.
    """
    pairs, unit = np.unique(np.stack([which, patient]), axis=1, return_inverse=True)
    unit = unit.ravel()
    mean = np.array([table[:, which == j].mean() for j in range(int(which.max()) + 1)])
    scale = np.bincount(pairs[0]) / np.bincount(which)
    sums = np.stack([np.bincount(unit, row) for row in table - mean[which]])
    return mean[pairs[0]] + sums * scale[pairs[0]], pairs[0]


def _codes(labels: ArrayLike | None, length: int, role: str) -> tuple[list[object], Ints]:
    """Return the names and, for each image, the position of its name.

    If ``labels`` is None there is one group, whose name is empty.
    """
    if labels is None:
        return [""], np.zeros(length, np.int64)
    array = np.asarray(labels)
    if array.shape != (length,):
        raise ValueError(
            f"The {role} must name each of the {length} images; got shape {array.shape}."
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(f"The {role} contain NaN; give every image a name or a number.")
    names, which = np.unique(array, return_inverse=True)
    return names.tolist(), which.astype(np.int64)


def _means(values: Floats, which: Ints) -> Floats:
    return np.bincount(which, values) / np.bincount(which)


def _variance(values: Floats, which: Ints, patient: Ints | None) -> float:
    """Return the variance of the mean of class means.

    A class with a single image contributes 0; callers exclude it.
    """
    size = np.bincount(which)
    share = (values - _means(values, which)[which]) / (size * len(size))[which]
    if patient is None:
        return float((share**2 * (size / np.maximum(size - 1, 1))[which]).sum())
    return float((np.bincount(patient, share) ** 2).sum())


def _single_units(names: list[object], which: Ints, patient: Ints | None) -> str:
    """Return a note that names the classes with a single image or patient; empty without any."""
    if patient is None:
        units = np.bincount(which)
        unit = "image"
    else:
        units = np.bincount(np.unique(np.stack([which, patient]), axis=1)[0])
        unit = "patient"
    alone = [names[j] for j in np.flatnonzero(units == 1)]
    if not alone:
        return ""
    where = f" in class {listed(alone)}" if alone != [""] else ""
    return f"no interval: a single {unit}{where}"
