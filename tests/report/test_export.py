"""The tidy export: every run, every criterion and split, whatever its state."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmark.collect_results import main
from benchmark.core.errors import UserError
from benchmark.report.export import export
from benchmark.report.load import load_sweep
from tests.report.fake_sweep import DRO, ERM, FakeSweep, World


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
    assert len(rows) == 2 * 2 * 4 + 1 + 2 * 2  # runs × criteria × splits, one failed run, two splits without groups
    failed = [row for row in rows if row["state"] == "failed"]
    assert len(failed) == 1 and "NaN at step 30" in failed[0]["reason"] and failed[0]["accuracy"] == ""
    assert {row["hparam.only_mine"] for row in rows if row["method"] == "erm"} == {"x"}
    one = next(row for row in rows if row["method"] == "erm" and row["draw"] == "1" and row["split"] == "biased")
    run = next(run for run in load_sweep(folder).runs if run.key == one["key"])
    counts = run.selected[one["criterion"]].counts["biased"].astype(int)
    assert float(one["accuracy"]) == np.einsum("zll->", counts) / counts.sum() and int(one["n"]) == 60
    assert {row["worst_group_accuracy"] for row in rows if row["dataset"] == "plain"} == {""}
    assert not (folder / "report").exists()


def test_parquet_or_a_sentence(folder: Path, tmp_path: Path) -> None:
    sweep, path = load_sweep(folder), tmp_path / "runs.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(UserError, match="pip install pyarrow"):
            export(sweep, path)
        return
    import pandas

    assert export(sweep, path) == len(pandas.read_parquet(path))


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    sweep = load_sweep(folder)
    with pytest.raises(UserError, match=r"ends in \.csv or \.parquet"):
        export(sweep, tmp_path / "runs.xlsx")
    with pytest.raises(UserError, match="there is no folder"):
        export(sweep, tmp_path / "nowhere" / "runs.csv")
