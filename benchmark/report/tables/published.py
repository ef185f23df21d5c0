"""The papers' tables (results/published/*.csv), and our figures beside them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmark.core.named_options import base_name
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.published_values import (
    FOLDER,
    MEANING,
    PublishedValue,
    read_table,
    table_names,
)
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.tables.class_scores import Scores
from benchmark.report.tables.metrics.average_accuracy import AverageAccuracy
from benchmark.report.tables.metrics.worst_group_accuracy import WorstGroupAccuracy
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import BEFORE_SWITCH, Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Value

#: Published scores of one class, or of their mean, by the names of the report.
_SCORES = {
    "auc": "auc",
    "f1": "f1",
    "sensitivity": "recall",
    "specificity": "specificity",
    "precision": "precision",
}
_OVERALL = {
    "f1": "macro_f1", "precision": "macro_precision", "specificity": "macro_specificity",
    "sensitivity": "balanced_accuracy",
}  # fmt: skip
#: Where a paper tests on another split than our main one: CMNIST's test environment "−90%".
PAPERS_SPLIT = {("ex2l", "cmnist"): "deceiving"}
#: Published scores of a worst group on a split that no column of ours shows.
_WORST_GROUP_OF = {"validation_worst_group_accuracy": "val"}


@REPORT_TABLES.register
class PublishedTable(ReportTable):
    """Published values beside those of the sweep."""

    name = "published"
    position = 30
    switch = "--published"
    help = "also the papers' figures beside ours"

    def sheets(self, report: Report) -> list[Sheet]:
        """Return one sheet per published data set; without any, add a note to the sweep."""
        sheets = beside(report.tables, store=report.store)
        if not sheets:
            report.sweep.notes.append(
                "no published table that is on file here reports any of these data sets"
            )
        return sheets


def beside(
    our_tables: Sequence[Table], folder: Path = FOLDER, store: PredictionStore | None = None
) -> list[Sheet]:
    """One sheet per data set of ours that a paper reports: published, ours, and ours minus published.

    Data sets are matched by name, or by name and an option (``spawrious_o2o_easy``), methods and metrics as ``Ours``
    says; the conditions may still differ.

    Args:
        store: the winners' predictions, for published scores per class; None does without.
    """
    by_dataset: dict[str, list[PublishedValue]] = {}
    for name in table_names(folder):
        for figure in read_table(name, folder):
            by_dataset.setdefault(figure.dataset, []).append(figure)
    named = {figure.method for figures in by_dataset.values() for figure in figures}
    sheets = []
    for table in our_tables:
        figures = [figure for name in _names(table) for figure in by_dataset.get(name, [])]
        sheet = _sheet(table, figures, Ours(table, named, store))
        if sheet is not None:
            sheets.append(sheet)
    return sheets


def _names(table: Table) -> list[str]:
    """What papers may call the data of a table: ``spawrious``, ``spawrious_o2o_easy``."""
    name = base_name(table.dataset)
    specs = (w.run.spec for row in table.rows if row.requested for w in row.selected_runs)
    options = next((spec.dataset_options for spec in specs if spec), {})
    return [name, *(f"{name}_{value}" for value in options.values() if isinstance(value, str))]


def _sheet(table: Table, figures: Sequence[PublishedValue], ours: Ours) -> Sheet | None:
    relevant = [f for f in figures if ours.has(f.metric)]
    if not relevant:
        return None
    rows: list[list[str]] = []
    by_metric: dict[str, list[PublishedValue]] = {}
    for figure in relevant:
        by_metric.setdefault(figure.metric, []).append(figure)
    found = {figure.method: ours.row(figure.method) for figure in relevant}
    for metric, group in by_metric.items():
        rows.append([metric.replace("_", " ").replace("/", ", ")])
        rows += [
            _cells(
                figure,
                ours.value(found[figure.method], metric, figure.paper),
                found[figure.method],
            )
            for figure in group
        ]
    shown = {id(row) for row in found.values()}
    without = sorted({row.method for row in table.rows if row.requested and id(row) not in shown})
    notes = [f"no published figure of: {', '.join(without)}"] if without else []
    others = [
        f"{name}: {row.label}"
        for name, row in found.items()
        if row is not None and row.label != name
    ]
    if any(row is not None and row.before_switch for row in found.values()):
        notes.append(
            f"{BEFORE_SWITCH} ours was chosen before the method began: see the table above"
        )
    notes += [f"ours stands under another name: {'; '.join(others)}"] if others else []
    if table.stand_in:
        notes.append(
            "ours was measured on generated stand-in data: the difference says nothing about the method"
        )
    notes.append(
        "conditions differ (network, budget, selection): results/published/README.md says what the papers did"
    )
    papers = dict.fromkeys(f.paper for f in relevant)
    tested = {paper: split for paper in papers if (split := ours.tested_by(paper))}
    notes += [
        f"{paper} tests on the split {s}: so do ours here, validation apart"
        for paper, s in tested.items()
    ]
    meaning = "; ".join(f"{paper}: {MEANING[paper]}" for paper in papers if paper in MEANING)
    caption = [
        f"Published figures beside ours, in per cent. ±: {meaning or 'none printed'}; ours: as above."
    ]
    heads = [("method",), ("paper, table",), ("published",), ("ours",), ("difference",)]
    return Sheet(f"{table.title}, published figures", caption, heads, rows, stub=2, notes=notes)


class Ours:
    """Our rows and scores by the names that papers give them.

    Args:
        named: every method that some published table names; a variant of ours that none names may stand for its method.
        store: the winners' predictions, or None.
    """

    def __init__(
        self, table: Table, named: Collection[str], store: PredictionStore | None = None
    ) -> None:
        self.table, self.named, self.store = table, named, store
        self.columns = {
            name: i for i, c in enumerate(table.columns) for name in (c.name, *c.aliases)
        }
        record = next(
            (w.run.record for row in table.rows for w in row.selected_runs if w.run.record), None
        )
        self.split = record.data.main_split if record else None
        self.labels = [name.lower() for name in record.data.label_names] if record else []
        self.scores = (
            Scores(self.split, store) if store is not None and self.split is not None else None
        )

    def row(self, method: str) -> Row | None:
        """A row of ours: of that name, or ``erm@alexnet`` for a network, or the only variant for its method.

        A recipe of ours for one data set, ``tea:coloured_mnist``, is what a paper's table of that data calls ``tea``.
        ``teacher`` is the only row that serves others.
        """
        rows = [row for row in self.table.rows if row.requested]
        plain, _, network = method.partition("@")
        tried = [
            [
                row
                for row in rows
                if row.method == plain and (not network or _network(row) == network)
            ],
            [
                row
                for row in self.table.rows
                if not row.requested and method in ("teacher", row.method)
            ],
            [
                r
                for r in rows
                if not network and r.method not in self.named and base_name(r.method) == method
            ],
        ]
        return next((found[0] for found in tried if len(found) == 1), None)

    def has(self, metric: str) -> bool:
        """Whether we have that score of this data set at all."""
        kind, slash, what = metric.partition("/")
        known = (
            self.scores is not None and kind in _SCORES and what.lower() in [*self.labels, "mean"]
        )
        return metric in self.columns or metric in _WORST_GROUP_OF or bool(slash and known)

    def tested_by(self, paper: str) -> str | None:
        """The split of ours on which that paper tests, where it is not the main one."""
        return PAPERS_SPLIT.get((paper, base_name(self.table.dataset)))

    def value(self, row: Row | None, metric: str, paper: str = "") -> Value | None:
        """The score of a row, with sd over trials, or of the test sample where there is one trial."""
        if row is None:
            return None
        if metric in _WORST_GROUP_OF:
            return WorstGroupAccuracy(_WORST_GROUP_OF[metric]).value(row.selected_runs, self.store)
        other = self.tested_by(paper)
        for known in (AverageAccuracy, WorstGroupAccuracy):
            if other and metric == known.name:
                return known(other).value(row.selected_runs, self.store)
        if metric in self.columns:
            return row.values[self.columns[metric]]
        kind, _, what = metric.partition("/")
        selected_runs = [w for w in row.selected_runs if self.split in w.at.counts]
        if self.scores is None or not selected_runs:
            return None
        k = None if what == "mean" else self.labels.index(what.lower())
        if kind == "auc":
            found = [self.scores.auc(w, k) for w in selected_runs]
        elif k is not None:
            found = self.scores.per_class(selected_runs, _SCORES[kind], k)
        else:
            found = self.scores.overall(selected_runs, _OVERALL[kind])
        values = {
            w.trial: e.value
            for w, e in zip(selected_runs, found, strict=False)
            if e.value is not None
        }
        return Value(
            student_over_trials(list(values.values())) if len(values) > 1 else found[0], values
        )


def _network(row: Row) -> str:
    return next((w.run.spec.backbone for w in row.selected_runs if w.run.spec), "")


def _cells(figure: PublishedValue, value: Value | None, row: Row | None) -> list[str]:
    where = f"{figure.paper} {re.sub(r'^Table ', '', figure.table)}"
    estimate = value.estimate if value else None
    if estimate is None or estimate.value is None:
        return [figure.method, where, figure.shown, DASH, DASH]
    sd = "" if estimate.sd is None else f" ± {percent(estimate.sd, 1)}"
    mark = BEFORE_SWITCH if row is not None and row.before_switch else ""
    # Papers print the size of the gap.
    mine = abs(estimate.value) if figure.metric == "gap" else estimate.value
    difference = mine - figure.value
    sign = "+" if difference > 0 else ""
    return [
        figure.method,
        where,
        figure.shown,
        percent(estimate.value, 1) + sd + mark,
        f"{sign}{percent(difference, 1)}",
    ]
