"""Test that selection uses validation data only and notes the runs that it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.report.records.model_selection import Cell, cells_of, choose_criterion
from benchmark.report.records.sweep_records import load_sweep
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import each_mentions

WORLD = World(size=60)


def set_value(folder: Path, key: str, criterion: str, value: float | None) -> None:
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    record["selected"][criterion]["value"] = value
    path.write_text(json.dumps(record))


def only_cell(folder: Path, criterion: str = "val_accuracy") -> Cell:
    (cell,) = cells_of(load_sweep(folder), criterion)
    return cell


def test_best_draw_of_each_trial_by_the_criterion(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM, trials=(0, 1), draws=(0, 1, 2))
    folder = fake.finish()
    values = {
        "val_accuracy": (0.5, 0.9, 0.7, 0.6, 0.6, 0.1),
        "val_worst_group": (0.9, 0.1, 0.2, None, 0.3, 0.4),
    }
    for criterion, row in values.items():
        for key, value in zip(keys, row, strict=True):
            set_value(folder, key, criterion, value)
    chosen = {
        c: [(w.trial, w.run.draw, w.draw_count) for w in only_cell(folder, c).selected_runs]
        for c in values
    }
    assert chosen["val_accuracy"] == [(0, 1, 3), (1, 0, 3)]  # a tie goes to the smaller draw
    assert chosen["val_worst_group"] == [
        (0, 0, 3),
        (1, 2, 3),
    ]  # a draw without a value is never preferred


def test_last_step_is_no_measure_of_quality(tmp_path: Path) -> None:
    """The value of ``last`` is a step number, so draws are compared by validation accuracy."""
    fake = FakeSweep(tmp_path, criteria=("last",))
    keys = fake.add(World(size=600), ERM, trials=(0,), draws=(0, 4))
    folder = fake.finish()
    set_value(folder, keys[1], "last", 5000.0)
    assert [w.run.draw for w in only_cell(folder, "last").selected_runs] == [0]


def test_test_splits_never_decide(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM, trials=(0,), draws=(0, 1))
    folder = fake.finish()
    before = only_cell(folder).selected_runs[0].run.key
    for key in keys:
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        for entry in record["selected"].values():
            for split in ("biased", "unbiased", "deceiving"):
                perfect = key != before
                entry["splits"][split]["counts"] = [[[9 * perfect, 9 * (not perfect)], [0, 9]]] * 2
        path.write_text(json.dumps(record))
    assert only_cell(folder).selected_runs[0].run.key == before


def test_unfinished_runs_are_named(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, ERM, trials=(1,), state="failed")
    fake.add(WORLD, ERM, trials=(2,), state="running")
    cell = only_cell(fake.finish())
    assert [w.trial for w in cell.selected_runs] == [0]
    assert each_mentions(
        cell.notes,
        ("1 of 3", "failed", "trial 1", "cross_entropy", "NaN", "step 30"),
        ("1 of 3", "running", "trial 2"),
    )


def test_refusals_and_upstream_runs(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, Method("teacher", requested=False), trials=(0,))
    fake.add(WORLD, DRO, trials=(0,))
    fake.refuse(WORLD, "isnet", "no masks")
    fake.refuse(WORLD, "isnet", "no masks")
    cells = cells_of(load_sweep(fake.finish()), "val_accuracy")
    assert [(c.method, c.requested) for c in cells] == [
        ("group_dro", True),
        ("isnet", True),
        ("teacher", False),
    ]
    assert cells[1].refusals == ["no masks"]


def test_a_criterion_that_some_runs_lack(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    key = fake.add(WORLD, ERM, trials=(0, 1))[0]
    folder = fake.finish()
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    del record["selected"]["val_worst_group"]
    path.write_text(json.dumps(record))
    cell = only_cell(folder, "val_worst_group")
    assert [w.trial for w in cell.selected_runs] == [1]
    assert "1 finished run not selected by val_worst_group, left out" in cell.notes


def test_choosing_the_criterion(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, criteria=("val_worst_group", "last"))
    fake.add(WORLD, ERM, trials=(0,))
    sweep = load_sweep(fake.finish())
    assert choose_criterion(sweep, None) == "val_worst_group"
    assert choose_criterion(sweep, "last") == "last"
    with pytest.raises(UserError, match="did you mean val_mean"):
        choose_criterion(sweep, "val_means")
    with pytest.raises(UserError, match=r"no run .*by val_mean .*: val_worst_group, last"):
        choose_criterion(sweep, "val_mean")
