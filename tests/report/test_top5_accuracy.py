"""Top-5 accuracy: scikit-learn's value, intervals as of the accuracy, and where it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from benchmark.core.errors import UserError
from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun, cells_of
from benchmark.report.records.predictions import PredictionStore, rank_of_label
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.metric import columns_of
from benchmark.report.tables.metrics import top5_accuracy
from benchmark.report.tables.metrics.average_accuracy import AverageAccuracy
from benchmark.report.tables.metrics.top5_accuracy import Top5Accuracy
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World
from tests.support.messages import mentions

WORLD = World(size=240, classes=12, confounders=False, paired=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeSweep(tmp_path_factory.mktemp("top5"))
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    return fake.finish()


def runs_of(folder: Path) -> list[SelectedRun]:
    return list(cells_of(load_sweep(folder), "val_accuracy")[0].selected_runs)


def summary(classes: int, **changed: object) -> DataSummary:
    names = tuple(f"c{i}" for i in range(classes))
    splits = {"train": 9, "val": 9, "test": 9, "odd": 9}
    return replace(DataSummary(label_names=names, splits=splits), **changed)  # type: ignore[arg-type]


def test_the_rank_of_the_label() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 4, (300, 9)).astype(float)
    label = rng.integers(0, 9, 300)
    order = np.argsort(-score, axis=1, kind="stable")
    expected = (order == label[:, None]).argmax(1)
    assert np.array_equal(rank_of_label(label, score), expected)
    assert np.array_equal(rank_of_label(label, score) < 1, score.argmax(1) == label)


def test_the_value_is_that_of_scikit_learn(folder: Path) -> None:
    run, store = runs_of(folder)[0], PredictionStore()
    scores = store.scores(run, "unbiased")
    assert scores is not None
    label, score = scores
    estimate = Top5Accuracy("unbiased", main=True).one_trial(run, store)
    expected = top_k_accuracy_score(label, score, k=5, labels=np.arange(12))
    assert estimate.value == pytest.approx(expected) and 0 < expected < 1
    assert estimate.low is not None and estimate.high is not None
    assert 0 <= estimate.low < expected < estimate.high <= 1


def test_the_interval_is_that_of_the_accuracy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With k = 1 every number is that of the accuracy."""
    monkeypatch.setattr(top5_accuracy, "BEST", 1)
    runs, store = runs_of(folder), PredictionStore()
    ours, accuracy = Top5Accuracy("unbiased", main=True), AverageAccuracy("unbiased")
    for chosen in (runs[:1], runs):
        assert ours.value(chosen, store).estimate == accuracy.value(chosen, store).estimate


def test_without_predictions_there_is_no_value(folder: Path) -> None:
    assert Top5Accuracy("unbiased", main=True).one_trial(runs_of(folder)[0]).value is None


def test_where_it_is_shown() -> None:
    def names(data: DataSummary, *requested: str) -> list[str]:
        return [m.name for m in columns_of(data, requested) if isinstance(m, Top5Accuracy)]

    both = ["test_top5_accuracy", "odd_top5_accuracy"]
    assert names(summary(11)) == both
    assert names(summary(10)) == []
    assert names(summary(10), "top5_accuracy") == both
    assert names(summary(5), "top5_accuracy") == []
    assert names(summary(11, multi_label=True)) == []
    unlabelled = summary(11, unlabelled_splits=("odd",))
    assert names(unlabelled) == both[:1]
    accuracies = [metric.name for metric in columns_of(unlabelled)]
    assert "odd_accuracy" not in accuracies and unlabelled.main_split == "test"
    assert summary(11, unlabelled_splits=("test",)).main_split == "odd"


def test_it_is_in_every_format(folder: Path, tmp_path: Path) -> None:
    report = make_report(folder)
    for form in ("text", "latex", "markdown", "csv", "json"):
        shown = render(report, form)
        assert "top 5" in shown or "unbiased_top5_accuracy" in shown, form
    text = " ".join(render(report, "text").split())
    assert mentions(text, "Top 5", "among the 5 classes")
    few = FakeSweep(tmp_path)
    few.add(World(size=60, classes=6), ERM, trials=(0,))
    small = few.finish()
    assert "top5" not in render(make_report(small), "csv")
    asked = make_report(small, options=ReportOptions(columns=("top5_accuracy",)))
    assert "deceiving_top5_accuracy" in render(asked, "csv")
    with pytest.raises(UserError, match="unknown metric 'top_five'"):
        make_report(small, options=ReportOptions(columns=("top_five",)))
