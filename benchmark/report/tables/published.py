"""Published values of the data sets of a sweep, beside those of the sweep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.core.named_options import base_name, split_at_sign
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.published_values import (
    FOLDER,
    MEANING,
    PublishedValue,
    read_table,
    table_names,
)
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.tables.metric import Metric
from benchmark.report.tables.metrics.average_accuracy import AverageAccuracy
from benchmark.report.tables.metrics.seen_worst_group import SeenWorstGroupAccuracy
from benchmark.report.tables.metrics.worst_group_accuracy import WorstGroupAccuracy
from benchmark.report.tables.numbers import DASH, bounds, percent
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import BEFORE_SWITCH, Row, Table
from benchmark.report.tables.scores import Scores
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread, Value

#: Names of the report for published scores of one class.
_CLASS_SCORES = {
    "auc": "auc",
    "f1": "f1",
    "sensitivity": "recall",
    "specificity": "specificity",
    "precision": "precision",
}
#: Names of the report for published means of a score over classes.
_MEAN_SCORES = {
    "f1": "macro_f1",
    "precision": "macro_precision",
    "sensitivity": "balanced_accuracy",
    "specificity": "macro_specificity",
}
#: Test splits of papers that differ from the main split, such as CMNIST's test environment "−90%".
PAPER_SPLITS = {("ex2l", "cmnist"): "deceiving"}
#: Data sets whose test splits are data sets of their own in papers, with the names in papers of the
#: splits that have another one there.
_SUITES = {"imagenet": {"imagenet": "imagenet_val"}}
#: Metrics of such data sets, and the column of a split.
_SUITE_METRICS = {"top1_accuracy": "{}_accuracy", "top5_accuracy": "{}_top5_accuracy"}
#: Splits of published worst-group accuracies that no column of the results shows.
_WORST_GROUP_SPLITS = {
    "train_worst_group_accuracy": "train",
    "validation_worst_group_accuracy": "val",
}


@REPORT_TABLES.register
class PublishedTable(ReportTable):
    """Published values beside those of the sweep."""

    name = "published"
    position = 30
    switch = "--published"
    help = "also show the values that papers report, beside those of the sweep"

    def sheets(self, report: Report) -> list[Sheet]:
        """Return one sheet per published data set; without any, add a note to the sweep."""
        sheets = beside(
            report.tables, store=report.store, posteriors=report.posteriors, spread=report.spread
        )
        if not sheets:
            report.sweep.notes.append("no published table on file reports any of these data sets")
        return sheets


def beside(
    our_tables: Sequence[Table],
    folder: Path = FOLDER,
    store: PredictionStore | None = None,
    posteriors: Posteriors | None = None,
    spread: str = Spread.SD,
) -> list[Sheet]:
    """Return published values, those of the sweep, and their difference.

    Data sets are matched by name, or by name and option such as ``spawrious_o2o_easy``. Methods and
    metrics are matched as ``Ours`` describes. Conditions such as the network may still differ.

    Args:
        our_tables: Results of the sweep.
        folder: Folder of the transcribed tables.
        store: Predictions of the selected runs, for published scores of classes; None leaves these
            scores out.
        posteriors: Posteriors of confusion matrices; by default, those of the exact engine.
        spread: What is printed beside our values: ``credible`` for posteriors of single trials,
            else standard deviations.

    Returns:
        One sheet per data set that a paper reports.
    """
    by_dataset: dict[str, list[PublishedValue]] = {}
    for name in table_names(folder):
        for published in read_table(name, folder):
            by_dataset.setdefault(published.dataset, []).append(published)
    named = {published.method for values in by_dataset.values() for published in values}
    sheets = []
    for table in our_tables:
        values = [value for name in _paper_names(table) for value in by_dataset.get(name, [])]
        values += _values_of_splits(table, by_dataset)
        sheet = _sheet(table, values, Ours(table, named, store, posteriors, spread))
        if sheet is not None:
            sheets.append(sheet)
    return sheets


def _paper_names(table: Table) -> list[str]:
    """Return the names that papers may use for a data set, such as ``spawrious_o2o_easy``."""
    name = base_name(table.dataset)
    specs = (w.run.spec for row in table.rows if row.requested for w in row.selected_runs)
    options = next((spec.dataset_options for spec in specs if spec), {})
    return [name, *(f"{name}_{value}" for value in options.values() if isinstance(value, str))]


def _values_of_splits(
    table: Table, by_dataset: Mapping[str, Sequence[PublishedValue]]
) -> list[PublishedValue]:
    """Return published values of the test splits of a suite, such as ``imagenet``.

    Their metric becomes that of the split: ``top1_accuracy`` of the data set ``imagenet_a`` is
    ``imagenet_a_accuracy`` of the suite.
    """
    names = _SUITES.get(base_name(table.dataset))
    if names is None:
        return []
    return [
        replace(value, metric=_SUITE_METRICS[value.metric].format(split))
        for split in table.sizes
        for value in by_dataset.get(names.get(split, split), [])
        if value.metric in _SUITE_METRICS
    ]


def _sheet(table: Table, values: Sequence[PublishedValue], ours: Ours) -> Sheet | None:
    relevant = [published for published in values if ours.has(published.metric)]
    if not relevant:
        return None
    rows: list[list[str]] = []
    by_metric: dict[str, list[PublishedValue]] = {}
    for published in relevant:
        by_metric.setdefault(published.metric, []).append(published)
    our_rows = {published.method: ours.row(published.method) for published in relevant}
    for metric, group in by_metric.items():
        rows.append([metric.replace("_", " ").replace("/", ", ")])
        for published in group:
            row = our_rows[published.method]
            value = ours.value(row, metric, published.paper)
            rows.append(_cells(published, value, row, ours.spread))
    papers = list(dict.fromkeys(published.paper for published in relevant))
    meaning = "; ".join(f"{paper}: {MEANING[paper]}" for paper in papers if paper in MEANING)
    caption = [
        f"Published values beside ours, in per cent. ±: {meaning or 'none printed'}; "
        "ours: as above."
    ]
    heads = [("method",), ("paper, table",), ("published",), ("ours",), ("difference",)]
    notes = _notes(table, our_rows, ours, papers)
    return Sheet(f"{table.title}, published values", caption, heads, rows, stub=2, notes=notes)


def _notes(
    table: Table, our_rows: Mapping[str, Row | None], ours: Ours, papers: Sequence[str]
) -> list[str]:
    """Return the notes of a sheet.

    Args:
        table: Results of the data set.
        our_rows: Row of each published method; None if there is none.
        ours: The values of the sweep.
        papers: Papers of the published values.
    """
    notes = []
    shown = {id(row) for row in our_rows.values()}
    without = sorted({row.method for row in table.rows if row.requested and id(row) not in shown})
    if without:
        notes.append(f"no published value of: {', '.join(without)}")
    rows = {name: row for name, row in our_rows.items() if row is not None}
    if any(row.before_switch for row in rows.values()):
        notes.append(
            f"{BEFORE_SWITCH} ours was selected before the method began: see the table above"
        )
    renamed = [f"{name}: {row.label}" for name, row in rows.items() if row.code_label != name]
    if renamed:
        notes.append(f"ours has another name: {'; '.join(renamed)}")
    if table.stand_in:
        notes.append(
            "ours was measured on generated stand-in data: "
            "the difference says nothing about the method"
        )
    notes.append(
        "conditions differ (network, budget, selection): "
        "results/published/README.md describes those of the papers"
    )
    for paper in papers:
        split = ours.tested_by(paper)
        if split:
            notes.append(f"{paper} tests on the split {split}: ours too, except on validation data")
    return notes


class Ours:
    """Rows and values of the sweep by the names that papers give them.

    Args:
        table: Results of a data set.
        named: Methods that published tables name. A variant that none of them names may stand for
            its method.
        store: Predictions of the selected runs, or None.
        posteriors: Posteriors of confusion matrices.
        spread: What is printed beside our values.
    """

    def __init__(
        self,
        table: Table,
        named: Collection[str],
        store: PredictionStore | None = None,
        posteriors: Posteriors | None = None,
        spread: str = Spread.SD,
    ) -> None:
        self.table = table
        self.named = named
        self.store = store
        self.spread = spread
        self.posteriors = posteriors or Posteriors(credible=spread == Spread.CREDIBLE)
        self.columns = {
            name: i for i, c in enumerate(table.columns) for name in (c.name, *c.aliases)
        }
        record = next(
            (w.run.record for row in table.rows for w in row.selected_runs if w.run.record), None
        )
        self.split = record.data.main_split if record else None
        names = record.data.label_names if record else ()
        self.labels = [name.lower().replace(" ", "_") for name in names]
        self.scores = (
            Scores(self.split, store, self.posteriors, self._class_spread)
            if store is not None and self.split is not None
            else None
        )

    def row(self, method: str) -> Row | None:
        """Return the row of a published method; None if there is none or more than one.

        A method matches the row of that name, a name such as ``erm@alexnet`` the row with that
        network, and ``teacher`` the only row that serves others. Otherwise, it matches its only
        variant, such as ``tea:coloured_mnist`` for ``tea``.
        """
        rows = [row for row in self.table.rows if row.requested]
        plain, network = split_at_sign(method)
        same_name = [
            row for row in rows if row.method == plain and (not network or _network(row) == network)
        ]
        upstream = [
            row
            for row in self.table.rows
            if not row.requested and method in ("teacher", row.method)
        ]
        variants = [
            row
            for row in rows
            if not network and row.method not in self.named and base_name(row.method) == method
        ]
        for candidates in (same_name, upstream, variants):
            if len(candidates) == 1:
                return candidates[0]
        return None

    def has(self, metric: str) -> bool:
        """Return whether the sweep has a published metric, such as ``gap`` or ``f1/mean``."""
        if metric in self.columns or metric in _WORST_GROUP_SPLITS:
            return True
        score, _, label = metric.partition("/")
        known_label = label.lower() in [*self.labels, "mean"]
        return self.scores is not None and score in _CLASS_SCORES and known_label

    def tested_by(self, paper: str) -> str | None:
        """Return the split that a paper tests on; None for the main split."""
        return PAPER_SPLITS.get((paper, base_name(self.table.dataset)))

    def value(self, row: Row | None, metric: str, paper: str = "") -> Value | None:
        """Return a published metric of a row, or None.

        Its sd is over trials, or of the test sample if there is one trial.
        """
        if row is None:
            return None
        if metric in _WORST_GROUP_SPLITS:
            worst_group = SeenWorstGroupAccuracy(_WORST_GROUP_SPLITS[metric])
            return worst_group.value(row.selected_runs, self.store)
        split = self.tested_by(paper)
        for metric_class in (AverageAccuracy, WorstGroupAccuracy):
            if split and metric == metric_class.name:
                return self._with_posterior(metric_class(split), row)
        if metric in self.columns:
            return row.values[self.columns[metric]]
        return self._class_score(row, metric)

    @property
    def _class_spread(self) -> Spread:
        """The spread of class scores, of which no intervals over trials are printed."""
        return Spread.CREDIBLE if self.spread == Spread.CREDIBLE else Spread.SD

    def _with_posterior(self, metric: Metric, row: Row) -> Value:
        """Return a metric that is no column of the results."""
        value = metric.value(row.selected_runs, self.store)
        if self.spread == Spread.CREDIBLE and value.trials == 1:
            run = next(run for run in row.selected_runs if run.trial in (value.per_trial or {}))
            posterior = metric.posterior(run, self.posteriors, self.store)
            return replace(value, posterior=posterior)
        return value

    def _class_score(self, row: Row, metric: str) -> Value | None:
        """Return a score of a class, such as ``f1/dog``, or the mean over classes, ``f1/mean``."""
        score, _, label = metric.partition("/")
        runs = [run for run in row.selected_runs if self.split in run.at.counts]
        if self.scores is None or not runs:
            return None
        k = None if label == "mean" else self.labels.index(label.lower())
        if score == "auc":
            estimates = [self.scores.auc(run, k) for run in runs]
        elif k is not None:
            estimates = self.scores.per_class(runs, _CLASS_SCORES[score], k)
        else:
            estimates = self.scores.overall(runs, _MEAN_SCORES[score])
        values = {
            run.trial: estimate.value
            for run, estimate in zip(runs, estimates, strict=True)
            if estimate.value is not None
        }
        several = len(values) > 1
        estimate = student_over_trials(list(values.values())) if several else estimates[0]
        return Value(estimate, values)


def _network(row: Row) -> str:
    return next((w.run.spec.backbone for w in row.selected_runs if w.run.spec), "")


def _cells(
    published: PublishedValue, value: Value | None, row: Row | None, spread: str
) -> list[str]:
    source = f"{published.paper} {published.table.removeprefix('Table ')}"
    estimate = value.shown(spread) if value else None
    if estimate is None or estimate.value is None:
        return [published.method, source, published.shown, DASH, DASH]
    sd = "" if estimate.sd is None else f" ± {percent(estimate.sd, 1)}"
    edges = bounds(estimate, 1) if spread == Spread.CREDIBLE else None
    bracket = f" [{edges[0]}, {edges[1]}]" if edges else ""
    mark = BEFORE_SWITCH if row is not None and row.before_switch else ""
    # Papers print the size of the gap.
    ours = abs(estimate.value) if published.metric == "gap" else estimate.value
    difference = ours - published.value
    sign = "+" if difference > 0 else ""
    return [
        published.method,
        source,
        published.shown,
        percent(estimate.value, 1) + sd + bracket + mark,
        f"{sign}{percent(difference, 1)}",
    ]
