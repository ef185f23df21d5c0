"""More scores of one split: per class, per group, AUC and calibration error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import confusion_matrix, group_counts, is_multi_label, worst_group
from benchmark.core.errors import UserError
from benchmark.core.record import RunRecord
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.calibration import BINS, calibration_estimate
from benchmark.report.statistics.delong import auc_contributions, auc_of_labels, auc_one_vs_rest
from benchmark.report.statistics.delta_method import Contributions, score_contributions
from benchmark.report.statistics.estimate import (
    NO_ESTIMATE,
    Estimate,
    normal_estimate,
    without_interval,
)
from benchmark.report.statistics.multilabel import macro_scores
from benchmark.report.statistics.over_trials import crossed_over_trials, mean_over_trials
from benchmark.report.statistics.plug_in import overall, per_class
from benchmark.report.statistics.posterior import ConfusionPosterior, confusion_posterior
from benchmark.report.statistics.worst_group import accuracy_of_counts
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet

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


@dataclass(frozen=True)
class _FromScores:
    """What follows from the scores of one run.

    Attributes:
        areas: AUC of each class against the rest.
        mean_area: Their mean.
        calibration: Calibration error.
    """

    areas: tuple[Estimate, ...]
    mean_area: Estimate
    calibration: Estimate


_NO_SCORES = _FromScores((), without_interval(None, "no usable predictions"), NO_ESTIMATE)


class Scores:
    """The costly scores of selected runs on one split, each computed once.

    Args:
        split: Where everything is measured.
        store: Predictions of the selected runs.
        engine: Engine of the posterior, ``exact`` or ``nuts``.
        intervals: Whether every trial needs its uncertainty, not only a single one.
    """

    def __init__(
        self, split: str, store: PredictionStore, engine: str = "exact", intervals: bool = False
    ) -> None:
        self.split = split
        self.store = store
        self.engine = engine
        self.intervals = intervals
        self._posteriors: dict[tuple[str, int], ConfusionPosterior | None] = {}
        self._macro: dict[str, dict[str, Estimate]] = {}
        self._from_scores: dict[str, _FromScores] = {}
        self._contributions: dict[str, dict[str, Contributions]] = {}

    def overall(self, selected_runs: Sequence[SelectedRun], name: str) -> list[Estimate]:
        """Return one of ``_OVERALL`` for each run.

        A single run's has its posterior sd, or its sampling sd if images have several labels.
        """
        uncertain = len(selected_runs) == 1 or self.intervals
        return [self._overall(run, name, uncertain=uncertain) for run in selected_runs]

    def _overall(self, selected_run: SelectedRun, name: str, *, uncertain: bool) -> Estimate:
        counts = selected_run.at.counts[self.split]
        if uncertain and is_multi_label(counts):
            if found := self._of_labels(selected_run):
                return found[name]
        elif uncertain and (posterior := self._posterior(selected_run)) is not None:
            return getattr(posterior, name)  # type: ignore[no-any-return]
        return without_interval(overall(counts).get(name))

    def per_class(self, selected_runs: Sequence[SelectedRun], name: str, k: int) -> list[Estimate]:
        """Return one of ``_PER_CLASS`` for each run.

        Args:
            selected_runs: The run of each trial.
            name: Name of the score.
            k: The class; if images have several labels, the label that is present.
        """
        uncertain = len(selected_runs) == 1 or self.intervals
        return [self._per_class(run, name, k, uncertain=uncertain) for run in selected_runs]

    def _per_class(
        self, selected_run: SelectedRun, name: str, k: int, *, uncertain: bool
    ) -> Estimate:
        counts = selected_run.at.counts[self.split]
        several = is_multi_label(counts)
        posterior = self._posterior(selected_run, k if several else None) if uncertain else None
        if posterior is not None:
            return getattr(posterior, name)[1 if several else k]  # type: ignore[no-any-return]
        return without_interval(per_class(counts)[name][k])

    def auc(self, selected_run: SelectedRun, k: int | None = None) -> Estimate:
        """Return the AUC of class ``k`` against the rest, or the mean over classes."""
        found = self._scored(selected_run)
        if k is None:
            return found.mean_area
        return found.areas[k] if k < len(found.areas) else NO_ESTIMATE

    def calibration(self, selected_run: SelectedRun) -> Estimate:
        """Return the calibration error."""
        return self._scored(selected_run).calibration

    def over_trials(
        self, selected_runs: Sequence[SelectedRun], name: str, estimates: Sequence[Estimate]
    ) -> Estimate:
        """Return the mean over trials, with an interval if intervals are printed.

        The interval is crossed if predictions show the same images in all trials.

        Args:
            selected_runs: The run of each trial.
            name: Name of the score in ``_contributions_of``.
            estimates: The score of each run.
        """
        known = self.intervals and len(selected_runs) > 1
        if not known or any(estimate.value is None for estimate in estimates):
            return mean_over_trials(estimates)
        if self.store.matrix(selected_runs, self.split) is None:
            return mean_over_trials(estimates)
        found = [self._contributions_of(run).get(name) for run in selected_runs]
        contributions = [one for one in found if one is not None]
        if len(contributions) < len(selected_runs):
            return mean_over_trials(estimates)
        first = self.store.get(selected_runs[0], self.split)
        cluster = None if first is None else first.cluster
        on_logit_scale = name.startswith("auc")
        return crossed_over_trials(estimates, contributions, cluster, on_logit_scale=on_logit_scale)

    def how(self) -> str:
        """Return a sentence on the Monte Carlo behind the posterior sds; empty if none was made."""
        made = [p for p in self._posteriors.values() if p is not None]
        if not made:
            several = "NUTS was not needed: every row has several trials."
            return several if self.engine == "nuts" else ""
        draws = max(p.draws for p in made)
        error = max(p.monte_carlo_error for p in made)
        divergent = sum(p.divergences or 0 for p in made)
        warning = f", {divergent} divergences" if self.engine == "nuts" else ""
        return (
            f"Posterior: {self.engine}, {draws:,} draws, "
            f"Monte Carlo error at most {error:.1g}{warning}."
        )

    def _posterior(
        self, selected_run: SelectedRun, k: int | None = None
    ) -> ConfusionPosterior | None:
        """Return the posterior of the confusion matrix, or of label ``k``'s.

        None if there is none, because of a single class or no images.
        """
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
        """Return the macro scores of several labels; nothing without usable predictions."""
        key = selected_run.run.key
        if key not in self._macro:
            scores = self.store.scores(selected_run, self.split)
            predictions = self.store.get(selected_run, self.split)
            self._macro[key] = {}
            if scores is not None and predictions is not None:
                label, logits = scores
                self._macro[key] = macro_scores(label == 1, logits > 0, predictions.cluster)
        return self._macro[key]

    def _scored(self, selected_run: SelectedRun) -> _FromScores:
        key = selected_run.run.key
        if key not in self._from_scores:
            found = self.store.scores(selected_run, self.split)
            self._from_scores[key] = _NO_SCORES
            if found is not None:
                label, logits = found
                areas = (auc_of_labels if label.ndim == 2 else auc_one_vs_rest)(label, logits)
                calibration, _ = calibration_estimate(label, logits)
                self._from_scores[key] = _FromScores(*areas, calibration)
        return self._from_scores[key]

    def _contributions_of(self, selected_run: SelectedRun) -> dict[str, Contributions]:
        """Return what images contribute to each score.

        Names are those of ``_OVERALL``, ``auc`` and ``calibration``; of classes ``recall 0``, …,
        ``auc 0``, ….
        """
        key = selected_run.run.key
        if key not in self._contributions:
            self._contributions[key] = {}
            found = self.store.scores(selected_run, self.split)
            if found is not None:
                counts = selected_run.at.counts[self.split]
                self._contributions[key] = _contributions(*found, counts)
        return self._contributions[key]


def _contributions(
    label: np.ndarray, logits: np.ndarray, counts: np.ndarray
) -> dict[str, Contributions]:
    found = {"calibration": calibration_estimate(label, logits)[1]}
    areas, mean = auc_contributions(label, logits)
    if mean is not None:
        found["auc"] = mean
    found |= {f"auc {k}": area for k, area in enumerate(areas) if area is not None}
    if label.ndim == 1 and logits.shape[1] > 1:
        table = confusion_matrix(counts)
        for name, each in score_contributions(table, label, logits.argmax(1)).items():
            if name in _OVERALL:
                found[name] = each[0]
            elif name in _PER_CLASS:
                found |= {f"{name} {k}": one for k, one in enumerate(each)}
    return {name: one for name, one in found.items() if np.isfinite(one.values).all()}


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
    return sheets + ([_group_sheet(table, rows, scores, groups)] if groups and rows else [])


def _overall_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, labels: Sequence[str]
) -> Sheet:
    heads = [("method",), *_OVERALL.values(), ("mean", "AUC"), ("calibration", "error")]
    shown, notes = [], []
    for method, selected_runs in rows.items():
        found = {
            " ".join(title): scores.overall(selected_runs, name) for name, title in _OVERALL.items()
        }
        areas = found["mean AUC"] = [scores.auc(run) for run in selected_runs]
        found["calibration error"] = [scores.calibration(run) for run in selected_runs]
        names = [*_OVERALL, "auc", "calibration"]
        cells = [
            _cell(scores.over_trials(selected_runs, name, each), interval=scores.intervals)
            for name, each in zip(names, found.values(), strict=True)
        ]
        shown.append([method, *cells])
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
            found["AUC"] = [scores.auc(run, k) for run in selected_runs]
            names = [f"{name} {k}" for name in (*_PER_CLASS, "auc")]
            cells = [
                _cell(scores.over_trials(selected_runs, name, each), interval=scores.intervals)
                for name, each in zip(names, found.values(), strict=True)
            ]
            shown.append([method, *cells])
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
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, groups: Sequence[str]
) -> Sheet:
    split = scores.split
    sizes = group_counts(next(iter(rows.values()))[0].at.counts[split])[1]
    shown = []
    for g, name in enumerate(groups):
        cells = [
            _cell(mean_over_trials(_group_estimates(runs, split, g)), interval=scores.intervals)
            for runs in rows.values()
        ]
        shown.append([name, str(sizes[g]) if g < len(sizes) else DASH, *cells])
    shown.append(["worst in validation", DASH, *_validation_cells(rows, scores)])
    spread = _spread(rows, "standard error over images", scores.intervals)
    caption = [
        f"Accuracy on split {split}, in per cent; {spread}. n: images in the first trial.",
        "Worst in validation: the group with the lowest validation accuracy, which unlike the "
        f"lowest accuracy on {split} is not biased by its choice.",
    ]
    heads = [("group",), ("n",), *((method,) for method in rows)]
    return Sheet(f"{table.title}, per group", caption, heads, shown, stub=2)


def _group_estimates(runs: Sequence[SelectedRun], split: str, group: int) -> list[Estimate]:
    """Return the accuracy of a group in each trial, with pseudo-counts in its standard error."""
    found = []
    for run in runs:
        correct, total = (each[group : group + 1] for each in group_counts(run.at.counts[split]))
        if not len(total) or not total[0]:
            found.append(NO_ESTIMATE)
            continue
        accuracy = accuracy_of_counts(correct, total)
        sd = math.sqrt(float(accuracy.image_variance[0]))
        found.append(normal_estimate(float(accuracy.mean[0]), sd, "binomial", (0.0, 1.0)))
    return found


def _validation_cells(rows: Mapping[str, list[SelectedRun]], scores: Scores) -> list[str]:
    """Return the test accuracy of the group that is worst in validation, for each method."""
    cells = []
    for runs in rows.values():
        estimates = []
        for run in runs:
            worst = worst_group(run.at.counts["val"]) if "val" in run.at.counts else None
            if worst is not None:
                estimates += _group_estimates([run], scores.split, worst)
        cells.append(_cell(mean_over_trials(estimates), interval=scores.intervals))
    return cells


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


def _cell(estimate: Estimate, *, interval: bool) -> str:
    """Return value ± sd, or the value and its interval, rounded outwards."""
    if estimate.value is None:
        return DASH
    text = percent(estimate.value, 1)
    if estimate.low is not None and estimate.high is not None and (interval or not estimate.sd):
        low = math.floor(estimate.low * 1000 + 1e-6) / 1000
        high = math.ceil(estimate.high * 1000 - 1e-6) / 1000
        return f"{text} [{percent(low, 1)}, {percent(high, 1)}]"
    return text if estimate.sd is None else f"{text} ± {percent(estimate.sd, 1)}"
