"""Test the table of hyper-parameters, and the sweep file that retrains the selected runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.hyperparameters import retrain_sweeps
from tests.support.fake_sweep import ERM, FakeSweep, Method, World

WORLD = World(size=60)


def test_hparams_are_in_every_report(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1), draws=(0, 3), momentum=0.75, name_with_ugly_value='a"b\\c')
    report = make_report(fake.finish())
    _, sheet = report.appendix  # costs, then hyper-parameters
    (row,) = sheet.rows
    assert "momentum=0.75" in row[2] and row[1].startswith("0: ")
    assert "momentum" not in render(report, "text", appendix=False)
    for form in ("text", "markdown", "json", "latex"):
        assert "momentum" in render(report, form)


def test_shared_hparams_are_named_once(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1), momentum=0.75, schedule="cosine")
    fake.add(WORLD, Method("group_dro"), trials=(0, 1), momentum=0.75, schedule="step", eta=0.01)
    report = make_report(fake.finish())
    _, sheet = report.appendix
    assert "momentum=0.75" in sheet.caption[-1] and "schedule" not in sheet.caption[-1]
    assert [row[2] for row in sheet.rows if "momentum" in row[2]] == []
    assert [row[2].count("schedule=") for row in sheet.rows] == [1, 1] and "eta=0.01" in sheet.rows[
        1
    ][2]
    assert any(
        line.rstrip().endswith("schedule=step, eta=0.01")
        for line in render(report, "text").splitlines()
    )


def test_retrain_file_says_what_won(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, "odd name")
    fake.add(
        WORLD, ERM, trials=(0, 4), draws=(0, 1, 2), schedule='co"si\\ne\n', flag=True, layers=[1, 2]
    )
    fake.add(WORLD, Method("teacher", requested=False), trials=(0,))
    report = make_report(fake.finish())
    ((name, text),) = retrain_sweeps(report.sweep, report.tables, 3).items()
    value = tomllib.loads(text)
    assert name == "odd name_retrain"
    assert (
        value["trials"] == [5, 6, 7]
        and value["algorithms"] == ["erm"]
        and value["datasets"] == [WORLD.label]
    )
    selected_runs = report.tables[0].rows[0].selected_runs
    best = max(selected_runs, key=lambda w: w.at.value or 0.0)
    assert best.run.spec is not None
    override = value["override"]["erm"]
    assert {name: override[name] for name in best.run.spec.hparams} == best.run.spec.hparams
    assert override["budget"] == best.run.spec.budget


def test_the_planner_accepts_it(tmp_path: Path) -> None:
    """A sweep file made from selected runs plans runs with the same hyper-parameters."""
    pytest.importorskip("torch")
    from benchmark.plan.planner import expand
    from benchmark.plan.sweepfile import read_sweep

    source = tmp_path / "tune.toml"
    source.write_text(
        'datasets = ["tiny:bias=0.8"]\n'
        'algorithms = ["erm", "group_dro", "cdan:cdann"]\n'
        'backbone = "convnet:width=8"\n'
        'trials = 1\ndraws = 2\nselection = ["val_accuracy"]\n[budget]\nsteps = 4\n'
        "[override.group_dro]\ndataset = { bias = 0.7 }\nbudget = { steps = 6 }\n"
        '[override.erm]\nselection = ["val_worst_group", "val_accuracy"]\n'
    )
    plan = expand(read_sweep(source))
    fake = FakeSweep(tmp_path, criteria=("val_accuracy", "val_worst_group"))
    for planned in plan.runs.values():
        fake.add_spec(planned.spec, "tiny:bias=0.8", World(size=40), Method(planned.spec.method))
    report = make_report(fake.finish())
    ((_, text),) = retrain_sweeps(report.sweep, report.tables, 2).items()
    (tmp_path / "again.toml").write_text(text)
    again = expand(read_sweep(tmp_path / "again.toml"))
    specs = {(run.spec.method, run.spec.trial): run.spec for run in again.runs.values()}
    assert sorted(specs) == [(m, t) for m in ("cdan:cdann", "erm", "group_dro") for t in (1, 2)]
    for row in report.tables[0].rows:
        won, new = row.selected_runs[0].run.spec, specs[row.method, 2]
        assert won is not None
        for field in (
            "hparams",
            "dataset_options",
            "budget",
            "backbone",
            "backbone_options",
            "selection",
            "compute",
        ):
            assert getattr(won, field) == getattr(new, field), field


def test_nothing_to_retrain(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, state="failed")
    report = make_report(fake.finish())
    with pytest.raises(UserError, match="no run of demo has finished"):
        retrain_sweeps(report.sweep, report.tables, 3)
    with pytest.raises(UserError, match="at least 1"):
        retrain_sweeps(report.sweep, report.tables, 0)
