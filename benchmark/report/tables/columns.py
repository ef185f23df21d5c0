"""What the columns of a table are, and what each one's value is for the winners of a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.core.counts import (
    Ints,
    accuracy,
    class_counts,
    confusion_matrix,
    group_counts,
    is_multi_label,
)
from benchmark.core.record import DataSummary
from benchmark.report.records.model_selection import Winner
from benchmark.report.records.predictions import Answers, Book, pair_order
from benchmark.report.statistics.estimate import Estimate, clipped, finite_or_none
from benchmark.report.statistics.generalization_gap import paired_gap, unpaired_gap
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.statistics.posterior import accuracy_posterior
from benchmark.report.statistics.stratified_mean import crossed_variance, stratified_mean
from benchmark.report.statistics.worst_group import worst_group_interval, worst_group_over_trials

OWN_IMAGES = "t over trials, each with test images of its own"
TRIALS = "t over trials"
NONE = Estimate(None, None, None, None, "none")

#: Metrics that are the lowest accuracy of the parts of a split: right answers and images of each part, from counts.
WORST: Mapping[str, Callable[[np.ndarray], tuple[Ints, Ints]]] = {
    "worst_group_accuracy": group_counts,
    "worst_class_accuracy": class_counts,
}


@dataclass(frozen=True)
class Column:
    """One metric on one split, or on two (the gap).

    Attributes:
        metric: its name in CSV and JSON, such as ``worst_group_accuracy``; ``also``: further names of the same number.
        splits: what it is computed on. title: one or two short lines.
        smaller: whether less is better.
    """

    metric: str
    splits: tuple[str, ...]
    title: tuple[str, ...]
    also: tuple[str, ...] = ()
    smaller: bool = False


@dataclass(frozen=True)
class Value:
    """A cell's number.

    Attributes:
        estimate: ``sd`` is over trials where there are several, else of the test sample alone.
        per_trial: by trial number. notes: footnotes that hold whatever is printed.
        best: not distinguishable from the best of its column; None where that was not tested.
    """

    estimate: Estimate = NONE
    per_trial: Mapping[int, float] | None = None
    notes: tuple[str, ...] = ()
    best: bool | None = None

    @property
    def trials(self) -> int:
        return len(self.per_trial or ())


NOTHING = Value()


def main_split(data: DataSummary) -> str | None:
    """Where average and worst-group accuracy are measured: ``unbiased``, else ``test``, else the first other split.

    A split that only shows the bias (the biased one of ``bias_splits``) comes last.
    """
    splits = data.test_splits
    for name in ("unbiased", "test"):
        if name in splits:
            return name
    biased, deceiving = data.bias_splits or (None, None)
    others = [name for name in splits if name not in (biased, deceiving)]
    return next(iter([*others, *(s for s in (deceiving, biased) if s in splits)]), None)


def columns_of(data: DataSummary) -> list[Column]:
    """The columns of a data set's table: average, worst group, then the other test splits, then the gap.

    Data without confounder labels have no groups; the worst class takes the place of the worst group.
    """
    main = main_split(data)
    if main is None:
        return []
    columns = [
        Column("average_accuracy", (main,), ("average", f"({main})"), (f"{main}_accuracy",)),
        Column("worst_group_accuracy", (main,), ("worst group", f"({main})"))
        if data.confounder_names
        else Column("worst_class_accuracy", (main,), ("worst class", f"({main})")),
    ]
    columns += [
        Column(f"{name}_accuracy", (name,), (name,)) for name in data.test_splits if name != main
    ]
    if data.bias_splits:
        columns.append(Column("gap", data.bias_splits, ("gap",), smaller=True))
    return columns


def value_of(column: Column, winners: Sequence[Winner], book: Book | None = None) -> Value:
    """The column's value over the trials that have it.

    One trial: the plug-in value with the uncertainty of the test sample. Several: mean ± sd over trials, and an
    interval that counts trials and test images (crossed analysis of variance) where predictions.npz tells which images
    were right, else Student's t over trials. Worst groups: both, from the counts.
    """
    having = [w for w in winners if all(split in w.at.counts for split in column.splits)]
    estimates = {w.trial: one_trial(column, w, book) for w in having}
    values = {trial: e.value for trial, e in estimates.items() if e.value is not None}
    notes = list(dict.fromkeys(e.note for e in estimates.values() if _matters(e)))
    if len(having) < len(winners):
        lacking = f"{len(winners) - len(having)} of {len(winners)} trials"
        notes.append(f"no counts of {' and '.join(column.splits)} in {lacking}")
    if not values:
        return Value(notes=tuple(notes))
    if len(values) == 1:
        return Value(estimates[next(iter(values))], values, tuple(notes))
    chosen = [w for w in having if w.trial in values]
    if column.metric in WORST:
        parts = [WORST[column.metric](w.at.counts[column.splits[0]]) for w in chosen]
        if len({len(total) for _, total in parts}) == 1:
            worst = worst_group_over_trials(
                [right for right, _ in parts], [total for _, total in parts]
            )
            return Value(replace(worst, note=""), values, tuple(notes))
    limits = (-1.0, 1.0) if column.metric == "gap" else (0.0, 1.0)
    estimate = student_over_trials(list(values.values()), _kind(column, chosen, book), limits)
    crossed = crossed_table(column, chosen, book) if book else None
    if crossed is not None:
        both = crossed_variance(crossed.values, crossed.stratum, crossed.cluster)
        low, high = (
            (None, None)
            if both.low is None or both.high is None
            else clipped(both.low, both.high, limits)
        )
        estimate = replace(estimate, low=low, high=high, kind=both.kind, note=both.note)
    return Value(estimate, values, tuple(notes))


def _matters(estimate: Estimate) -> bool:
    """Whether a note concerns the value itself and not only its interval."""
    return bool(estimate.note) and (
        estimate.value is None or not estimate.note.startswith("no interval")
    )


def _kind(column: Column, winners: Sequence[Winner], book: Book | None) -> str:
    """Why the interval is over trials alone: every trial has test images of its own, or nothing tells."""
    known = book is not None and all(
        book.answers(w, split) is not None for w in winners for split in column.splits
    )
    return OWN_IMAGES if known else TRIALS


@dataclass(frozen=True)
class Crossed:
    """Per-image ``values`` [S,n] whose mean (over strata, where there are) is a column; ``cluster``: of patients."""

    values: np.ndarray
    stratum: np.ndarray | None = None
    cluster: np.ndarray | None = None


def crossed_table(column: Column, winners: Sequence[Winner], book: Book) -> Crossed | None:
    """The per-image values behind a column; None where it is no mean over images.

    The gap of pairs is a mean over pairs of biased − deceiving. Without pairs it is twice the mean over two strata of
    ±correctness, so that both test samples and their common trials are counted.
    """
    if column.metric in WORST:
        return None
    tables = [book.matrix(winners, split) for split in column.splits]
    if any(t is None for t in tables):
        return None
    if column.metric != "gap":
        only = book.answers(winners[0], column.splits[0])
        assert tables[0] is not None and only is not None
        return Crossed(tables[0], cluster=only.cluster)
    biased, deceiving = (t for t in tables if t is not None)
    answers = [book.answers(winners[0], split) for split in column.splits]
    assert answers[0] is not None and answers[1] is not None
    clusters = [a.cluster for a in answers if a is not None and a.cluster is not None]
    rows = pair_order(answers[0], answers[1])
    if rows is not None:
        return Crossed(
            biased[:, rows[0]] - deceiving[:, rows[1]],
            cluster=clusters[0][rows[0]] if clusters else None,
        )
    stratum = np.repeat([0, 1], [biased.shape[1], deceiving.shape[1]])
    cluster = np.concatenate(clusters) if len(clusters) == 2 else None
    return Crossed(np.concatenate([2 * biased, -2 * deceiving], axis=1), stratum, cluster)


def one_trial(column: Column, winner: Winner, book: Book | None = None) -> Estimate:
    """The plug-in value of one trial with the uncertainty of its test sample."""
    counts = [winner.at.counts[split] for split in column.splits]
    if column.metric == "worst_class_accuracy":
        return _worst_class(counts[0])
    if column.metric == "worst_group_accuracy":
        known = winner.run.record is not None and bool(winner.run.record.data.confounder_names)
        return _worst(counts[0], known)
    answers = [book.answers(winner, split) if book else None for split in column.splits]
    parts = [_accuracy(c, a) for c, a in zip(counts, answers, strict=True)]
    if column.metric != "gap":
        return parts[0]
    if answers[0] is not None and answers[1] is not None:
        rows = pair_order(answers[0], answers[1])
        if rows is not None and (
            answers[0].right.dtype != np.bool_ or answers[0].cluster is not None
        ):
            z = answers[0].right[rows[0]].astype(np.float64) - answers[1].right[rows[1]]
            cluster = None if answers[0].cluster is None else answers[0].cluster[rows[0]]
            return stratified_mean(z, cluster=cluster, limits=(-1.0, 1.0))
        if rows is not None:
            joint = np.bincount(
                2 * answers[0].right[rows[0]] + answers[1].right[rows[1]], minlength=4
            )
            return paired_gap(joint.reshape(2, 2))
    return unpaired_gap(parts[0], parts[1])


def _accuracy(counts: np.ndarray, answers: Answers | None) -> Estimate:
    value = finite_or_none(accuracy(counts))
    if value is None:
        return replace(NONE, note="the split has no images")
    if answers is not None and (
        answers.cluster is not None or is_multi_label(counts)
    ):  # answers that are not independent
        found = stratified_mean(answers.right, cluster=answers.cluster, limits=(0.0, 1.0))
        if found.sd is not None or is_multi_label(counts):
            return found
    if is_multi_label(counts):
        return replace(
            NONE, value=value, note="no interval: the answers of each image are not known"
        )
    table = confusion_matrix(counts)
    if len(table) < 2:
        return replace(NONE, value=value, note="one class only: every prediction is right")
    return accuracy_posterior(table)


def _worst(counts: np.ndarray, groups_known: bool) -> Estimate:
    if not groups_known:
        return replace(NONE, note="confounders are unknown, so there are no groups")
    correct, total = group_counts(counts)
    if not total.any():
        return replace(NONE, note="the split has no images")
    groups = int((total > 0).sum())
    note = ""
    if groups == 1:
        note = "only one group has images"
    elif groups < len(total):
        note = f"{len(total) - groups} of {len(total)} groups have no images and are left out"
    return replace(worst_group_interval(correct, total), note=note)


def _worst_class(counts: np.ndarray) -> Estimate:
    right, total = class_counts(counts)
    if not total.any():
        return replace(NONE, note="the split has no images")
    empty = int((total == 0).sum())
    note = f"{empty} of {len(total)} classes have no images and are left out" if empty else ""
    return replace(worst_group_interval(right, total), note=note)
