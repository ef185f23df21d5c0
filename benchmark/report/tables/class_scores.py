"""More scores of one split: per class, per group, AUC and calibration error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from benchmark.core.counts import confusion_matrix, group_accuracy, group_counts, is_multi_label
from benchmark.core.errors import UserError
from benchmark.core.record import RunRecord
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.delong import auc_of_labels, auc_one_vs_rest
from benchmark.report.statistics.estimate import Estimate, finite_or_none, without_interval
from benchmark.report.statistics.multilabel import macro_scores
from benchmark.report.statistics.over_trials import mean_over_trials
from benchmark.report.statistics.plug_in import overall, per_class
from benchmark.report.statistics.posterior import ConfusionPosterior, confusion_posterior
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet

#: Equal-width bins of the confidence in the calibration error.
BINS = 15
_OVERALL = {
    "balanced_accuracy": ("balanced", "accuracy"),
    "macro_precision": ("macro", "precision"),
    "macro_specificity": ("macro", "specificity"),
    "macro_f1": ("macro", "F1"),
}
_PER_CLASS = {
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
}


def calibration_error(label: np.ndarray, logits: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error of the predicted class: Σ_bins share · |accuracy − mean confidence|.

    Args:
        label: int64[N], or int64[N,K] of 0 and 1: then every answer, yes or no, counts. logits: float[N,K].
        bins: equal-width bins of the confidence in (0, 1].
    Source: Guo et al. (2017), equation 3.
    """
    confidence, right, bin_ = _confidence(label, logits, bins)
    difference = np.bincount(bin_, right - confidence, minlength=bins)
    return float(np.abs(difference).sum() / label.size)


def reliability(
    label: np.ndarray, logits: np.ndarray, bins: int = 10
) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, images) of every bin that has images."""
    confidence, right, bin_ = _confidence(label, logits, bins)
    size = np.bincount(bin_, minlength=bins)
    sums = np.bincount(bin_, confidence, minlength=bins), np.bincount(bin_, right, minlength=bins)
    return [
        (float(sums[0][b] / size[b]), float(sums[1][b] / size[b]), int(size[b]))
        for b in np.flatnonzero(size)
    ]


def _confidence(
    label: np.ndarray, logits: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if label.ndim == 2:  # several labels per image: each is a question of two classes, no and yes
        label, logits = label.ravel(), np.stack([np.zeros(logits.size), logits.ravel()], axis=1)
    probability = softmax(logits, axis=1)
    predicted = logits.argmax(1)
    confidence = probability[np.arange(len(label)), predicted]
    bin_ = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return confidence, (predicted == label).astype(np.float64), bin_


class Scores:
    """The costly scores of winners on one split, each computed once.

    Args:
        split: where everything is measured. store: the winners' predictions.
        engine: of the posterior, ``exact`` or ``nuts``.
        intervals: every trial needs its uncertainty, not only a single one.
    """

    def __init__(
        self, split: str, store: PredictionStore, engine: str = "exact", intervals: bool = False
    ) -> None:
        self.split, self.store, self.engine, self.intervals = split, store, engine, intervals
        self._posteriors: dict[tuple[str, int], ConfusionPosterior | None] = {}
        self._macro: dict[str, dict[str, Estimate]] = {}
        self._from_scores: dict[str, tuple[tuple[Estimate, ...], Estimate, Estimate]] = {}

    def overall(self, selected_runs: Sequence[SelectedRun], name: str) -> list[Estimate]:
        """One of ``_OVERALL`` for each winner; a single winner's has its posterior sd (several labels: sampling sd)."""
        return [
            self._overall(w, name, len(selected_runs) == 1 or self.intervals) for w in selected_runs
        ]

    def _overall(self, selected_run: SelectedRun, name: str, uncertain: bool) -> Estimate:
        counts = selected_run.at.counts[self.split]
        if uncertain and is_multi_label(counts):
            if found := self._of_labels(selected_run):
                return found[name]
        elif uncertain and (posterior := self._posterior(selected_run)) is not None:
            return getattr(posterior, name)  # type: ignore[no-any-return]
        return without_interval(overall(counts).get(name))

    def per_class(self, selected_runs: Sequence[SelectedRun], name: str, k: int) -> list[Estimate]:
        """One of ``_PER_CLASS`` of class ``k`` (several labels: of the answer yes to ``k``) for each selected run."""
        return [
            self._per_class(w, name, k, len(selected_runs) == 1 or self.intervals)
            for w in selected_runs
        ]

    def _per_class(self, selected_run: SelectedRun, name: str, k: int, uncertain: bool) -> Estimate:
        counts = selected_run.at.counts[self.split]
        several = is_multi_label(counts)
        if (
            uncertain
            and (posterior := self._posterior(selected_run, k if several else None)) is not None
        ):
            return getattr(posterior, name)[1 if several else k]  # type: ignore[no-any-return]
        return without_interval(per_class(counts)[name][k])

    def auc(self, selected_run: SelectedRun, k: int | None = None) -> Estimate:
        """AUC of class ``k`` against the rest, or the mean over classes."""
        per_class_, mean, _ = self._scored(selected_run)
        return (
            mean if k is None else per_class_[k] if k < len(per_class_) else without_interval(None)
        )

    def calibration(self, selected_run: SelectedRun) -> Estimate:
        return self._scored(selected_run)[2]

    def how(self) -> str:
        """The Monte Carlo behind the posterior sds, in a sentence; empty where none was needed."""
        made = [p for p in self._posteriors.values() if p is not None]
        if not made:
            return (
                "NUTS was not needed: every row has several trials."
                if self.engine == "nuts"
                else ""
            )
        draws, error = max(p.draws for p in made), max(p.monte_carlo_error for p in made)
        divergent = sum(p.divergences or 0 for p in made)
        warning = f", {divergent} divergences" if self.engine == "nuts" else ""
        return f"Posterior: {self.engine}, {draws:,} draws, Monte Carlo error at most {error:.1g}{warning}."

    def _posterior(
        self, selected_run: SelectedRun, k: int | None = None
    ) -> ConfusionPosterior | None:
        """Of the confusion matrix, or of label ``k``'s; None where it has no posterior: one class, no images."""
        key = selected_run.run.key, -1 if k is None else k
        if key not in self._posteriors:
            table = confusion_matrix(selected_run.at.counts[self.split])
            table = table if k is None else table[k]
            usable = len(table) > 1 and table.any()
            self._posteriors[key] = (
                confusion_posterior(table, engine=self.engine) if usable else None
            )
        return self._posteriors[key]

    def _of_labels(self, selected_run: SelectedRun) -> dict[str, Estimate]:
        """The macro scores of data with several labels, or nothing where the predictions cannot be used."""
        key = selected_run.run.key
        if key not in self._macro:
            found, answers = (
                self.store.scores(selected_run, self.split),
                self.store.get(selected_run, self.split),
            )
            self._macro[key] = (
                {}
                if found is None or answers is None
                else macro_scores(found[0] == 1, found[1] > 0, answers.cluster)
            )
        return self._macro[key]

    def _scored(self, selected_run: SelectedRun) -> tuple[tuple[Estimate, ...], Estimate, Estimate]:
        key = selected_run.run.key
        if key not in self._from_scores:
            found = self.store.scores(selected_run, self.split)
            if found is None:
                self._from_scores[key] = (
                    (),
                    replace(without_interval(None), note="no usable predictions"),
                    without_interval(None),
                )
            else:
                areas = (auc_of_labels if found[0].ndim == 2 else auc_one_vs_rest)(*found)
                self._from_scores[key] = (*areas, without_interval(calibration_error(*found)))
        return self._from_scores[key]


@REPORT_TABLES.register
class ClassScoreTable(ReportTable):
    """Scores of each class and group, AUC and calibration error."""

    name = "class_scores"
    position = 20
    switch = "--detail"
    help = "also per class, per group, AUC and calibration error"

    def sheets(self, report: Report) -> list[Sheet]:
        options = report.options
        return [
            sheet
            for table in report.tables
            for sheet in detail_sheets(
                table, report.store, options.engine, options.splits, report.spread
            )
        ]


def detail_sheets(
    table: Table,
    store: PredictionStore,
    engine: str = "exact",
    splits: Sequence[str] = (),
    spread: str = "sd",
) -> list[Sheet]:
    """Overall scores, scores per class and accuracy per group of one data set.

    Args:
        engine: of the posterior, ``exact`` or ``nuts``.
        splits: test splits to show; none for the one that average and worst group are measured on.
        spread: what stands beside a value: ``sd`` or ``interval``.

    Raises:
        UserError: the data set has no such test split.
    """
    record = next(
        (w.run.record for row in table.rows for w in row.selected_runs if w.run.record), None
    )
    if record is None or (main := record.data.main_split) is None:
        return []
    known = record.data.test_splits
    if wrong := [name for name in splits if name not in known]:
        raise UserError(
            f"{table.dataset} has no test split {wrong[0]!r}; --split takes {', '.join(known)}."
        )
    return [
        sheet
        for split in splits or (main,)
        for sheet in _of_split(table, store, engine, split, record, spread)
    ]


def _of_split(
    table: Table, store: PredictionStore, engine: str, split: str, record: RunRecord, spread: str
) -> list[Sheet]:
    rows = {
        row.marked_label: [w for w in row.selected_runs if split in w.at.counts]
        for row in table.rows
    }
    rows = {method: selected_runs for method, selected_runs in rows.items() if selected_runs}
    scores = Scores(split, store, engine, spread == "interval")
    labels = record.data.label_names
    groups = record.data.group_names
    sheets = [
        _overall_sheet(table, rows, scores, labels),
        _class_sheet(table, rows, scores, labels),
    ]
    return sheets + ([_group_sheet(table, rows, split, groups)] if groups and rows else [])


def _overall_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, labels: Sequence[str]
) -> Sheet:
    heads = [("method",), *_OVERALL.values(), ("mean", "AUC"), ("calibration", "error")]
    shown, notes = [], []
    for method, selected_runs in rows.items():
        found = {
            " ".join(title): scores.overall(selected_runs, name) for name, title in _OVERALL.items()
        }
        areas = found["mean AUC"] = [scores.auc(w) for w in selected_runs]
        found["calibration error"] = [scores.calibration(w) for w in selected_runs]
        shown.append([method, *(_cell(each, scores.intervals) for each in found.values())])
        notes += _undefined(method, found)
        notes += [f"{method}, AUC: {area.note}" for area in areas if area.note]
    several = any(
        is_multi_label(w.at.counts[scores.split])
        for selected_runs in rows.values()
        for w in selected_runs
    )
    single = (
        "sampling sd, labels together (AUC: DeLong)" if several else "posterior sd (AUC: DeLong)"
    )
    each = (
        "each label, yes against no, mean over labels"
        if several
        else "one class against the rest, mean over them"
    )
    caption = [
        f"Split {scores.split}, in per cent; {_spread(rows, single, scores.intervals)}.",
        f"AUC: {each}. Calibration error: {BINS} bins of confidence{' of every answer' if several else ''}.",
    ]
    caption += [how] if (how := scores.how()) else []
    notes = [*_without_images(rows, scores.split, labels), *dict.fromkeys(notes)]
    return Sheet(f"{table.title}, more scores", caption, heads, shown, notes=notes)


def _without_images(
    rows: Mapping[str, list[SelectedRun]], split: str, labels: Sequence[str]
) -> list[str]:
    """Classes that the split does not show (of several labels: those that all images have, or none)."""
    tables = [
        confusion_matrix(w.at.counts[split])
        for selected_runs in rows.values()
        for w in selected_runs
    ]
    if any(
        is_multi_label(w.at.counts[split]) for selected_runs in rows.values() for w in selected_runs
    ):
        left = sorted(
            {int(k) for table in tables for k in np.flatnonzero((table.sum(2) == 0).any(1))}
        )
        what = "labels that all images have, or none"
    else:
        left = sorted({int(k) for table in tables for k in np.flatnonzero(table.sum(1) == 0)})
        what = "no test images of"
    names = [labels[k] if k < len(labels) else f"class {k}" for k in left]
    return [f"{what}: {', '.join(names)}; means over classes leave them out"] if names else []


def _class_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, labels: Sequence[str]
) -> Sheet:
    heads = [("method",), *((title,) for title in _PER_CLASS.values()), ("AUC",)]
    shown: list[list[str]] = []
    notes: list[str] = []
    for k, label in enumerate(labels):
        shown.append([label])
        for method, selected_runs in rows.items():
            found = {
                title: scores.per_class(selected_runs, name, k)
                for name, title in _PER_CLASS.items()
            }
            found["AUC"] = [scores.auc(w, k) for w in selected_runs]
            shown.append([method, *(_cell(each, scores.intervals) for each in found.values())])
            notes += _undefined(f"{method}, {label}", found)
    spread = _spread(rows, "posterior sd (AUC: DeLong)", scores.intervals)
    several = any(
        is_multi_label(w.at.counts[scores.split])
        for selected_runs in rows.values()
        for w in selected_runs
    )
    what = "each label, yes against no" if several else "one class against the rest"
    caption = [f"Split {scores.split}, {what}, in per cent; {spread}."]
    return Sheet(f"{table.title}, per class", caption, heads, shown, notes=notes)


def _group_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], split: str, groups: Sequence[str]
) -> Sheet:
    sizes = group_counts(next(iter(rows.values()))[0].at.counts[split])[1]
    accuracy = {
        method: [group_accuracy(w.at.counts[split]) for w in selected_runs]
        for method, selected_runs in rows.items()
    }
    shown = []
    for g, name in enumerate(groups):
        cells = [
            _cell([without_interval(finite_or_none(a[g]) if g < len(a) else None) for a in trials])
            for trials in accuracy.values()
        ]
        shown.append([name, str(sizes[g]) if g < len(sizes) else DASH, *cells])
    caption = [
        f"Accuracy on split {split}, in per cent; {_spread(rows, '')}. n: images in the first trial."
    ]
    heads = [("group",), ("n",), *((method,) for method in rows)]
    return Sheet(f"{table.title}, per group", caption, heads, shown, stub=2)


def _spread(rows: Mapping[str, list[SelectedRun]], single: str, intervals: bool = False) -> str:
    trials = {len(selected_runs) for selected_runs in rows.values()}
    if intervals:
        how = "that counts trials and test images" if trials != {1} else "that counts test images"
        return f"{'mean over trials' if trials != {1} else 'one trial'} and 95 % interval {how}"
    if trials == {1}:
        return f"± {single}" if single else "one trial"
    return "mean ± sd over trials" + (
        f", with one trial ± {single}" if 1 in trials and single else ""
    )


def _undefined(method: str, found: Mapping[str, Sequence[Estimate]]) -> list[str]:
    """Scores that only some trials have: their mean is over these, which must be said."""
    notes = []
    for title, estimates in found.items():
        missing = sum(e.value is None for e in estimates)
        if 0 < missing < len(estimates):
            notes.append(
                f"{method}: {title} is undefined in {missing} of {len(estimates)} trials, here of the others"
            )
    return notes


def _cell(estimates: Sequence[Estimate], interval: bool = False) -> str:
    """Mean ± sd over trials (one trial's own sd where it has one), or the mean and its interval, rounded outwards."""
    found = mean_over_trials(estimates)
    if found.value is None:
        return DASH
    text = percent(found.value, 1)
    if interval and found.low is not None and found.high is not None:
        low, high = (
            math.floor(found.low * 1000 + 1e-6) / 1000,
            math.ceil(found.high * 1000 - 1e-6) / 1000,
        )
        return f"{text} [{percent(low, 1)}, {percent(high, 1)}]"
    return text if found.sd is None else f"{text} ± {percent(found.sd, 1)}"
