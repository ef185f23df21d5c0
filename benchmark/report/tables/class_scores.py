"""Scores of one split: per class and per group, AUC and calibration error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmark.core.counts import confusion_matrix, group_counts, is_multi_label, worst_group
from benchmark.core.errors import UserError
from benchmark.core.record import RunRecord
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.calibration import BINS
from benchmark.report.statistics.estimate import (
    NO_ESTIMATE,
    Estimate,
    normal_estimate,
)
from benchmark.report.statistics.over_trials import mean_over_trials
from benchmark.report.statistics.worst_group import accuracy_of_counts
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.scores import OVERALL_TITLES, PER_CLASS_TITLES, Scores
from benchmark.report.tables.sheet import Sheet


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
    """Return overall scores, scores per class and accuracy per group of one data set.

    Args:
        table: The results.
        store: Predictions of the selected runs.
        engine: Engine of the posterior, ``exact`` or ``nuts``.
        splits: Test splits to show; by default the split of the average accuracy.
        spread: What is printed beside a value, ``sd`` or ``interval``.

    Raises:
        UserError: If the data set has no such test split.
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
    heads = [("method",), *OVERALL_TITLES.values(), ("mean", "AUC"), ("calibration", "error")]
    shown, notes = [], []
    for method, selected_runs in rows.items():
        found = {
            " ".join(title): scores.overall(selected_runs, name)
            for name, title in OVERALL_TITLES.items()
        }
        areas = found["mean AUC"] = [scores.auc(run) for run in selected_runs]
        found["calibration error"] = [scores.calibration(run) for run in selected_runs]
        names = [*OVERALL_TITLES, "auc", "calibration"]
        cells = [
            _cell(scores.over_trials(selected_runs, name, each), interval=scores.intervals)
            for name, each in zip(names, found.values(), strict=True)
        ]
        shown.append([method, *cells])
        notes += _undefined(method, found)
        notes += [f"{method}, AUC: {area.note}" for area in areas if area.note]
    several = _has_several_labels(rows, scores.split)
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
        f"AUC: {each}. Calibration error: {BINS} bins of confidence"
        f"{' of every answer' if several else ''}.",
    ]
    caption += [how] if (how := scores.how()) else []
    notes = [*_without_images(rows, scores.split, labels), *dict.fromkeys(notes)]
    return Sheet(f"{table.title}, more scores", caption, heads, shown, notes=notes)


def _has_several_labels(rows: Mapping[str, list[SelectedRun]], split: str) -> bool:
    return any(is_multi_label(run.at.counts[split]) for runs in rows.values() for run in runs)


def _without_images(
    rows: Mapping[str, list[SelectedRun]], split: str, labels: Sequence[str]
) -> list[str]:
    """Return a note on classes without images, or labels that all images have or none."""
    tables = [confusion_matrix(run.at.counts[split]) for runs in rows.values() for run in runs]
    if _has_several_labels(rows, split):
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
    heads = [("method",), *((title,) for title in PER_CLASS_TITLES.values()), ("AUC",)]
    shown: list[list[str]] = []
    notes: list[str] = []
    for k, label in enumerate(labels):
        shown.append([label])
        for method, selected_runs in rows.items():
            found = {
                title: scores.per_class(selected_runs, name, k)
                for name, title in PER_CLASS_TITLES.items()
            }
            found["AUC"] = [scores.auc(run, k) for run in selected_runs]
            names = [f"{name} {k}" for name in (*PER_CLASS_TITLES, "auc")]
            cells = [
                _cell(scores.over_trials(selected_runs, name, each), interval=scores.intervals)
                for name, each in zip(names, found.values(), strict=True)
            ]
            shown.append([method, *cells])
            notes += _undefined(f"{method}, {label}", found)
    spread = _spread(rows, "posterior sd (AUC: DeLong)", scores.intervals)
    several = _has_several_labels(rows, scores.split)
    what = "each label, yes against no" if several else "one class against the rest"
    caption = [f"Split {scores.split}, {what}, in per cent; {spread}."]
    return Sheet(f"{table.title}, per class", caption, heads, shown, notes=notes)


def _group_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, groups: Sequence[str]
) -> Sheet:
    split = scores.split
    sizes = group_counts(next(iter(rows.values()))[0].at.counts[split])[1]
    filled = _groups_with_images(rows, split)
    num_empty = sum(g not in filled for g in range(len(groups)))
    shown = []
    for g, name in enumerate(groups):
        if g not in filled:
            continue
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
    notes = []
    if num_empty:
        notes.append(f"{num_empty} of {len(groups)} groups have no images in split {split}")
    heads = [("group",), ("n",), *((method,) for method in rows)]
    return Sheet(f"{table.title}, per group", caption, heads, shown, notes=notes, stub=2)


def _groups_with_images(rows: Mapping[str, list[SelectedRun]], split: str) -> set[int]:
    """Return the groups that have images in at least one trial."""
    sizes = [group_counts(run.at.counts[split])[1] for runs in rows.values() for run in runs]
    return {int(g) for size in sizes for g in np.flatnonzero(size)}


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
    """Return notes on scores that only some trials have, since their mean is over these."""
    notes = []
    for title, estimates in found.items():
        missing = sum(e.value is None for e in estimates)
        if 0 < missing < len(estimates):
            notes.append(
                f"{method}: {title} is undefined in {missing} of {len(estimates)} trials, "
                "here of the others"
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
