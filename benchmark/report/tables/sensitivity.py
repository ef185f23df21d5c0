"""Sensitivity of heatmaps and predictions to the class, its evidence and the shortcut."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.core.counts import is_multi_label
from benchmark.core.summaries import Sensitivity
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.statistics.estimate import NO_ESTIMATE, Estimate, normal_estimate
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.tables.numbers import DASH, shows_bounds
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.scores import Scores
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread

#: Limits of the measures; a correlation and the effect of the shortcut may be negative.
_SHARE = (0.0, 1.0)
_LIMITS = {"explanation_ncc": (-1.0, 1.0), "tag_effect": (-math.inf, math.inf)}
#: The column of the score on the split on which the shortcut misleads.
_REVERSED = "reversed_score"
#: Measures whose entries name the labels that have a shortcut.
_OF_SHORTCUT = ("confounder_sensitivity", "tag_effect")
#: Columns that are in every sheet with confounder sensitivity.
_BESIDE_CONFOUNDER = (_REVERSED, "tag_effect", "flips")
#: Measures that are not shares, which are not printed in per cent.
_NO_SHARES = ("explanation_ncc", "tag_effect")


@dataclass(frozen=True)
class Column:
    """A measure on a split.

    Attributes:
        measure: Name of the measure.
        split: Test split; empty for pairs of images.
        title: Lines of the column's title.
        in_percent: Whether the values are printed in per cent.
    """

    measure: str
    split: str
    title: tuple[str, ...]
    in_percent: bool = True

    @property
    def is_score(self) -> bool:
        """Whether it is the score on the split on which the shortcut misleads."""
        return self.measure == _REVERSED


@dataclass(frozen=True)
class ExplainedRow:
    """The selected models of a method, and what was measured of one explainer of them.

    Attributes:
        row: Row of the method.
        explainer: Name of the explainer.
        runs: The models, with the entries of each.
        is_own: Whether it is the explainer of the method, and not one that [explanations] names.
    """

    row: Row
    explainer: str
    runs: tuple[tuple[SelectedRun, tuple[Sensitivity, ...]], ...]
    is_own: bool = True

    @property
    def entries(self) -> list[Sensitivity]:
        """The entries of all models."""
        return [entry for _, entries in self.runs for entry in entries]


#: Title lines of each measure, in the order of the columns. What a shortcut does to the predictions
#: comes right after how much of it the heatmaps show.
_TITLES = {
    "confounder_sensitivity": ("confounder", "sensitivity %"),
    "global_confounder_sensitivity": ("confounder,", "global %"),
    _REVERSED: (),
    "tag_effect": ("shortcut", "effect / sd"),
    "flips": ("predictions", "flipped %"),
    "explanation_ncc": ("correlation", "of heatmaps"),
    "class_sensitivity": ("class", "sensitivity %"),
    "disease_sensitivity": ("evidence", "sensitivity %"),
}
_EXPLAINED = {
    "class_sensitivity": "Class: share of the positive relevance in the one of four images that "
    "has the class (chance 25 %).",
    "disease_sensitivity": "Evidence: share of the positive relevance in the mask of the class",
    "confounder_sensitivity": "Confounder: share of the shortcut's pixels among the most relevant "
    "10 % of an image (chance 10 %)",
    "global_confounder_sensitivity": "Global: the same of the global explanation of the class.",
    "explanation_ncc": "Correlation: of the heatmaps of an image with and without the shortcut.",
    "tag_effect": "Shortcut effect: change of the logit of its class, in standard deviations; "
    "flipped: predictions that change with it. Heatmaps may hide a shortcut that these two show.",
}


@REPORT_TABLES.register
class SensitivityTable(ReportTable):
    """Sensitivity of the explanations, and what the shortcut does to the predictions."""

    name = "sensitivity"
    position = 42
    json_key = "sensitivity"

    def sheets(self, report: Report) -> list[Sheet]:
        """Return one sheet for each data set whose runs measured sensitivity."""
        made = [sensitivity_sheet(table, report) for table in report.shown_tables]
        return [sheet for sheet in made if sheet is not None]

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        """Return every entry of every selected run."""
        return [
            {
                "dataset": table.dataset,
                "method": explained.row.code_label,
                "explainer": explained.explainer,
                "trial": run.trial,
                **vars(entry),
                "label": _label_name(run, entry.label),
            }
            for table in report.tables
            for explained in explained_rows(table, report)
            for run, entries in explained.runs
            for entry in entries
        ]


def sensitivity_sheet(table: Table, report: Report) -> Sheet | None:
    """Return the sheet of one data set; None if no run measured anything.

    The score on the split on which the shortcut misleads and the effect of the shortcut on the
    predictions are part of every sheet with confounder sensitivity.
    """
    rows = explained_rows(table, report)
    if not rows:
        return None
    entries = [entry for row in rows for entry in row.entries]
    columns = _columns(rows, entries)
    interval = shows_bounds(report.spread)
    shown = _Cells(report, rows, interval=interval)
    heads: list[tuple[str, ...]] = [("method",), ("explained by",)]
    heads += [column.title for column in columns]
    body = [
        [
            row.row.marked_label,
            table.titles.of(row.explainer),
            *(shown.text(row, column) for column in columns),
        ]
        for row in rows
    ]
    caption = _caption(columns, entries, interval=interval)
    return Sheet(
        f"{table.title}, sensitivity", caption, heads, body, stub=2, notes=_notes(rows, columns)
    )


def explained_rows(table: Table, report: Report) -> list[ExplainedRow]:
    """Return every method and explainer of a data set whose sensitivity was measured."""
    found = []
    for row in table.rows:
        own = tuple((run, _entries(run)) for run in row.selected_runs)
        measured = [ExplainedRow(row, _explainers(row), own)]
        by_trial = {run.trial: run for run in row.selected_runs}
        for explainer in report.measurements.explainers(row.selected_runs):
            runs = tuple((by_trial[one.trial], one.summary.sensitivity) for one in explainer.trials)
            measured.append(ExplainedRow(row, explainer.name, runs, is_own=False))
        found += [one for one in measured if one.entries]
    return found


class _Cells:
    """The texts of the cells of a sheet.

    Args:
        report: The report.
        rows: The rows of the sheet.
        interval: Whether intervals are printed instead of standard deviations.
    """

    def __init__(self, report: Report, rows: Sequence[ExplainedRow], *, interval: bool) -> None:
        self.interval = interval
        split = _reversed_split(rows)
        self.scores = Scores(split, report.store, spread=Spread.INTERVAL) if split else None
        self.several = _has_several_labels(rows, split)

    def text(self, row: ExplainedRow, column: Column) -> str:
        """Return the mean over trials of a measure."""
        scale, digits = (100, 1) if column.in_percent else (1, 2)
        estimate = self._reversed_score(row) if column.is_score else _over_trials(row, column)
        return _number(estimate, scale, digits, interval=self.interval)

    def _reversed_score(self, row: ExplainedRow) -> Estimate:
        """Return the accuracy where the shortcut misleads.

        For several labels it is the mean AUC of those that have a shortcut.
        """
        if self.scores is None or not row.is_own:
            return NO_ESTIMATE
        split = self.scores.split
        runs = [(run, entries) for run, entries in row.runs if split in run.at.counts]
        if self.several:
            found = [self._auc(run, entries) for run, entries in runs]
        else:
            found = [_accuracy(run, split) for run, _ in runs]
        return _mean(found, _SHARE)

    def _auc(self, run: SelectedRun, entries: Sequence[Sensitivity]) -> Estimate:
        assert self.scores is not None
        labels = {e.label for e in entries if e.measure in _OF_SHORTCUT}
        if not labels:
            return self.scores.auc(run)
        known = [
            area for k in sorted(labels) if (area := self.scores.auc(run, k)).value is not None
        ]
        if len(known) < 2:
            return known[0] if known else NO_ESTIMATE
        value = statistics.fmean(area.value for area in known if area.value is not None)
        sds = [area.sd for area in known if area.sd is not None]
        # the labels share their images; the mean sd is the largest that their mean can have
        return (
            normal_estimate(value, statistics.fmean(sds), "DeLong", _SHARE) if sds else NO_ESTIMATE
        )


def _entries(run: SelectedRun) -> tuple[Sensitivity, ...]:
    record = run.run.record
    if record is None or record.explanations is None:
        return ()
    return record.explanations.sensitivity


def _label_name(run: SelectedRun, label: int) -> str:
    names = run.run.record.data.label_names if run.run.record else ()
    return names[label] if label < len(names) else f"class {label}"


def _columns(rows: Sequence[ExplainedRow], entries: Sequence[Sensitivity]) -> list[Column]:
    """Return the columns: class and evidence on the main split, the shortcut where it agrees."""
    data = next(run.run.record.data for row in rows for run, _ in row.runs if run.run.record)
    biased, deceiving = data.bias_splits or (None, None)
    preferred = {
        "class_sensitivity": (data.main_split,),
        "disease_sensitivity": (data.main_split, *data.test_splits),
        "confounder_sensitivity": (biased, data.main_split, deceiving, *data.test_splits),
    }
    measured = {(entry.measure, entry.split) for entry in entries}
    of_confounder = any("confounder" in measure for measure, _ in measured)
    several = _has_several_labels(rows, deceiving)
    columns = []
    for measure, title in _TITLES.items():
        if measure == _REVERSED:
            title = (deceiving or "reversed", "AUC %" if several else "accuracy %")
        always = of_confounder and measure in _BESIDE_CONFOUNDER
        for split in preferred.get(measure, ("",)):
            if split is not None and (always or (measure, split) in measured):
                head = (split, *title) if split else title
                columns.append(Column(measure, split, head, measure not in _NO_SHARES))
                break
    return columns


def _has(columns: Iterable[Column], measure: str) -> bool:
    return any(column.measure == measure for column in columns)


def _of_run(entries: Sequence[Sensitivity], column: Column) -> Estimate:
    """Return the mean of a measure over classes, with its standard error over images."""
    values = [
        entry
        for entry in entries
        if (entry.measure, entry.split) == (column.measure, column.split)
        and entry.value is not None
    ]
    if not values:
        return NO_ESTIMATE
    mean = statistics.fmean(entry.value for entry in values if entry.value is not None)
    errors = [entry.error for entry in values if entry.error is not None]
    if len(errors) < len(values):
        return Estimate(mean, None, None, None, "none", "no standard error over images")
    error = math.sqrt(sum(e**2 for e in errors)) / len(values)
    return normal_estimate(mean, error, "images", _LIMITS.get(column.measure, _SHARE))


def _over_trials(row: ExplainedRow, column: Column) -> Estimate:
    """Return the mean over trials; its interval counts trials and images."""
    found = [_of_run(entries, column) for _, entries in row.runs]
    return _mean(found, _LIMITS.get(column.measure, _SHARE))


def _mean(found: Sequence[Estimate], limits: tuple[float, float]) -> Estimate:
    known = [estimate for estimate in found if estimate.value is not None]
    if len(known) < 2:
        return known[0] if known else NO_ESTIMATE
    variances = [estimate.sd**2 for estimate in known if estimate.sd is not None]
    sampling = statistics.fmean(variances) if variances else 0.0
    values = [estimate.value for estimate in known if estimate.value is not None]
    return student_over_trials(values, limits=limits, sampling=sampling)


def _number(estimate: Estimate, scale: int, digits: int, *, interval: bool) -> str:
    if estimate.value is None:
        return DASH
    text = f"{scale * estimate.value:.{digits}f}"
    if interval and estimate.low is not None and estimate.high is not None:
        return f"{text} [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"
    if interval or estimate.sd is None:
        return text
    return f"{text} ± {scale * estimate.sd:.{digits}f}"


def _reversed_split(rows: Sequence[ExplainedRow]) -> str | None:
    """Return the split on which the shortcut misleads, if the data have one."""
    for row in rows:
        for run, _ in row.runs:
            if run.run.record and run.run.record.data.bias_splits:
                return run.run.record.data.bias_splits[1]
    return None


def _has_several_labels(rows: Sequence[ExplainedRow], split: str | None) -> bool:
    return any(
        is_multi_label(run.at.counts[split])
        for row in rows
        for run, _ in row.runs
        if split is not None and split in run.at.counts
    )


def _accuracy(run: SelectedRun, split: str) -> Estimate:
    counts = run.at.counts[split]
    correct = float(counts.diagonal(axis1=1, axis2=2).sum())
    total = float(counts.sum())
    if not total:
        return NO_ESTIMATE
    share = correct / total
    error = math.sqrt(share * (1 - share) / total)
    return normal_estimate(share, error, "binomial", _SHARE)


def _explainers(row: Row) -> str:
    records = [run.run.record for run in row.selected_runs]
    names = [r.explanations.explainer or DASH for r in records if r and r.explanations]
    return ", ".join(dict.fromkeys(names))


def _caption(
    columns: Sequence[Column],
    entries: Sequence[Sensitivity],
    *,
    interval: bool,
) -> list[str]:
    spread = (
        "means over classes and trials, and 95 % intervals that count trials and images"
        if interval
        else "means over classes; ± sd over trials, with one trial ± standard error over images"
    )
    sentences = [f"{spread[0].upper()}{spread[1:]}."]
    for column in columns:
        sentence = _EXPLAINED.get(column.measure, "")
        area = _area(column, entries)
        if column.measure == "disease_sensitivity":
            sentence += f" (chance: its area, {100 * area:.1f} %)." if area is not None else "."
        if column.measure == "confounder_sensitivity":
            covered = "" if area is None else f"; it covers {100 * area:.1f} % of the image"
            sentence += f"{covered}."
        if sentence:
            sentences.append(sentence)
    if _has(columns, "tag_effect") and not any(e.measure == "tag_effect" for e in entries):
        sentences.append("The effect of the shortcut needs tests that show the same objects.")
    return sentences


def _area(column: Column, entries: Sequence[Sensitivity]) -> float | None:
    areas = [
        entry.area
        for entry in entries
        if (entry.measure, entry.split) == (column.measure, column.split) and entry.area is not None
    ]
    return statistics.fmean(areas) if areas else None


def _notes(rows: Sequence[ExplainedRow], columns: Sequence[Column]) -> list[str]:
    """Return notes on images that do not count, and on classes that have no value."""
    notes = []
    for row in rows:
        for column in columns:
            entries = [
                (run, entry)
                for run, of_run in row.runs
                for entry in of_run
                if (entry.measure, entry.split) == (column.measure, column.split)
            ]
            left_out = sum(entry.left_out for _, entry in entries)
            title = " ".join(column.title).removesuffix(" %")
            label = row.row.marked_label
            if not row.is_own:
                label += f", {row.explainer}"
            if left_out:
                total = left_out + sum(entry.images for _, entry in entries)
                notes.append(
                    f"{label}, {title}: undefined for {left_out:,} of {total:,}, such "
                    "as blank heatmaps, which do not count"
                )
            missing = dict.fromkeys(
                _label_name(run, entry.label) for run, entry in entries if entry.value is None
            )
            if missing:
                notes.append(f"{label}, {title}: no value for {', '.join(missing)} in some trials")
    return notes
