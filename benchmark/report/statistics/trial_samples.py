"""Means and differences of values that each image has in each trial, where some are not defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.report.statistics.delong import auc_contributions, auc_interval
from benchmark.report.statistics.estimate import Estimate, Floats, Ints, clipped, without_interval
from benchmark.report.statistics.hypothesis_tests import holm
from benchmark.report.statistics.moderated_variance import TrialVariance, trial_variances
from benchmark.report.statistics.standard_error import StandardError
from benchmark.report.statistics.stratified_mean import contrast, crossed_variance, stratified_mean

#: How an interval was made if each trial has images of its own.
OWN_IMAGES = "t over trials, each with images of its own"


@dataclass(frozen=True)
class TrialSample:
    """Values of the images of each trial.

    Attributes:
        values: float[n] of each trial; NaN where the value of an image is not defined.
        same_images: Whether all trials have the same images in the same order.
        cluster: Number of the patient of each image, int[n] of each trial; None for independent
            images.
    """

    values: tuple[Floats, ...]
    same_images: bool
    cluster: tuple[Ints, ...] | None = None

    @property
    def trial_means(self) -> list[float]:
        """The mean of each trial over the images for which it is defined; NaN without any."""
        return [_mean(row) for row in self.values]

    @property
    def undefined(self) -> int:
        """The number of values that are not defined, over all trials."""
        return sum(int((~np.isfinite(row)).sum()) for row in self.values)

    def minus(self, other: TrialSample) -> TrialSample:
        """Return the differences, image by image; the images of both must be the same."""
        values = tuple(a - b for a, b in zip(self.values, other.values, strict=True))
        return TrialSample(values, self.same_images and other.same_images, self.cluster)


@dataclass(frozen=True)
class Difference:
    """A comparison with the best of several samples.

    Attributes:
        estimate: The difference from the best, with its interval.
        p: Two-sided p-value; None without a standard error.
        p_holm: The p-value, adjusted for the choice of the best and for all comparisons.
    """

    estimate: Estimate
    p: float | None
    p_holm: float | None = None


def sample_mean(
    sample: TrialSample,
    limits: tuple[float, float] | None = None,
    between: TrialVariance | None = None,
) -> tuple[Estimate, StandardError | None]:
    """Return the mean over trials of the mean over images, with its uncertainty.

    With the same images in all trials the crossed analysis of variance applies, to the images whose
    value is defined in every trial. With images of its own in each trial, the spread of the trials
    contains that of the images. With one trial only the images vary.

    Args:
        sample: The values.
        limits: Range of the mean; the bounds are kept inside.
        between: Variance between trials, for example one that several samples have in common.

    Returns:
        The estimate, whose ``sd`` is that of the trials (of the mean over images with one trial),
        and the standard error behind the interval if there is one.
    """
    means = [value for value in sample.trial_means if math.isfinite(value)]
    if not means:
        return without_interval(None, "not defined for any image"), None
    if len(sample.values) == 1:
        return _one_trial(sample, limits)
    if len(means) < len(sample.values):
        return without_interval(float(np.mean(means)), "not defined in every trial"), None
    sd = float(np.std(means, ddof=1))
    complete = np.isfinite(np.stack(sample.values)).all(0) if sample.same_images else None
    if complete is not None and complete.sum() >= 2:
        table = np.stack(sample.values)[:, complete]
        cluster = None if sample.cluster is None else sample.cluster[0][complete]
        found = crossed_variance(table, cluster=cluster, between=between)
        if found.error is None:
            return Estimate(float(np.mean(means)), sd, None, None, "none", found.note), None
        return _interval(float(np.mean(means)), sd, found.error, found.kind, limits)
    if between is None:
        between = TrialVariance(sd**2, len(means) - 1.0)
    error = StandardError((between.variance / len(means),), (between.degrees_of_freedom,))
    if error.sd == 0.0:
        note = "no interval: all trials are equal"
        return Estimate(float(np.mean(means)), sd, None, None, "none", note), None
    return _interval(float(np.mean(means)), sd, error, OWN_IMAGES, limits)


def compare_with_best(
    samples: Sequence[TrialSample | None], *, higher_is_better: bool
) -> tuple[int | None, list[Difference | None]]:
    """Compare every sample with the best one, image by image.

    All samples together tell how much trials vary (``trial_variances``). The best is chosen from
    the data, so that p-values are multiplied by K/2 before Holm's adjustment of the K − 1
    comparisons: all pairs are paid for.

    Args:
        samples: Samples of the same images and trials; None for one that is missing.
        higher_is_better: Direction of the comparison.

    Returns:
        Position of the best, and the differences from it; None where there is no comparison.
    """
    means = {
        i: float(np.mean(sample.trial_means))
        for i, sample in enumerate(samples)
        if sample is not None and np.isfinite(sample.trial_means).all()
    }
    found: list[Difference | None] = [None] * len(samples)
    if len(means) < 2:
        return next(iter(means), None), found
    best = max(means, key=lambda i: means[i] if higher_is_better else -means[i])
    reference = samples[best]
    assert reference is not None
    between = _between(samples, means)
    for i in means:
        sample = samples[i]
        if i != best and sample is not None:
            pair = None if between is None else (between[i], between[best])
            found[i] = _difference(sample, reference, pair)
    raw = [difference.p if difference else None for difference in found]
    factor = len(means) / 2.0
    adjusted = holm([None if p is None else min(1.0, p * factor) for p in raw])
    return best, [
        None if difference is None else Difference(difference.estimate, difference.p, p_holm)
        for difference, p_holm in zip(found, adjusted, strict=True)
    ]


def auc_sample(smaller: TrialSample, larger: TrialSample) -> TrialSample | None:
    """Return the AUC that tells two models by a value that both have for the same images.

    The AUC of a trial is the probability that the value of a random image is larger for the second
    model. Its linearised values, one for each image, have that mean, so that means and differences
    of AUCs are those of other samples. Images are paired: the two values of an image are not
    independent.

    Args:
        smaller: Values of the first model, such as a biased one.
        larger: Values of the second model in the same trials.

    Returns:
        The linearised values; None if the images differ, or if an AUC has no variance.
    """
    if len(smaller.values) != len(larger.values):
        return None
    rows = []
    for first, second in zip(smaller.values, larger.values, strict=True):
        if first.shape != second.shape:
            return None
        defined = np.isfinite(first) & np.isfinite(second)
        if defined.sum() < 2:
            return None
        n = int(defined.sum())
        label = np.repeat([0, 1], n)
        scores = np.concatenate([first[defined], second[defined]])
        area = auc_interval(label, scores).value
        contributions, _ = auc_contributions(label[:, None], scores[:, None])
        if area is None or contributions[0] is None:
            return None
        of_images = contributions[0].values
        row = np.full(len(first), np.nan)
        row[defined] = area + n * (of_images[:n] + of_images[n:])
        rows.append(row)
    return TrialSample(tuple(rows), smaller.same_images and larger.same_images, smaller.cluster)


def pooled_iou_sample(accuracy: TrialSample, found: TrialSample) -> TrialSample | None:
    """Return the mean IoU of background and foreground, pooled over the images of each trial.

    With B the mean share of pixels that are foreground and found, and A that of pixels that are
    background and not found, the IoU of the background is A/(1 − B) and that of the foreground
    B/(1 − A). The values, one for each image, are linearised in the two shares, so that their mean
    is the pooled IoU and means and differences are those of other samples (delta method).

    Args:
        accuracy: Pixel accuracy of each image, the sum of its two shares.
        found: Share of the pixels of each image that are foreground and found.

    Returns:
        The linearised values; None if the images differ, or if no image is defined. A side of which
        there is no pixel is left out of the mean.
    """
    if len(accuracy.values) != len(found.values):
        return None
    rows = []
    for right, foreground in zip(accuracy.values, found.values, strict=True):
        defined = np.isfinite(right) & np.isfinite(foreground)
        if right.shape != foreground.shape or not defined.any():
            return None
        b = foreground[defined]
        a = right[defined] - b
        parts = [
            _linearised_ratio(mine, other) for mine, other in ((a, b), (b, a)) if other.mean() < 1.0
        ]
        row = np.full(len(right), np.nan)
        row[defined] = np.mean(parts, axis=0)
        rows.append(row)
    return TrialSample(tuple(rows), accuracy.same_images and found.same_images, accuracy.cluster)


def _linearised_ratio(mine: Floats, other: Floats) -> Floats:
    """Return values with the mean m/(1 − o), linear in both, of means m and o."""
    numerator = float(mine.mean())
    denominator = 1.0 - float(other.mean())
    ratio = numerator / denominator
    values: Floats = ratio + (mine - numerator) / denominator
    return values + ratio * (other - other.mean()) / denominator


def _mean(row: Floats) -> float:
    defined = row[np.isfinite(row)]
    return float(defined.mean()) if len(defined) else math.nan


def _one_trial(
    sample: TrialSample, limits: tuple[float, float] | None
) -> tuple[Estimate, StandardError | None]:
    defined = np.isfinite(sample.values[0])
    cluster = None if sample.cluster is None else sample.cluster[0][defined]
    found = stratified_mean(sample.values[0][defined], cluster=cluster, limits=limits)
    error = None if found.sd is None else StandardError((found.sd**2,), (math.inf,))
    kind = found.kind.replace("per class", "over images")
    return Estimate(found.value, found.sd, found.low, found.high, kind, found.note), error


def _interval(
    value: float,
    sd: float,
    error: StandardError,
    kind: str,
    limits: tuple[float, float] | None,
) -> tuple[Estimate, StandardError]:
    half = error.half_width()
    low, high = clipped(value - half, value + half, limits)
    return Estimate(value, sd, low, high, kind), error


def _between(
    samples: Sequence[TrialSample | None], means: dict[int, float]
) -> dict[int, TrialVariance] | None:
    """Return the variance between trials of each sample; None with one trial."""
    rows = [sample.trial_means for i in means if (sample := samples[i]) is not None]
    if len(rows[0]) < 2:
        return None
    return dict(zip(means, trial_variances(np.array(rows)), strict=True))


def _difference(
    sample: TrialSample,
    reference: TrialSample,
    between: tuple[TrialVariance, TrialVariance] | None,
) -> Difference:
    difference = sample.minus(reference)
    if between is None:
        defined = np.isfinite(difference.values[0])
        if defined.sum() < 1:
            return Difference(without_interval(None, "no image that both define"), None)
        cluster = None if difference.cluster is None else difference.cluster[0][defined]
        found = contrast(difference.values[0][defined], cluster=cluster)
        return Difference(found, found.p_value)
    first, second = between
    variance = TrialVariance(first.variance + second.variance, first.degrees_of_freedom)
    estimate, error = sample_mean(difference, between=variance)
    if error is None or estimate.value is None:
        equal = estimate.value == 0.0 and not any(np.nanmax(np.abs(v)) for v in difference.values)
        return Difference(estimate, 1.0 if equal else None)
    return Difference(estimate, error.p_value(estimate.value))
