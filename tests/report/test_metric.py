"""A metric is one class: a metric that only this file knows appears in every part of the report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.counts import class_counts, correct_and_total
from benchmark.core.summaries import DataSummary
from benchmark.report.html.page import page
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.statistics.estimate import Estimate, without_interval
from benchmark.report.tables.metric import (
    METRICS,
    SAMPLED_IMAGES,
    Metric,
    PerImage,
    columns_of,
)
from benchmark.report.tables.report_table import Report, ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

NAME = "error_rate"


class ErrorRate(Metric):
    """The share of wrong answers on the unbiased split."""

    name = NAME
    smaller_is_better = True

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        return [cls(("unbiased",), ("errors",))] if "unbiased" in data.test_splits else []

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        correct, total = correct_and_total(run.at.counts["unbiased"])
        return without_interval(1 - correct / total)

    def per_image(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore
    ) -> PerImage | None:
        correct = predictions.matrix(runs, "unbiased")
        return None if correct is None else PerImage(1 - correct)

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        return f"Errors of {len(data.label_names)} classes"


class ErrorSpread(Metric):
    """The difference of the errors of two classes, without values per image."""

    name = "error_spread"
    smaller_is_better = True
    compares_magnitude = True
    limits = (-1.0, 1.0)
    sampling_kind = "sampling of the classes"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        return [cls(("unbiased",), ("spread",))]

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        correct, total = class_counts(run.at.counts["unbiased"])
        return without_interval(float(np.diff(correct / total)[0]))

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        return 1e-4


@pytest.fixture
def toys() -> Iterator[None]:
    with METRICS.only_within(ErrorRate, ErrorSpread):
        yield


@pytest.fixture
def report(toys: None, tmp_path: Path) -> Report:
    fake = FakeSweep(tmp_path)
    fake.add(World(), ERM)
    fake.add(World(), DRO)
    return make_report(fake.finish(), None, "interval", ReportOptions(reference="erm"))


def test_the_column_is_in_every_format(report: Report) -> None:
    for form in ("text", "latex", "markdown"):
        assert "errors" in render(report, form)
        assert "Errors of 2 classes." in render(report, form)
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    accuracy = {r["method"]: r for r in rows if r["metric"] == "average_accuracy"}
    errors = {r["method"]: r for r in rows if r["metric"] == NAME}
    assert set(errors) == {"erm", "group_dro"}
    for method, row in errors.items():
        assert float(row["value"]) == pytest.approx(1 - float(accuracy[method]["value"]))
        assert float(row["low"]) == pytest.approx(1 - float(accuracy[method]["high"]))
        assert float(row["high"]) == pytest.approx(1 - float(accuracy[method]["low"]))
        assert row["interval"] == "crossed trials × images"
    document = json.loads(render(report, "json"))
    values = document["tables"][0]["rows"][0]["values"][NAME]
    assert values["splits"] == ["unbiased"]
    assert len(values["per_trial"]) == 3
    assert "errors" in page(report, {})


def test_smaller_errors_are_better(report: Report) -> None:
    table = report.tables[0]
    names = [column.name for column in table.columns]
    assert names[:2] == ["average_accuracy", "worst_group_accuracy"]
    assert names[-2:] == [NAME, "error_spread"]
    average = names.index("average_accuracy")
    errors = names.index(NAME)
    for row in table.rows:
        assert row.values[errors].best == row.values[average].best
    found = {f.column.name: f.found[0] for f in report.comparisons}
    assert found[NAME].difference.value == pytest.approx(
        -found["average_accuracy"].difference.value
    )  # type: ignore[operator]
    assert found[NAME].p_better == pytest.approx(found["average_accuracy"].p_better)
    assert found[NAME].p == pytest.approx(found["average_accuracy"].p)
    assert "error rate smaller is better" in " ".join(render(report, "text").split())


def test_magnitudes_are_compared_without_values_per_image(report: Report) -> None:
    table = report.tables[0]
    position = [column.name for column in table.columns].index("error_spread")
    erm, dro = (row.values[position] for row in table.rows)
    comparison = next(f for f in report.comparisons if f.column.name == "error_spread").found[0]
    assert erm.per_trial is not None and dro.per_trial is not None
    signs = [np.sign(value.estimate.value or 0.0) for value in (dro, erm)]
    differences = [signs[0] * dro.per_trial[t] - signs[1] * erm.per_trial[t] for t in range(3)]
    assert comparison.difference.value == pytest.approx(np.mean(differences))
    variance = np.var(differences, ddof=1) / 3 + 2e-4
    assert comparison.difference.sd == pytest.approx(np.sqrt(variance))
    assert comparison.difference.kind == "paired t over trials and sampling of the classes"
    assert erm.estimate.kind == SAMPLED_IMAGES and "bounds" in SAMPLED_IMAGES


def test_a_metric_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS.broken, "entry point other_package", "no module named other")
    fake = FakeSweep(tmp_path)
    fake.add(World(), ERM)
    shown = render(make_report(fake.finish()), "text")
    assert "metric entry point other_package" in shown
    assert "no module named other" in shown


def test_columns_of_data_sets() -> None:
    data = DataSummary(label_names=("a", "b"), splits={"train": 9, "val": 9})
    assert columns_of(data) == []
    splits = {"train": 9, "val": 9, "biased": 9, "deceiving": 9, "other": 9}
    data = DataSummary(label_names=("a", "b"), splits=splits, bias_splits=("biased", "deceiving"))
    assert data.main_split == "other"
    columns = columns_of(data)
    assert [column.name for column in columns] == [
        "average_accuracy",
        "worst_class_accuracy",
        "biased_accuracy",
        "deceiving_accuracy",
        "gap",
    ]
    assert columns[0].aliases == ("other_accuracy",)
    assert columns[-1].splits == ("biased", "deceiving")
    assert [column.smaller_is_better for column in columns] == [False] * 4 + [True]
