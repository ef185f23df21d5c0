"""Methods against each other on the same test images: differences, and who cannot be told from the best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore, same_images
from benchmark.report.statistics.estimate import Estimate, student_quantile
from benchmark.report.statistics.hypothesis_tests import holm, mcnemar
from benchmark.report.statistics.stratified_mean import contrast, crossed_variance
from benchmark.report.tables.metric import Metric, PerImage
from benchmark.report.tables.value import Value

#: Differences below one point count as equivalent; tests are made at this level after Holm's correction.
MARGIN, ALPHA = 0.01, 0.05
#: Degrees of freedom from which Student's distribution is the normal one.
_MANY = 1e9


@dataclass(frozen=True)
class Comparison:
    """One method minus another on one column; for the gap the difference of the absolute gaps.

    Attributes:
        difference: its value, standard error and interval; ``kind`` says how the error was made.
        p: two-sided; p_holm: adjusted within the family. p_better: the method is better. p_equivalent: within a point.
        trials: trials that both have.
    """

    difference: Estimate
    p: float | None = None
    p_better: float | None = None
    p_equivalent: float | None = None
    trials: int = 0
    p_holm: float | None = None


NO_COMPARISON = Comparison(Estimate(None, None, None, None, "none", "no trial that both have"))


def compare(
    metric: Metric,
    mine: tuple[Sequence[SelectedRun], Value],
    theirs: tuple[Sequence[SelectedRun], Value],
    store: PredictionStore,
) -> Comparison:
    """Method minus reference over the trials that both have.

    With predictions: a paired contrast on the same images; one trial by ``contrast`` (accuracy: exact McNemar), several
    by the crossed analysis of variance. Without: Student's t over the trials' differences. Worst groups: that and the
    binomial variance of both minima, as if their groups were different ones; with one trial the latter alone.
    """
    common = sorted(set(mine[1].per_trial or {}) & set(theirs[1].per_trial or {}))
    if not common:
        return NO_COMPARISON
    pairs = [[w for w in side[0] if w.trial in common] for side in (mine, theirs)]
    signs = [_sign(metric, side[1]) for side in (mine, theirs)]
    table = _difference_table(metric, pairs, signs, store)
    if table is None:
        sampling = sum(metric.sampling_variance(selected_runs) for selected_runs in pairs)
        found = _over_trials(metric, mine[1], theirs[1], common, sampling)
    elif len(common) == 1:
        found = _one_trial(table)
    else:
        found = _several_trials(table)
    found = replace(found, trials=len(common))
    return replace(found, p_better=_flip(found.p_better)) if metric.smaller_is_better else found


def add_holm(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of one family (one data set and metric) with Holm's adjusted p-values."""
    return [replace(c, p_holm=p) for c, p in zip(family, holm([c.p for c in family]), strict=True)]


def mark_best(
    metric: Metric, rows: Sequence[tuple[Sequence[SelectedRun], Value]], store: PredictionStore
) -> list[bool | None]:
    """For every row: not distinguishable from the column's best after Holm (the best itself is marked too).

    None everywhere where nothing can be tested, and for rows without a value.
    """
    at = [i for i, (_, value) in enumerate(rows) if value.estimate.value is not None]
    marks: list[bool | None] = [None] * len(rows)
    if len(at) < 2:
        return marks
    best = max(at, key=lambda i: _quality(metric, rows[i][1]))
    others = [i for i in at if i != best]
    family = add_holm([compare(metric, rows[i], rows[best], store) for i in others])
    if all(c.p_holm is None for c in family):
        return marks
    marks[best] = True
    for i, comparison in zip(others, family, strict=True):
        marks[i] = None if comparison.p_holm is None else comparison.p_holm >= ALPHA
    return marks


def _quality(metric: Metric, value: Value) -> float:
    """Return a number that is larger for better values."""
    number = metric.comparable(value.estimate.value or 0.0)
    return -number if metric.smaller_is_better else number


def _sign(metric: Metric, value: Value) -> int:
    """Return −1 for a negative value of a metric that is compared by its magnitude, else 1."""
    return -1 if metric.compares_magnitude and (value.estimate.value or 0.0) < 0 else 1


def _difference_table(
    metric: Metric,
    pairs: Sequence[Sequence[SelectedRun]],
    signs: Sequence[int],
    store: PredictionStore,
) -> PerImage | None:
    tables = [metric.per_image(selected_runs, store) for selected_runs in pairs]
    if tables[0] is None or tables[1] is None:
        return None
    for split in metric.splits:  # one trial's data are the same for all methods: check it once
        answers = [store.answers(selected_runs[0], split) for selected_runs in pairs]
        if answers[0] is None or answers[1] is None or not same_images([answers[0], answers[1]]):
            return None
    return replace(tables[0], values=signs[0] * tables[0].values - signs[1] * tables[1].values)


def _one_trial(table: PerImage) -> Comparison:
    z = table.values[0]
    found = contrast(z, table.stratum, table.cluster, MARGIN)
    kind = found.kind.replace("per class", "over images") if table.stratum is None else found.kind
    estimate = Estimate(found.value, found.sd, found.low, found.high, kind, found.note)
    p = found.p_value
    if table.is_correctness and table.cluster is None and np.isin(z, (-1.0, 0.0, 1.0)).all():
        p = mcnemar(int((z > 0).sum()), int((z < 0).sum()))
    return Comparison(estimate, p, found.p_positive, found.p_equivalent)


def _several_trials(table: PerImage) -> Comparison:
    z = table.values
    found = crossed_variance(z, table.stratum, table.cluster)
    estimate = Estimate(found.value, found.sd, found.low, found.high, found.kind, found.note)
    if not np.any(z):
        note = f"the two agree on all {z.shape[1]} images"
        return Comparison(Estimate(0.0, None, None, None, "none", note), 1.0)
    return _student(estimate, found.degrees_of_freedom)


def _over_trials(
    metric: Metric, mine: Value, theirs: Value, common: Sequence[int], sampling: float
) -> Comparison:
    """The mean difference over trials; ``sampling``: variance of the test sample that the trials cannot show."""
    assert mine.per_trial is not None and theirs.per_trial is not None
    differences = [
        metric.comparable(mine.per_trial[t]) - metric.comparable(theirs.per_trial[t])
        for t in common
    ]
    mean = statistics.fmean(differences)
    if len(differences) == 1 and not sampling:
        return Comparison(Estimate(mean, None, None, None, "none", "one trial: no standard error"))
    many = len(differences)
    between = statistics.variance(differences) / many if many > 1 else 0.0
    se = math.sqrt(between + sampling)
    if se == 0.0:
        note = "the same difference in every trial: no standard error"
        return Comparison(
            Estimate(mean, None, None, None, "none", note), 1.0 if mean == 0.0 else None
        )
    freedom = (
        (many - 1) * (se**2 / between) ** 2 if between else math.inf
    )  # Satterthwaite's; sampling has no end
    kinds = [
        *(["paired t over trials"] if many > 1 else []),
        *([metric.sampling_kind] if sampling else []),
    ]
    half = student_quantile(min(freedom, _MANY)) * se
    return _student(
        Estimate(mean, se, mean - half, mean + half, " and ".join(kinds)), min(freedom, _MANY)
    )


def _student(estimate: Estimate, freedom: float | None) -> Comparison:
    if estimate.value is None or not estimate.sd or freedom is None:
        return Comparison(estimate)
    t, margin = estimate.value / estimate.sd, MARGIN / estimate.sd
    return Comparison(
        estimate,
        p=float(2 * stdtr(freedom, -abs(t))),
        p_better=float(stdtr(freedom, t)),
        p_equivalent=float(stdtr(freedom, margin - t) - stdtr(freedom, -margin - t)),
    )


def _flip(p: float | None) -> float | None:
    return None if p is None else 1.0 - p
