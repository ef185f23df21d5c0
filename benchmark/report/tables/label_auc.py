"""AUC of each label, and its rates at the threshold that validation selects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.core.thresholds import youden_threshold
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.estimate import NO_ESTIMATE, Estimate, normal_estimate
from benchmark.report.statistics.over_trials import mean_over_trials
from benchmark.report.statistics.worst_group import accuracy_of_counts
from benchmark.report.tables.numbers import DASH, plain
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.scores import Scores
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread, Value


@dataclass(frozen=True)
class LabelRates:
    """Rates of one label in one trial, at the threshold of the validation data.

    Attributes:
        threshold: Logit above which the label is predicted; None if validation defines none.
        sensitivity: Share of the test images with the label for which it is predicted.
        specificity: Share of those without the label for which it is not.
    """

    threshold: float | None
    sensitivity: Estimate = NO_ESTIMATE
    specificity: Estimate = NO_ESTIMATE


@REPORT_TABLES.register
class LabelAucTable(ReportTable):
    """AUC of each label with DeLong's interval, and rates at Youden's threshold."""

    name = "label_auc"
    position = 18
    json_key = "label_auc"

    def sheets(self, report: Report) -> list[Sheet]:
        """Return two sheets for each data set whose images may have several labels."""
        found = [_Labels(table, report.store) for table in report.shown_tables]
        return [
            sheet
            for labels in found
            if labels.names
            for sheet in (labels.auc_sheet(), labels.rates_sheet())
        ]

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        """Return AUC, threshold and rates of every label, row and trial."""
        return [
            record
            for table in report.tables
            for record in _Labels(table, report.store).json_records()
        ]


class _Labels:
    """The labels of a table, on the split of the average accuracy.

    Args:
        table: The results.
        store: Predictions of the selected runs.
    """

    def __init__(self, table: Table, store: PredictionStore) -> None:
        self.table = table
        self.names: Sequence[str] = ()
        self.rows: list[Row] = []
        records = [run.run.record for row in table.rows for run in row.selected_runs]
        data = next((record.data for record in records if record), None)
        if not table.has_several_labels or data is None or data.main_split is None:
            return
        self.split = data.main_split
        self.scores = Scores(self.split, store, spread=Spread.INTERVAL)
        self.store = store
        self.rows = [row for row in table.rows if self._runs(row)]
        self.names = data.label_names if self.rows else ()

    def auc_sheet(self) -> Sheet:
        """Return the AUC of each label, one column per method, and their mean."""
        heads = [("label",), ("with it",), *((row.marked_label,) for row in self.rows)]
        present, total = self._counts()
        body = []
        for k, name in enumerate(self.names):
            cells = [_cell(self._auc(row, k)) for row in self.rows]
            body.append([name, f"{present[k]:,}" if total else DASH, *cells])
        body.append(["mean", "", *(_cell(self._auc(row, None)) for row in self.rows)])
        notes = [
            f"{row.marked_label}, {name}: {note}"
            for row in self.rows
            for k, name in enumerate(self.names)
            for note in dict.fromkeys(self.scores.auc(run, k).note for run in self._runs(row))
            if note
        ]
        caption = [
            f"Split {self.split}, {total:,} images in the first trial; AUC of each label, yes "
            "against no, in per cent, with 95 % interval (DeLong; several trials: of their mean).",
        ]
        title = f"{self.table.title}, AUC per label"
        return Sheet(title, caption, heads, body, stub=2, notes=notes)

    def rates_sheet(self) -> Sheet:
        """Return threshold, sensitivity and specificity of each label and method."""
        heads = [("method",), ("threshold", "(logit)"), ("sensitivity",), ("specificity",)]
        body: list[list[str]] = []
        for k, name in enumerate(self.names):
            body.append([name])
            for row in self.rows:
                rates = [self.rates(run, k) for run in self._runs(row)]
                known = [rate.threshold for rate in rates if rate.threshold is not None]
                shown = ", ".join(f"{threshold:.2f}" for threshold in known)
                body.append(
                    [
                        row.marked_label,
                        shown or DASH,
                        _cell(mean_over_trials([rate.sensitivity for rate in rates])),
                        _cell(mean_over_trials([rate.specificity for rate in rates])),
                    ]
                )
        caption = [
            f"Split {self.split}, in per cent, with 95 % interval. The threshold of each trial "
            "maximises sensitivity + specificity − 1 on validation (Youden 1950).",
        ]
        return Sheet(f"{self.table.title}, rates at Youden's threshold", caption, heads, body)

    def rates(self, run: SelectedRun, k: int) -> LabelRates:
        """Return the rates of label ``k`` in one trial."""
        validation = self.store.scores(run, "val")
        test = self.store.scores(run, self.split)
        if validation is None or test is None:
            return LabelRates(None)
        threshold = youden_threshold(validation[0][:, k], validation[1][:, k])
        if threshold is None:
            return LabelRates(None)
        label, score = test[0][:, k], test[1][:, k]
        return LabelRates(
            threshold, _share(score[label == 1] > threshold), _share(score[label == 0] <= threshold)
        )

    def json_records(self) -> list[dict[str, Any]]:
        """Return the numbers of every label, row and trial."""
        records = []
        for k, name in enumerate(self.names):
            for row in self.rows:
                for run in self._runs(row):
                    area = self.scores.auc(run, k)
                    rates = self.rates(run, k)
                    records.append(
                        {
                            "dataset": self.table.dataset,
                            "method": row.code_label,
                            "trial": run.trial,
                            "split": self.split,
                            "label": name,
                            "auc": area.value,
                            "auc_low": area.low,
                            "auc_high": area.high,
                            "threshold": rates.threshold,
                            "sensitivity": rates.sensitivity.value,
                            "specificity": rates.specificity.value,
                        }
                    )
        return records

    def _runs(self, row: Row) -> list[SelectedRun]:
        return [run for run in row.selected_runs if self.split in run.at.counts]

    def _auc(self, row: Row, k: int | None) -> Estimate:
        runs = self._runs(row)
        name = "auc" if k is None else f"auc {k}"
        return self.scores.over_trials(runs, name, [self.scores.auc(run, k) for run in runs])

    def _counts(self) -> tuple[np.ndarray, int]:
        """Return the number of images with each label, and that of all, in the first trial."""
        found = self.store.scores(self._runs(self.rows[0])[0], self.split)
        if found is None:
            return np.zeros(len(self.names), np.int64), 0
        return (found[0] == 1).sum(0), len(found[0])


def _share(correct: np.ndarray) -> Estimate:
    """Return a share of images with its standard deviation; undefined without images."""
    if not len(correct):
        return NO_ESTIMATE
    accuracy = accuracy_of_counts([correct.sum()], [len(correct)])
    sd = math.sqrt(float(accuracy.image_variance[0]))
    return normal_estimate(float(accuracy.mean[0]), sd, "binomial", (0.0, 1.0))


def _cell(estimate: Estimate) -> str:
    """Return the value in per cent with its interval."""
    return plain(Value(estimate), 1, "interval")
