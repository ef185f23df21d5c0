"""Worst-group accuracy, with bounds that hold near ties."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, stdtrit

from benchmark.report.statistics.estimate import (
    LEVEL,
    Estimate,
    Floats,
    Ints,
    checked_counts,
    listed,
    student_quantile,
)
from benchmark.report.statistics.moderated_variance import TrialVariance
from benchmark.report.statistics.standard_error import level_excluding_zero, quantile
from benchmark.report.statistics.stratified_mean import crossed_variance

_KIND = "Clopper–Pearson envelope"
_KIND_OVER_TRIALS = "bounds of all groups and t over trials"
#: Degrees of freedom from which Student's distribution is the normal one.
_MANY = 1e9
#: Numbers of degrees of freedom between which quantiles are interpolated.
_GRID = 100


def clopper_pearson(
    correct: Ints, total: Ints, lower_tail: float, upper_tail: float
) -> tuple[Floats, Floats]:
    """Return one-sided exact binomial bounds, each missed with at most its tail probability.

    Args:
        correct: [G] counts, 0 ≤ correct ≤ total.
        total: [G] counts, at least 1.
        lower_tail: Probability that the true value is below the lower bound.
        upper_tail: Probability that the true value is above the upper bound.

    Source: Clopper & Pearson (1934), as quantiles of Beta(k, n − k + 1) and Beta(k + 1, n − k).
    """
    k = correct.astype(np.float64)
    n = total.astype(np.float64)
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, lower_tail))
    high = np.where(k == n, 1.0, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - upper_tail))
    return low, high


def worst_group_interval(correct: ArrayLike, total: ArrayLike) -> Estimate:
    """Return the smallest group accuracy with an envelope of exact bounds.

    The interval is [min_g L_g(α/2), min_g U_g(α/(2G))]. The posterior of a minimum and the
    bootstrap are too narrow and too low near ties. Here the lower bound holds because the worst
    group's own bound does, and the upper one because all G upper bounds hold together.

    Args:
        correct: [G] correctly classified images of each group.
        total: [G] all images of each group.

    Returns:
        The plug-in minimum. ``sd`` is None, since a minimum has no useful one. Groups without
        images are left out and named by position in the note.

    Raises:
        ValueError: Shapes that differ; negative, fractional or NaN counts; more correct images
            than images; no images at all.

    Source: Clopper & Pearson (1934) and Bonferroni's inequality.
    """
    k = checked_counts(correct, "correct counts")
    n = checked_counts(total, "group sizes")
    if k.ndim != 1 or k.shape != n.shape:
        raise ValueError(
            f"Give one correct count and one size per group; got shapes {k.shape} and {n.shape}."
        )
    if (k > n).any():
        raise ValueError(f"Group {int(np.argmax(k > n))} has more correct images than images.")
    present = np.flatnonzero(n)
    if not len(present):
        raise ValueError("No group has any images; there is no worst group.")
    alpha = 1.0 - LEVEL
    low, high = clopper_pearson(k[present], n[present], alpha / 2.0, alpha / (2.0 * len(present)))
    absent = np.flatnonzero(n == 0)
    notes = [f"left out: group {listed(list(absent))} without test images"] if len(absent) else []
    if len(present) == 1:
        notes.append("one group only")
    worst = float((k[present] / n[present]).min())
    return Estimate(worst, None, float(low.min()), float(high.min()), _KIND, "; ".join(notes))


@dataclass(frozen=True)
class GroupAccuracy:
    """The accuracy of each group over trials, and how uncertain the test images make it.

    Attributes:
        mean: [G] mean over trials.
        image_variance: [G] variance of the mean that the images give.
    """

    mean: Floats
    image_variance: Floats


def accuracy_of_counts(correct: ArrayLike, total: ArrayLike) -> GroupAccuracy:
    """Return the accuracy of the groups with images, with binomial variances.

    Trials may share their images, so the variance does not shrink with their number.

    Args:
        correct: [G] or [S, G] correctly classified images of each group.
        total: The same shape, all images of each group.

    Source: Pseudo-counts of Agresti & Coull (1998), so that a group without errors is not certain.
    """
    k = np.atleast_2d(checked_counts(correct, "correct counts"))
    n = np.atleast_2d(checked_counts(total, "group sizes"))
    present = (n > 0).all(0)
    k = k[:, present]
    n = n[:, present]
    raised = (k + 2.0) / (n + 4.0)
    return GroupAccuracy((k / n).mean(0), (raised * (1.0 - raised) / n).mean(0))


def accuracy_of_images(correct: Floats, group: Ints) -> GroupAccuracy:
    """Return the accuracy of the groups with images, with variances from the images themselves.

    Images that are equally difficult in all trials do not become more with the number of trials,
    but what differs from trial to trial averages out.

    Args:
        correct: [S, n] correctness in S ≥ 2 trials.
        group: [n] group of each image.
    """
    means = []
    variances = []
    for g in np.unique(group):
        table = correct[:, group == g]
        if table.shape[1] < 2:
            binomial = accuracy_of_counts(table.sum(1)[:, None], np.ones((len(table), 1)))
            means.append(float(binomial.mean[0]))
            variances.append(float(binomial.image_variance[0]))
            continue
        estimate = crossed_variance(table)
        means.append(float(table.mean()))
        variances.append(0.0 if estimate.error is None else estimate.error.variances[1])
    return GroupAccuracy(np.array(means), np.array(variances))


def worst_group_over_trials(
    correct: ArrayLike, total: ArrayLike, groups: GroupAccuracy | None = None
) -> Estimate:
    """Return the mean over trials of their worst groups' accuracy.

    The interval covers the uncertainty of trials and of test images. A t interval of the minima
    alone ignores that the test set is finite: near ties every trial's minimum lies below the true
    value, and more trials on the same images make the interval narrower around the wrong value.

    Args:
        correct: [S, G] correctly classified images of each group in S ≥ 2 trials.
        total: [S, G] all images of each group.
        groups: The groups with the uncertainty of the images; by default from the counts alone.

    Returns:
        The mean of the minima and their sd. The distance to either bound is the root of the summed
        squares of two distances: Student's t · sd/√S, and that to a bound for the images. Below,
        this is the bound of the worst group. Above, it is the lowest of the bounds of all groups,
        which hold together.

    Raises:
        ValueError: As in ``worst_group_interval``; fewer than two trials.

    Source: A quantile for each component, as in Howe (1974), and Bonferroni's inequality.
    """
    k = checked_counts(correct, "correct counts")
    n = checked_counts(total, "group sizes")
    if k.ndim != 2 or k.shape != n.shape or len(k) < 2:
        raise ValueError(
            f"Give counts [trials, groups] of two trials or more; got {k.shape} and {n.shape}."
        )
    single = [worst_group_interval(*trial) for trial in zip(k, n, strict=True)]
    minima = [float(e.value) for e in single if e.value is not None]
    value = statistics.fmean(minima)
    sd = statistics.stdev(minima)
    groups = groups or accuracy_of_counts(k, n)
    image_sd = np.sqrt(groups.image_variance)
    tail = (1.0 - LEVEL) / 2.0
    below = -quantile(math.inf, tail) * float(image_sd[np.argmin(groups.mean)])
    upper = groups.mean - quantile(math.inf, tail / len(image_sd)) * image_sd
    above = max(float(upper.min()) - value, 0.0)
    between = student_quantile(len(single) - 1) * sd / math.sqrt(len(single))
    return Estimate(
        value,
        sd,
        max(value - math.hypot(below, between), 0.0),
        min(value + math.hypot(above, between), 1.0),
        _KIND_OVER_TRIALS,
        single[0].note,
    )


@dataclass(frozen=True)
class WorstGroupDifference:
    """The difference of the lowest accuracies of two methods.

    Attributes:
        low: Lower bound of the 95 % interval.
        high: Upper bound.
        p_value: Two-sided.
    """

    low: float
    high: float
    p_value: float


def worst_group_difference(
    mine: GroupAccuracy, theirs: GroupAccuracy, between: TrialVariance | None = None
) -> WorstGroupDifference:
    """Compare the lowest accuracies of two methods group by group.

    The difference of the minima is min_g max_h (p_g − q_h). Of two methods with equal minima, the
    one with more bad groups has the lower minimum in the sample, so that the minima themselves must
    not be compared. A method is worse if one of its groups is worse than every group of the other
    method; Bonferroni's inequality pays for the choice of that group.

    Args:
        mine: The groups of one method.
        theirs: The groups of the other method.
        between: Variance between trials of the difference of the minima; None with one trial.

    Source: Intersection-union test (Berger 1982) over the other method's groups, a union of G such
    tests with Bonferroni's inequality, degrees of freedom of Satterthwaite (1946). Groups are
    compared as if their images were different ones.
    """
    difference = mine.mean[:, None] - theirs.mean
    variance = mine.image_variance[:, None] + theirs.image_variance
    freedom = np.full(variance.shape, np.inf)
    if between is not None and between.variance > 0.0:
        variance = variance + between.variance
        freedom = between.degrees_of_freedom * (variance / between.variance) ** 2
    error = np.sqrt(variance)

    def bounds(tail: float) -> tuple[float, float]:
        upper = difference - _student(freedom, tail / len(mine.mean)) * error
        lower = difference + _student(freedom, tail / len(theirs.mean)) * error
        return float(lower.min(0).max()), float(upper.max(1).min())

    def excludes_zero(tail: float) -> bool:
        low, high = bounds(tail)
        return low > 0.0 or high < 0.0

    low, high = bounds((1.0 - LEVEL) / 2.0)
    return WorstGroupDifference(low, high, level_excluding_zero(excludes_zero))


def _student(degrees_of_freedom: Floats, tail: float) -> Floats:
    """Return the lower quantile of Student's t for each number of degrees of freedom.

    Many of them are interpolated, since the quantile is slow and smooth in their logarithm.
    """
    freedom = np.minimum(degrees_of_freedom, _MANY)
    if freedom.size <= _GRID:
        return np.asarray(stdtrit(freedom, tail))
    if freedom.min() == freedom.max():
        return np.full(freedom.shape, float(stdtrit(freedom.min(), tail)))
    grid = np.geomspace(freedom.min(), freedom.max(), _GRID)
    return np.interp(np.log(freedom), np.log(grid), stdtrit(grid, tail))


def worst_group_variance(correct: ArrayLike, total: ArrayLike) -> float:
    """Return the binomial variance of the worst group's accuracy.

    It is p(1 − p)/n with p = (correct + 2)/(n + 4).

    Args:
        correct: [G] correctly classified images of each group.
        total: [G] all images of each group; groups without images do not count.

    Source: Pseudo-counts of Agresti & Coull (1998), so that a group without errors is not certain.
    """
    k = checked_counts(correct, "correct counts")
    n = checked_counts(total, "group sizes")
    accuracy = np.where(n > 0, k / np.maximum(n, 1), np.inf)
    worst = int(np.argmin(accuracy))
    p = (k[worst] + 2.0) / (n[worst] + 4.0)
    return float(p * (1.0 - p) / max(int(n[worst]), 1))
