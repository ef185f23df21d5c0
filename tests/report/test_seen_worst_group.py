"""The worst group of training and validation images, as eX2L's table 3 has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.report.report import make_report
from benchmark.report.tables.published import beside
from benchmark.report.tables.report_table import ReportOptions
from tests.report.test_published_comparison import write
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

#: Counts [confounder, label, predicted] of 40 training images of each trial.
COUNTS = [[[9, 1], [2, 8]], [[7, 3], [0, 10]]], [[[9, 1], [4, 6]], [[7, 3], [0, 10]]]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path)
    keys = fake.add(World("cmnist", size=40), ERM, trials=(0, 1))
    fake.add(World("cmnist", size=40), DRO, trials=(0, 1))
    folder = fake.finish()
    for key, counts in zip(keys, COUNTS, strict=True):
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        record["data"]["splits"]["train"] = 40
        for step in record["selected"].values():
            step["splits"]["train"] = {"counts": counts}
        path.write_text(json.dumps(record))
    return folder


def test_columns_on_request(sweep: Path) -> None:
    names = [column.name for column in make_report(sweep).tables[0].columns]
    assert "train_worst_group_accuracy" not in names
    report = make_report(sweep, options=ReportOptions(columns=("seen_worst_group",)))
    (table,) = report.tables
    erm, dro = (
        {column.name: value for column, value in zip(table.columns, row.values, strict=True)}
        for row in table.rows
    )
    found = erm["train_worst_group_accuracy"]
    assert found.per_trial == {0: 0.7, 1: 0.6} and found.estimate.value == pytest.approx(0.65)
    assert found.estimate.low is not None and found.estimate.low < 0.6
    assert erm["validation_worst_group_accuracy"].estimate.value is not None
    missing = dro["train_worst_group_accuracy"]
    assert missing.estimate.value is None and "no counts of train" in missing.notes[0]
    assert not report.store.problems, "predictions of training images are not asked for"


def test_beside_the_published_values(sweep: Path, tmp_path: Path) -> None:
    write(tmp_path, "ex2l_table3", "cmnist,erm,train_worst_group_accuracy,72.38,,,Table 3,")
    report = make_report(sweep)
    (sheet,) = beside(report.tables, tmp_path, report.store)
    (row,) = (row for row in sheet.rows if row[0] == "erm")
    assert row[2] == "72.38" and row[3].startswith("65.0 ±") and row[4] == "−7.4"
