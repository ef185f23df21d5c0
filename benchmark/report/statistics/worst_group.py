"""Worst-group accuracy, with bounds that hold near ties."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

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

_KIND = "Clopper–Pearson envelope"
_KIND_OVER_TRIALS = "envelope and t over trials"


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


def worst_group_over_trials(correct: ArrayLike, total: ArrayLike) -> Estimate:
    """Return the mean over trials of their worst groups' accuracy.

    The interval covers the uncertainty of trials and of test images. A t interval of the minima
    alone ignores that the test set is finite: near ties every trial's minimum lies below the true
    value, and more trials on the same images make the interval narrower around the wrong value.

    Args:
        correct: [S, G] correctly classified images of each group in S ≥ 2 trials.
        total: [S, G] all images of each group.

    Returns:
        The mean of the minima and their sd. The distance to either bound is the root of the summed
        squares of two distances: to the mean of the trials' envelopes (``worst_group_interval``;
        trials that share their images err alike, so that averaging gains nothing), and Student's
        t · sd / √S.

    Raises:
        ValueError: As in ``worst_group_interval``; fewer than two trials.

    Source: A quantile for each component, as in Howe (1974).
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
    low = statistics.fmean(float(e.low) for e in single if e.low is not None)
    high = statistics.fmean(float(e.high) for e in single if e.high is not None)
    between = student_quantile(len(single) - 1) * sd / math.sqrt(len(single))
    return Estimate(
        value,
        sd,
        max(value - math.hypot(value - low, between), 0.0),
        min(value + math.hypot(high - value, between), 1.0),
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
    mine: tuple[ArrayLike, ArrayLike],
    theirs: tuple[ArrayLike, ArrayLike],
    between: TrialVariance | None = None,
) -> WorstGroupDifference:
    """Compare the lowest accuracies of two methods group by group.

    The difference of the minima is min_g max_h (p_g − q_h). Of two methods with equal minima, the
    one with more bad groups has the lower minimum in the sample, so that the minima themselves must
    not be compared. A method is worse if one of its groups is worse than every group of the other
    method; Bonferroni's inequality pays for the choice of that group.

    Args:
        mine: Correctly classified images and all images of each group, both [G] or [S, G].
        theirs: The same of the other method.
        between: Variance between trials of the difference of the minima; None with one trial.

    Source: Intersection-union test (Berger 1982) over the other method's groups; a union of G such
    tests with Bonferroni's inequality; pseudo-counts as in ``worst_group_variance``.
    """
    accuracy, variance = _group_accuracy(*mine)
    other_accuracy, other_variance = _group_accuracy(*theirs)
    difference = accuracy[:, None] - other_accuracy
    of_images = variance[:, None] + other_variance
    of_trials = 0.0 if between is None else between.variance
    freedom = math.inf if between is None else between.degrees_of_freedom

    def half_widths(tail: float) -> Floats:
        normal = quantile(math.inf, tail) ** 2
        student = quantile(freedom, tail) ** 2
        return np.asarray(np.sqrt(student * of_trials + normal * of_images))

    def bounds(tail: float) -> tuple[float, float]:
        upper = difference + half_widths(tail / len(accuracy))
        lower = difference - half_widths(tail / len(other_accuracy))
        return float(lower.min(0).max()), float(upper.max(1).min())

    def excludes_zero(tail: float) -> bool:
        low, high = bounds(tail)
        return low > 0.0 or high < 0.0

    low, high = bounds((1.0 - LEVEL) / 2.0)
    return WorstGroupDifference(low, high, level_excluding_zero(excludes_zero))


def _group_accuracy(correct: ArrayLike, total: ArrayLike) -> tuple[Floats, Floats]:
    """Return the mean accuracy over trials of the groups with images, and its sampling variance.

    Trials share their images, so the variance does not shrink with their number.
    """
    k = np.atleast_2d(checked_counts(correct, "correct counts"))
    n = np.atleast_2d(checked_counts(total, "group sizes"))
    present = (n > 0).all(0)
    k = k[:, present]
    n = n[:, present]
    raised = (k + 2.0) / (n + 4.0)
    return (k / n).mean(0), (raised * (1.0 - raised) / n).mean(0)


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
