"""Sweep files changed from the command line, templates, and runs taken out of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.layout import SINGLE_RUNS, newest_sweep
from benchmark.plan.overrides import parse_value, read_changed_sweep
from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import config_from, read_sweep
from benchmark.sweep import main

SWEEP = """
datasets = ["tiny:size=64"]
algorithms = ["erm", "group_dro"]
trials = 2
[budget]
steps = 20
evaluate_every = 10
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SWEEP)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100", 100),
        ("0.5", 0.5),
        ("true", True),
        ('["last"]', ["last"]),
        ("resnet18:small_stem=true", "resnet18:small_stem=true"),
        ('"a b"', "a b"),
        ("1\nother = 2", "1\nother = 2"),
        ("", ""),
    ],
)
def test_values_are_toml_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_entries_and_tables_are_changed(file: Path) -> None:
    changed = read_changed_sweep(
        file,
        [
            "budget.steps=7",
            "trials=5",
            "backbone=convnet:width=4",
            'override."erm".lr=0.5',
            'selection=["last"]',
        ],
    )
    assert changed.budget["steps"] == 7 and changed.budget["evaluate_every"] == 10
    assert changed.trials == (0, 1, 2, 3, 4) and str(changed.backbone) == "convnet:width=4"
    assert changed.override["erm"] == {"lr": 0.5} and changed.selection == ("last",)
    assert read_changed_sweep(file) == read_sweep(file)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ("budget.steps", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("trials.first=3", "trials"),
        ("bugdet.steps=3", "budget"),
        ("budget.steps=many", "steps"),
    ],
)
def test_other_changes_are_refused(file: Path, change: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        read_changed_sweep(file, [change])


def test_the_command_accepts_changes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "30", "--hparam", "lr=0.1", "--set", "trials=1", "--backbone", "convnet"]
    assert main(["validate", str(file), *options]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert main(["validate", str(file), "--hparam", "rate=0.1"]) == 2
    assert "rate" in capsys.readouterr().err


def test_a_template_is_a_valid_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my_sweep"]) == 0
    assert main(["validate", "my_sweep.toml"]) == 0
    printed = capsys.readouterr()
    assert "9 runs" in printed.out and not printed.err
    assert main(["new", "my_sweep"]) == 2
    assert main(["new", "nowhere/my_sweep"]) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A planned sweep in which TEA and ERM need runs of each other's kind."""
    table = {
        "datasets": ["tiny:size=64"],
        "algorithms": ["erm", "group_dro", "dfr"],
        "trials": [0, 1],
        "budget": {"steps": 20, "evaluate_every": 10},
    }
    path = tmp_path / "results" / "mine"
    write_plan(expand(config_from(table, "mine", "test")), path)
    return path


def test_a_method_is_taken_out_and_kept_aside(folder: Path) -> None:
    before = read_stored(folder).runs
    leaving = {key for key, run in before.items() if run.method == "group_dro"}
    assert main(["remove", str(folder), "--algorithm", "group_dro", "--yes"]) == 0
    after = read_stored(folder).runs
    assert set(after) == set(before) - leaving
    assert {path.name for path in (folder / "removed").iterdir()} == leaving
    assert not any((folder / "runs" / key).exists() for key in leaving)
    assert set(read_stored(folder).plan.config["algorithms"]) == {"erm", "dfr"}


def test_the_plan_names_what_earlier_launches_added(folder: Path) -> None:
    table = {
        "datasets": ["tiny:size=64"],
        "algorithms": ["irm"],
        "trials": [2],
        "budget": {"steps": 20, "evaluate_every": 10},
    }
    write_plan(expand(config_from(table, "mine", "test")), folder)
    config = read_stored(folder).plan.config
    assert set(config["algorithms"]) == {"erm", "group_dro", "dfr", "irm"}
    assert config["trials"] == [0, 1, 2]


def test_upstream_runs_stay_while_they_are_needed(folder: Path) -> None:
    before = read_stored(folder).runs
    needed = {key for key, run in before.items() if run.method == "erm"}
    assert main(["remove", str(folder), "--algorithm", "dfr", "--yes"]) == 0
    assert {run.method for run in read_stored(folder).runs.values()} == {"erm", "group_dro"}
    assert needed >= {k for k, run in read_stored(folder).runs.items() if run.method == "erm"}


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ([], "--algorithm"),
        (["--algorithm", "irm"], "irm"),
        (["--dataset", "mnist"], "mnist"),
        (["--algorithm", "group_dro"], "--yes"),
        (["--algorithm", "erm"], "needed"),
    ],
)
def test_mistakes_remove_nothing(
    folder: Path, arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_stored(folder).runs
    assert main(["remove", str(folder), *arguments]) == 2
    assert fact in capsys.readouterr().err
    assert read_stored(folder).runs == before


def test_status_accepts_what_tables_accept_and_single_runs_are_no_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder.parent
    monkeypatch.chdir(root.parent)
    for given in (["mine"], ["results/mine"], ["results"], []):
        assert main(["status", *given, "--once"]) == 0
        assert "mine" in capsys.readouterr().out
    run = next((folder / "runs").iterdir())
    for wrong in ("yours", str(run)):
        assert main(["status", wrong, "--once"]) == 2
        assert wrong in capsys.readouterr().err
    (root / SINGLE_RUNS / "runs").mkdir(parents=True)
    found = newest_sweep(root)
    assert found is not None and found.path.name == "mine"
