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
from benchmark.report.statistics.credible import KIND as CREDIBLE
from benchmark.report.statistics.credible import recall_posterior
from benchmark.report.statistics.estimate import (
    NO_ESTIMATE,
    Estimate,
    listed,
    normal_estimate,
)
from benchmark.report.statistics.over_trials import mean_over_trials
from benchmark.report.statistics.worst_group import accuracy_of_counts
from benchmark.report.tables.caption import CREDIBLE_COVERAGE
from benchmark.report.tables.metrics._accuracy import has_patients
from benchmark.report.tables.numbers import DASH, bounds, percent, shows_bounds
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.scores import OVERALL_TITLES, PER_CLASS_TITLES, Scores
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread


@REPORT_TABLES.register
class ClassScoreTable(ReportTable):
    """Scores of each class and group, AUC and calibration error."""

    name = "class_scores"
    position = 20
    switch = "--detail"
    help = "also show scores per class and group, AUC and calibration error"

    def sheets(self, report: Report) -> list[Sheet]:
        options = report.options
        return [
            sheet
            for table in report.shown_tables
            for sheet in detail_sheets(
                table, report.store, report.posteriors, options.splits, report.spread
            )
        ]


def detail_sheets(
    table: Table,
    store: PredictionStore,
    posteriors: Posteriors | None = None,
    splits: Sequence[str] = (),
    spread: str = Spread.SD,
) -> list[Sheet]:
    """Return overall scores, scores per class and accuracy per group of one data set.

    Args:
        table: The results.
        store: Predictions of the selected runs.
        posteriors: Posteriors of confusion matrices; by default, those of the exact engine.
        splits: Test splits to show; by default the split of the average accuracy.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.

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
    if posteriors is None:
        posteriors = Posteriors(credible=spread == Spread.CREDIBLE)
    return [
        sheet
        for split in splits or (main,)
        for sheet in _of_split(table, Scores(split, store, posteriors, spread), record)
    ]


def _of_split(table: Table, scores: Scores, record: RunRecord) -> list[Sheet]:
    rows = {
        row.marked_label: [w for w in row.selected_runs if scores.split in w.at.counts]
        for row in table.rows
    }
    rows = {method: selected_runs for method, selected_runs in rows.items() if selected_runs}
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
    printed: list[Estimate] = []
    for method, selected_runs in rows.items():
        found = {
            " ".join(title): scores.overall(selected_runs, name)
            for name, title in OVERALL_TITLES.items()
        }
        areas = found["mean AUC"] = [scores.auc(run) for run in selected_runs]
        found["calibration error"] = [scores.calibration(run) for run in selected_runs]
        names = [*OVERALL_TITLES, "auc", "calibration"]
        estimates = [
            scores.over_trials(selected_runs, name, each)
            for name, each in zip(names, found.values(), strict=True)
        ]
        shown.append([method, *(_cell(estimate, scores.spread) for estimate in estimates)])
        printed += estimates
        notes += _undefined(method, found)
        notes += [f"{method}, AUC: {area.note}" for area in areas if area.note]
    several = _has_several_labels(rows, scores.split)
    single = "sampling sd, labels together" if several else "posterior sd"
    each = (
        "each label, yes against no, mean over labels"
        if several
        else "one class against the rest, mean over them"
    )
    caption = [
        f"Split {scores.split}, in per cent; {_spread(rows, single, scores)}.",
        f"AUC: {each}. Calibration error: {BINS} bins of confidence"
        f"{' of every prediction' if several else ''}.",
    ]
    caption += [how] if (how := scores.how()) else []
    notes = [*_without_images(rows, scores.split, labels), *dict.fromkeys(notes)]
    notes += _credible_notes(rows, scores, printed)
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
    return [f"{what}: {listed(names)}; means over classes leave them out"] if names else []


def _class_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, labels: Sequence[str]
) -> Sheet:
    heads = [("method",), *((title,) for title in PER_CLASS_TITLES.values()), ("AUC",)]
    shown: list[list[str]] = []
    notes: list[str] = []
    printed: list[Estimate] = []
    for k, label in enumerate(labels):
        shown.append([label])
        for method, selected_runs in rows.items():
            found = {
                title: scores.per_class(selected_runs, name, k)
                for name, title in PER_CLASS_TITLES.items()
            }
            found["AUC"] = [scores.auc(run, k) for run in selected_runs]
            names = [f"{name} {k}" for name in (*PER_CLASS_TITLES, "auc")]
            estimates = [
                scores.over_trials(selected_runs, name, each)
                for name, each in zip(names, found.values(), strict=True)
            ]
            shown.append([method, *(_cell(estimate, scores.spread) for estimate in estimates)])
            printed += estimates
            notes += _undefined(f"{method}, {label}", found)
    spread = _spread(rows, "posterior sd", scores)
    several = _has_several_labels(rows, scores.split)
    what = "each label, yes against no" if several else "one class against the rest"
    caption = [f"Split {scores.split}, {what}, in per cent; {spread}."]
    notes += _credible_notes(rows, scores, printed)
    return Sheet(f"{table.title}, per class", caption, heads, shown, notes=notes)


def _group_sheet(
    table: Table, rows: Mapping[str, list[SelectedRun]], scores: Scores, groups: Sequence[str]
) -> Sheet:
    split = scores.split
    sizes = group_counts(next(iter(rows.values()))[0].at.counts[split])[1]
    filled = _groups_with_images(rows, split)
    num_empty = sum(g not in filled for g in range(len(groups)))
    shown = []
    printed: list[Estimate] = []
    for g, name in enumerate(groups):
        if g not in filled:
            continue
        estimates = [_group_estimate(runs, scores, [g] * len(runs)) for runs in rows.values()]
        cells = [_cell(estimate, scores.spread) for estimate in estimates]
        title = table.titles.of_group(table.dataset, name)
        shown.append([title, str(sizes[g]) if g < len(sizes) else DASH, *cells])
        printed += estimates
    cells = [_cell(_of_validation(runs, scores), scores.spread) for runs in rows.values()]
    shown.append(["worst in validation", DASH, *cells])
    spread = _spread(rows, "standard error over images", scores)
    caption = [
        f"Accuracy on split {split}, in per cent; {spread}. n: images in the first trial.",
        "Worst in validation: the group with the lowest validation accuracy, which unlike the "
        f"lowest accuracy on {split} is not biased by its choice.",
    ]
    notes = []
    if num_empty:
        notes.append(f"{num_empty} of {len(groups)} groups have no images in split {split}")
    notes += _credible_notes(rows, scores, printed)
    heads = [("group",), ("n",), *((method,) for method in rows)]
    return Sheet(f"{table.title}, per group", caption, heads, shown, notes=notes, stub=2)


def _groups_with_images(rows: Mapping[str, list[SelectedRun]], split: str) -> set[int]:
    """Return the groups that have images in at least one trial."""
    sizes = [group_counts(run.at.counts[split])[1] for runs in rows.values() for run in runs]
    return {int(g) for size in sizes for g in np.flatnonzero(size)}


def _group_estimate(runs: Sequence[SelectedRun], scores: Scores, groups: Sequence[int]) -> Estimate:
    """Return the accuracy of a group over trials.

    With pseudo-counts in its standard error, or the posterior of a single trial if it is printed.

    Args:
        runs: The run of each trial.
        scores: The scores of the split.
        groups: The group of each trial.
    """
    found = []
    for run, group in zip(runs, groups, strict=True):
        counts = run.at.counts[scores.split]
        correct, total = (each[group : group + 1] for each in group_counts(counts))
        if not len(total) or not total[0]:
            found.append(NO_ESTIMATE)
            continue
        if scores.spread == Spread.CREDIBLE and len(runs) == 1:
            posterior = recall_posterior(int(correct[0]), int(total[0]), counts.shape[-1])
            return posterior or NO_ESTIMATE
        accuracy = accuracy_of_counts(correct, total)
        sd = math.sqrt(float(accuracy.image_variance[0]))
        found.append(normal_estimate(float(accuracy.mean[0]), sd, "binomial", (0.0, 1.0)))
    return mean_over_trials(found)


def _of_validation(runs: Sequence[SelectedRun], scores: Scores) -> Estimate:
    """Return the test accuracy of the group that is worst in validation."""
    pairs = [(run, worst_group(run.at.counts["val"])) for run in runs if "val" in run.at.counts]
    known = [(run, group) for run, group in pairs if group is not None]
    return _group_estimate([run for run, _ in known], scores, [group for _, group in known])


def _spread(rows: Mapping[str, list[SelectedRun]], single: str, scores: Scores) -> str:
    """Return what is printed beside a score.

    Args:
        rows: Selected runs of each method.
        single: The standard deviation of a single trial.
        scores: The scores.
    """
    trials = {len(selected_runs) for selected_runs in rows.values()}
    if scores.spread == Spread.CREDIBLE:
        one = f"± {single} and 95 % interval"
        if "sampling" not in single:
            one = "posterior mean ± posterior sd and 95 % credible interval"
        one += "" if "over images" in single else " (AUC: DeLong)"
        over_trials = "mean ± sd over trials and 95 % interval that counts trials and test images"
        if trials == {1}:
            return one
        return over_trials + (f", with one trial {one}" if 1 in trials else "")
    if scores.intervals:
        how = "that counts trials and test images" if trials != {1} else "that counts test images"
        return f"{'mean over trials' if trials != {1} else 'one trial'} and 95 % interval {how}"
    single += "" if "over images" in single else " (AUC: DeLong)"
    if trials == {1}:
        return f"± {single}"
    return "mean ± sd over trials" + (f", with one trial ± {single}" if 1 in trials else "")


def _credible_notes(
    rows: Mapping[str, list[SelectedRun]], scores: Scores, printed: Sequence[Estimate]
) -> list[str]:
    """Return what credible intervals are for; nothing if none is printed."""
    if not any(estimate.kind == CREDIBLE for estimate in printed):
        return []
    single = [runs[0] for runs in rows.values() if len(runs) == 1]
    notes = [CREDIBLE_COVERAGE]
    if any(has_patients(run, scores.split, scores.store) for run in single):
        notes.append("posteriors count images of the same patient as independent")
    return notes


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


def _cell(estimate: Estimate, spread: str) -> str:
    """Return value ± sd, the value and its interval, rounded outwards, or all of them."""
    decimals = 1
    if estimate.value is None:
        return DASH
    text = percent(estimate.value, decimals)
    edges = bounds(estimate, decimals)
    bracket = ""
    if edges and (shows_bounds(spread) or not estimate.sd):
        bracket = f" [{edges[0]}, {edges[1]}]"
    if estimate.sd is not None and (spread == Spread.CREDIBLE or not bracket):
        text += f" ± {percent(estimate.sd, decimals)}"
    return text + bracket
