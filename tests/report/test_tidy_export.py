"""Test that the tidy export has every run, criterion and split."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.collect_results import main
from benchmark.core.errors import UserError
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.records.tidy_export import export
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM, trials=(0,), draws=(0, 1), only_mine="x")
    fake.add(World(size=60), DRO, trials=(0,), state="failed")
    fake.add(World("plain", size=60, splits=("test",), confounders=False), DRO, trials=(0,))
    return fake.finish()


def test_csv(folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--export", str(tmp_path / "runs.csv")]) == 0
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        len(rows) == 2 * 2 * 4 + 1 + 2 * 2
    )  # runs × criteria × splits, one failed run, two splits without groups
    failed = [row for row in rows if row["state"] == "failed"]
    assert (
        len(failed) == 1 and "NaN at step 30" in failed[0]["reason"] and failed[0]["accuracy"] == ""
    )
    assert {row["hparam.only_mine"] for row in rows if row["method"] == "erm"} == {"x"}
    one = next(
        row
        for row in rows
        if row["method"] == "erm" and row["draw"] == "1" and row["split"] == "biased"
    )
    run = next(run for run in load_sweep(folder).runs if run.key == one["key"])
    counts = run.selected[one["criterion"]].counts["biased"].astype(int)
    assert (
        float(one["accuracy"]) == np.einsum("zll->", counts) / counts.sum() and int(one["n"]) == 60
    )
    assert {row["worst_group_accuracy"] for row in rows if row["dataset"] == "plain"} == {""}
    assert not (folder / "report").exists()


def test_splits_without_labels_have_no_accuracy(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        if "deceiving" in record["data"]["splits"]:
            record["data"]["unlabelled_splits"] = ["deceiving"]
        path.write_text(json.dumps(record))
    assert main([str(folder), "--export", str(tmp_path / "runs.csv")]) == 0
    with (tmp_path / "runs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"]]
    for row in rows:
        assert (row["accuracy"] == "") == (row["split"] == "deceiving")
        assert row["n"] == "60"


def test_parquet_is_the_same_table_with_types(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([str(folder), "--export", str(tmp_path / "runs.parquet")]) == 0
    assert main([str(folder), "--export", str(tmp_path / "runs.csv")]) == 0
    table = parquet.read_table(tmp_path / "runs.parquet")
    with (tmp_path / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == list(rows[0]) and table.num_rows == len(rows)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["accuracy"] == types["hparam.lr"] == "double" and types["requested"] == "bool"
    assert types["key"] in ("string", "large_string") and types["trial"] in ("int64", "double")
    for row, same in zip(table.to_pylist(), rows, strict=True):
        for name, text in same.items():
            value = row[name]
            if text == "":
                assert value is None or value != value or value == "", name
            elif isinstance(value, float):
                assert value == float(text), name
            else:
                assert str(value) == text, name


def test_hyperparameters_of_mixed_types_become_text(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    fake = FakeSweep(tmp_path)
    fake.add(World(size=40), ERM, trials=(0,), odd="one", maybe=True)
    fake.add(World(size=40), DRO, trials=(0,), odd=[1, 2], maybe=0.5)
    path = tmp_path / "runs.parquet"
    assert export(load_sweep(fake.finish()), path) == parquet.read_table(path).num_rows
    found = {row["method"]: row for row in parquet.read_table(path).to_pylist()}
    assert found["erm"]["hparam.odd"] == "one" and found["group_dro"]["hparam.odd"] == "[1, 2]"
    assert found["erm"]["hparam.maybe"] == "True" and found["group_dro"]["hparam.maybe"] == "0.5"


def test_without_pyarrow_a_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        export(load_sweep(folder), tmp_path / "runs.parquet")


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep(folder)
    with pytest.raises(UserError, match=r"ends in \.csv or \.parquet"):
        export(sweep, tmp_path / "runs.xlsx")
    with pytest.raises(UserError, match="there is no folder"):
        export(sweep, tmp_path / "nowhere" / "runs.csv")
