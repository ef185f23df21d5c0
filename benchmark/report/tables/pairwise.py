"""Differences of methods on the same test images, and marks at the best of a column."""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore, same_images
from benchmark.report.statistics.estimate import NORMAL_QUANTILE, Estimate, without_interval
from benchmark.report.statistics.hypothesis_tests import holm, mcnemar
from benchmark.report.statistics.moderated_variance import TrialVariance, trial_variances
from benchmark.report.statistics.shrinkage import Noise, posterior_differences
from benchmark.report.statistics.standard_error import StandardError
from benchmark.report.statistics.stratified_mean import contrast, crossed_variance
from benchmark.report.statistics.worst_group import GroupAccuracy, worst_group_difference
from benchmark.report.tables.metric import Metric, PerImage
from benchmark.report.tables.value import Value

#: Smaller differences count as equivalent: one point.
MARGIN = 0.01
#: Level of the tests after Holm's correction.
ALPHA = 0.05


class Pairing(enum.StrEnum):
    """The comparisons of a column, in the words of the caption."""

    IMAGES = "image by image"
    GROUPS = "group by group"
    TRIALS = "without pairs of images"


@dataclass(frozen=True)
class Entry:
    """One method in one column.

    Attributes:
        runs: The selected run of each trial.
        value: The number in the column.
    """

    runs: Sequence[SelectedRun]
    value: Value

    def runs_of(self, trials: Sequence[int]) -> list[SelectedRun]:
        """Return the runs of these trials."""
        return [run for run in self.runs if run.trial in trials]


@dataclass(frozen=True)
class Comparison:
    """A method minus the reference in one column; for the gap the difference of the absolute gaps.

    Attributes:
        difference: Value, standard error and interval; ``kind`` says how the error was made.
        p: Two-sided p-value.
        p_better: Posterior probability that the method is better.
        p_equivalent: Posterior probability that the two differ by less than ``MARGIN``; None with
            one trial.
        trials: Number of trials that both have.
        p_holm: ``p`` adjusted within its family.
        error: Standard error behind the interval; its first component is that of the trials if
            there are several.
        posterior: Posterior of the difference under the model of ``p_better``; None without
            ``error``.
        pairing: What was compared; None if nothing was.
    """

    difference: Estimate
    p: float | None = None
    p_better: float | None = None
    p_equivalent: float | None = None
    trials: int = 0
    p_holm: float | None = None
    error: StandardError | None = None
    posterior: Estimate | None = None
    pairing: Pairing | None = None


@dataclass(frozen=True)
class Marks:
    """The marks of a column.

    Attributes:
        best: For each method whether it cannot be distinguished from the best; the best itself is
            True. None if the method has no value or was not compared.
        not_compared: For each method why it was not compared although others were; else empty.
        comparisons: The comparisons with the best that could be made.
        top: Positions of the methods with the best value; several only if their values are equal.
    """

    best: tuple[bool | None, ...]
    not_compared: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()
    top: frozenset[int] = frozenset()


NO_MARKS = Marks((), ())
NO_COMPARISON = Comparison(without_interval(None, "no trial that both have"))


def compare_column(
    metric: Metric, entries: Sequence[Entry], reference: Entry, store: PredictionStore
) -> list[Comparison]:
    """Compare methods with a reference.

    All methods of the column together tell how much trials vary (``trial_variances``) and how much
    methods differ (``posterior_differences``). The interval, the p-value and the probabilities of
    a difference come from the same standard error.

    Args:
        metric: The column.
        entries: The methods; each has a value.
        reference: What they are compared with.
        store: Predictions of the runs.
    """
    everyone = [reference, *entries]
    pooled = _pooled_variances(metric, everyone)
    found = []
    for k, entry in enumerate(entries, start=1):
        between = None if pooled is None else (pooled[k], pooled[0])
        found.append(_compare(metric, entry, reference, store, between))
    return _with_probabilities(metric, found)


def add_holm(family: Sequence[Comparison], factor: float = 1.0) -> list[Comparison]:
    """Add Holm's adjusted p-values to the comparisons of one family (one data set and metric).

    Args:
        family: The comparisons.
        factor: What the p-values are multiplied by before the adjustment.
    """
    p_values = [None if c.p is None else min(1.0, c.p * factor) for c in family]
    return [replace(c, p_holm=p) for c, p in zip(family, holm(p_values), strict=True)]


def mark_best(metric: Metric, entries: Sequence[Entry], store: PredictionStore) -> Marks:
    """Mark the methods that cannot be distinguished from the best of a column.

    The best is chosen from the data, so that any of the K(K − 1)/2 pairs may be compared: p-values
    are multiplied by K/2 before Holm's adjustment of the K − 1 comparisons.
    """
    with_value = [i for i, entry in enumerate(entries) if entry.value.estimate.value is not None]
    best: list[bool | None] = [None] * len(entries)
    problems = [""] * len(entries)
    if len(with_value) < 2:
        return Marks(tuple(best), tuple(problems))
    quality = {i: _quality(metric, entries[i].value) for i in with_value}
    first = max(with_value, key=quality.__getitem__)
    top = frozenset(i for i in with_value if quality[i] == quality[first])
    others = [i for i in with_value if i != first]
    found = compare_column(metric, [entries[i] for i in others], entries[first], store)
    family = add_holm(found, factor=len(with_value) / 2.0)
    if all(comparison.p_holm is None for comparison in family):
        return Marks(tuple(best), tuple(problems), top=top)
    best[first] = True
    for i, comparison in zip(others, family, strict=True):
        if comparison.p_holm is None:
            problems[i] = comparison.difference.note or "no standard error"
        else:
            best[i] = comparison.p_holm >= ALPHA
    made = tuple(comparison for comparison in family if comparison.p_holm is not None)
    return Marks(tuple(best), tuple(problems), made, top)


def _quality(metric: Metric, value: Value) -> float:
    """Return a number that is larger for better values."""
    number = metric.comparable(value.estimate.value or 0.0)
    return -number if metric.smaller_is_better else number


def _sign(metric: Metric, value: Value) -> int:
    """Return −1 for a negative value of a metric that is compared by its magnitude, else 1."""
    return -1 if metric.compares_magnitude and (value.estimate.value or 0.0) < 0 else 1


def _pooled_variances(metric: Metric, entries: Sequence[Entry]) -> tuple[TrialVariance, ...] | None:
    """Return the variance between trials of each method; None without two trials that all have."""
    trials = _common_trials(entries)
    if len(trials) < 2:
        return None
    rows = [_trial_values(metric, entry, trials) for entry in entries]
    return trial_variances(np.array(rows))


def _common_trials(entries: Sequence[Entry]) -> list[int]:
    return sorted(set.intersection(*(set(entry.value.per_trial or {}) for entry in entries)))


def _trial_values(metric: Metric, entry: Entry, trials: Sequence[int]) -> list[float]:
    per_trial = entry.value.per_trial or {}
    return [_sign(metric, entry.value) * per_trial[trial] for trial in trials]


def _compare(
    metric: Metric,
    mine: Entry,
    theirs: Entry,
    store: PredictionStore,
    pooled: tuple[TrialVariance, TrialVariance] | None,
) -> Comparison:
    """Return the difference and its p-value over the trials that both have."""
    common = _common_trials((mine, theirs))
    if not common:
        return NO_COMPARISON
    between = None if len(common) < 2 else _between(metric, mine, theirs, common, pooled)
    parts = [metric.part_accuracy(entry.runs_of(common), store) for entry in (mine, theirs)]
    table = _difference_table(metric, mine, theirs, common, store)
    if parts[0] is not None and parts[1] is not None:
        found = _lowest(metric, mine, theirs, common, between, (parts[0], parts[1]))
    elif table is None:
        found = _from_trials(metric, mine, theirs, common, between)
    elif between is None:
        found = _one_trial(table)
    else:
        found = _several_trials(table, between)
    return replace(found, trials=len(common))


def _between(
    metric: Metric,
    mine: Entry,
    theirs: Entry,
    common: Sequence[int],
    pooled: tuple[TrialVariance, TrialVariance] | None,
) -> TrialVariance:
    """Return the variance between trials of the difference of two methods."""
    if pooled is None:
        rows = [_trial_values(metric, entry, common) for entry in (mine, theirs)]
        first, second = trial_variances(np.array(rows))
    else:
        first, second = pooled
    return TrialVariance(first.variance + second.variance, first.degrees_of_freedom)


def _difference_table(
    metric: Metric, mine: Entry, theirs: Entry, trials: Sequence[int], store: PredictionStore
) -> PerImage | None:
    sides = [entry.runs_of(trials) for entry in (mine, theirs)]
    tables = [metric.per_image(runs, store) for runs in sides]
    if tables[0] is None or tables[1] is None:
        return None
    for split in metric.splits:  # the data of a trial are the same for all methods
        first, second = (store.get(runs[0], split) for runs in sides)
        if first is None or second is None or not same_images([first, second]):
            return None
    values = _sign(metric, mine.value) * tables[0].values
    return replace(tables[0], values=values - _sign(metric, theirs.value) * tables[1].values)


def _one_trial(table: PerImage) -> Comparison:
    z = table.values[0]
    found = contrast(z, table.stratum, table.cluster)
    kind = found.kind.replace("per class", "over images") if table.stratum is None else found.kind
    estimate = Estimate(found.value, found.sd, found.low, found.high, kind, found.note)
    p = found.p_value
    if table.is_correctness and table.cluster is None and np.isin(z, (-1.0, 0.0, 1.0)).all():
        p = mcnemar(int((z > 0).sum()), int((z < 0).sum()))
    error = None if found.sd is None else StandardError((found.sd**2,), (math.inf,))
    return Comparison(estimate, p, error=error, pairing=Pairing.IMAGES)


def _several_trials(table: PerImage, between: TrialVariance) -> Comparison:
    z = table.values
    if not np.any(z):
        note = f"the two agree on all {z.shape[1]} images"
        return Comparison(without_interval(0.0, note), 1.0, pairing=Pairing.IMAGES)
    found = crossed_variance(z, table.stratum, table.cluster, between)
    estimate = Estimate(found.value, found.sd, found.low, found.high, found.kind, found.note)
    if found.error is None or found.value is None:
        return Comparison(estimate)
    p = found.error.p_value(found.value)
    return Comparison(estimate, p, error=found.error, pairing=Pairing.IMAGES)


def _lowest(
    metric: Metric,
    mine: Entry,
    theirs: Entry,
    common: Sequence[int],
    between: TrialVariance | None,
    parts: tuple[GroupAccuracy, GroupAccuracy],
) -> Comparison:
    """Compare the lowest accuracies of parts, group by group."""
    mean = None
    if between is not None:
        mean = TrialVariance(between.variance / len(common), between.degrees_of_freedom)
    found = worst_group_difference(*parts, mean)
    value = _mean_difference(metric, mine, theirs, common)
    sampling = _sampling_variance(metric, mine, theirs, common)
    sd = math.sqrt(sampling + (0.0 if mean is None else mean.variance))
    kind = f"{metric.sampling_kind}{'' if mean is None else ' and trials'}, group by group"
    estimate = Estimate(value, sd, min(found.low, value), max(found.high, value), kind)
    return Comparison(estimate, found.p_value, pairing=Pairing.GROUPS)


def _from_trials(
    metric: Metric,
    mine: Entry,
    theirs: Entry,
    common: Sequence[int],
    between: TrialVariance | None,
) -> Comparison:
    """Return the mean difference over trials where the images cannot be compared one by one."""
    value = _mean_difference(metric, mine, theirs, common)
    sampling = _sampling_variance(metric, mine, theirs, common)
    if between is None and not sampling:
        return Comparison(without_interval(value, "one trial: no standard error"))
    variance = 0.0 if between is None else between.variance / len(common)
    freedom = math.inf if between is None else between.degrees_of_freedom
    error = StandardError((variance, sampling), (freedom, math.inf))
    if error.sd == 0.0:
        note = "the same difference in every trial: no standard error"
        return Comparison(without_interval(value, note), 1.0 if value == 0.0 else None)
    kinds = ["paired t over trials"] if between is not None else []
    kinds += [metric.sampling_kind] if sampling else []
    half = error.half_width()
    estimate = Estimate(value, error.sd, value - half, value + half, " and ".join(kinds))
    p = error.p_value(value)
    return Comparison(estimate, p, error=error, pairing=Pairing.TRIALS)


def _mean_difference(metric: Metric, mine: Entry, theirs: Entry, trials: Sequence[int]) -> float:
    rows = [_trial_values(metric, entry, trials) for entry in (mine, theirs)]
    return statistics.fmean(rows[0]) - statistics.fmean(rows[1])


def _sampling_variance(metric: Metric, mine: Entry, theirs: Entry, trials: Sequence[int]) -> float:
    return sum(metric.sampling_variance(entry.runs_of(trials)) for entry in (mine, theirs))


def _with_probabilities(metric: Metric, found: Sequence[Comparison]) -> list[Comparison]:
    """Add P(better), P(equal) and the posterior to the comparisons that have an interval.

    Few trials make the probabilities more moderate, since they hardly show how much trials vary.
    There is no P(equal) with one trial: networks also differ by their seeds, by an amount that one
    trial does not show, and no prior of it gave probabilities that hold for networks that differ
    little and for those that differ much.
    """
    noises = {k: noise for k, c in enumerate(found) if (noise := _noise(c)) is not None}
    if not noises:
        return list(found)
    values = [found[k].difference.value or 0.0 for k in noises]
    posteriors = posterior_differences(values, list(noises.values()), MARGIN, metric.method_sd)
    result = list(found)
    for k, posterior in zip(noises, posteriors, strict=True):
        positive = posterior.positive
        result[k] = replace(
            found[k],
            p_better=1.0 - positive if metric.smaller_is_better else positive,
            p_equivalent=posterior.equivalent if found[k].trials > 1 else None,
            posterior=None if found[k].error is None else posterior.estimate,
        )
    return result


def _noise(comparison: Comparison) -> Noise | None:
    """Return the variance of the error of a difference, or None where it has no interval.

    Without a standard error, it is that of a normal interval of the same width.
    """
    error = comparison.error
    if error is not None:
        if error.sd == 0.0:
            return None
        if comparison.trials == 1:
            return Noise(error.sd**2)
        by_trials, *others = error.variances
        # Where the trials happen to differ by less than their residual, the images stand in for it.
        borrowed = max(0.0, error.residual - by_trials)
        return Noise(
            max(0.0, math.fsum(others) - borrowed),
            by_trials,
            error.degrees_of_freedom[0],
            comparison.trials,
            error.residual,
        )
    difference = comparison.difference
    if difference.low is None or difference.high is None or difference.low == difference.high:
        return None
    return Noise(((difference.high - difference.low) / (2.0 * NORMAL_QUANTILE)) ** 2)
