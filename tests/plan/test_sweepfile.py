"""Reading sweep files: all mistakes are reported together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import Problems, UserError
from benchmark.core.named_options import NamedOptions
from benchmark.plan.sweepfile import (
    SWEEPS,
    SweepConfig,
    config_from,
    find_sweep_file,
    read_numbers,
    read_sweep,
)
from tests.support.messages import each_mentions

LEAST: dict[str, Any] = {"datasets": ["tiny"], "algorithms": ["erm"]}


def _config(**values: Any) -> SweepConfig:
    return config_from({**LEAST, **values}, "test", "here.toml")


def _problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(Problems) as found:
        _config(**values)
    return found.value.problems


def test_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        """
        title = "All of it"
        datasets = ["tiny:bias=0.8,size=32", "tiny"]
        algorithms = ["erm", "cdan:cdann"]
        backbone = "convnet:width=4"
        trials = [42, 8]
        draws = 2
        selection = ["val_worst_group", "last"]
        oracle = true
        skip_impossible = true
        [budget]
        steps = 20
        min_delta = 1
        [fixed]
        lr = 0.01
        [override.erm]
        lr = 0.1
        budget = { steps = 10 }
        [augmentation]
        flip = 0.5
        [compute]
        precision = "bf16"
        deterministic = true
        """
    )
    config = read_sweep(path)
    assert config.name == "mine" and config.title == "All of it"
    assert config.datasets == (
        NamedOptions("tiny", {"bias": "0.8", "size": "32"}),
        NamedOptions("tiny"),
    )
    assert [str(d) for d in config.datasets] == ["tiny:bias=0.8,size=32", "tiny"]
    assert config.algorithms == ("erm", "cdan:cdann") and str(config.backbone) == "convnet:width=4"
    assert config.trials == (42, 8) and config.draws == (1, 2)
    assert (
        config.budget == {"steps": 20, "min_delta": 1.0}
        and type(config.budget["min_delta"]) is float
    )
    assert config.compute == {"precision": "bf16", "deterministic": "true"}
    assert config.override == {"erm": {"lr": 0.1, "budget": {"steps": 10}}}
    assert config.oracle and config.skip_impossible


def test_syntax_errors_and_invalid_bytes_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    for content in (b"datasets = [", b'a = "\xff"', b"a = 1\na = 2"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.toml is not TOML: .*\.$"):
            read_sweep(path)


def test_all_mistakes_are_reported_together() -> None:
    problems = _problems(
        trails=3,
        backbone=5,
        trials=0,
        selection=["val_acc", "first"],
        budget={"stepz": 1, "steps": "many"},
        oracle=1,
        override={"erm": 3, "irm": 4},
    )
    assert all(problem.startswith("here.toml: ") for problem in problems)
    assert each_mentions(
        problems,
        ("'trails'", "trials"),
        ("backbone = 5", "text"),
        ("trials = 0", "1"),
        ("'val_acc'", "selection", "val_accuracy"),
        ("'first'", "selection", "last", "val_accuracy", "val_worst_group"),
        ("[budget]", "'stepz'", "steps"),
        ("[budget]", "steps = 'many'", "1000"),
        ("oracle = 1", "true or false"),
        ("override.erm = 3", "[override.erm]"),
        ("override.irm = 4", "[override.irm]"),
    )


def test_required_keys() -> None:
    with pytest.raises(Problems) as found:
        config_from({}, "test", "here.toml")
    assert [p.split(",")[0] for p in found.value.problems] == [
        "here.toml: datasets is missing",
        "here.toml: algorithms is missing",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"datasets": []}, "datasets = [] is not a list of texts"),
        ({"datasets": [1]}, "datasets = [1] is not a list of texts"),
        ({"datasets": ["tiny", "tiny"]}, "datasets contains tiny twice."),
        ({"algorithms": ["erm", "irm", "erm"]}, "algorithms contains erm twice."),
        ({"algorithms": [""]}, "is not a list of texts"),
        ({"datasets": ["tiny:bias"]}, "has the option 'bias', expected name:option=value"),
        ({"datasets": ["tiny:=1"]}, "has the option '=1'"),
        ({"datasets": ["tiny:bias="]}, "has the option 'bias='"),
        ({"datasets": [":bias=1"]}, "has no name"),
        ({"datasets": ["tiny:bias=1,bias=2"]}, "'bias' twice"),
        ({"selection": ["last", "last"]}, "last twice"),
        ({"budget": 3}, "budget = 3"),
        ({"budget": {"steps": 0}}, "steps = 0 is out of bounds"),
        (
            {"budget": {"evaluate_every": 0}},
            "evaluate_every = 0 is out of bounds",
        ),
        ({"budget": {"patience": -1}}, "patience = -1 is out of bounds"),
        ({"budget": {"steps": True}}, "steps = True is of the wrong type"),
        ({"budget": {"steps": 10.5}}, "steps = 10.5 is of the wrong type"),
        ({"budget": {"min_delta": float("nan")}}, "not finite"),
        ({"compute": {"precision": "fp16"}}, "precision = 'fp16' is not one of fp32, bf16"),
        ({"compute": {"deterministic": "maybe"}}, "is not one of auto, true, false"),
        ({"compute": {"compile": "yes"}}, "compile = 'yes' is of the wrong type"),
        ({"compute": {"channels_last": "yes"}}, "channels_last = 'yes' is of the wrong type"),
        ({"compute": {"compile": "auto"}}, "compile = 'auto' is of the wrong type"),
        ({"fixed": {"lr": float("inf")}}, "[fixed] contains"),
        ({"skip_impossible": "no"}, "is not true or false"),
        ({"title": 3}, "title = 3"),
    ],
)
def test_each_mistake_is_one_problem(values: dict[str, Any], message: str) -> None:
    (problem,) = _problems(**values)
    assert message in problem


def test_a_date_in_an_override_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "dated.toml"
    path.write_text('datasets = ["tiny"]\nalgorithms = ["erm"]\n[override.irm]\nlr = 2020-01-01\n')
    with pytest.raises(Problems, match=r"\[override\] contains a date"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trials", 1, (0,)),
        ("trials", 3, (0, 1, 2)),
        ("trials", [42, 8, 777], (42, 8, 777)),
        ("draws", 0, (0,)),
        ("draws", 1, (1,)),
        ("draws", 3, (1, 2, 3)),
        ("draws", [0, 5], (0, 5)),
    ],
)
def test_numbers(key: str, value: Any, expected: tuple[int, ...]) -> None:
    assert read_numbers(key, value) == expected


@pytest.mark.parametrize("value", [-1, [], [1, 1], [-1], [1.0], [True], True, 1.5, "3", None])
def test_invalid_numbers(value: Any) -> None:
    for key in ("trials", "draws"):
        with pytest.raises(UserError, match=f"^{key} = "):
            read_numbers(key, value)


def test_the_command_line_changes_only_given_values() -> None:
    config = _config(trials=5)
    changed = config.changed(datasets=None, algorithms=("irm",), trials=None, draws=(1,))
    assert changed.algorithms == ("irm",) and changed.draws == (1,)
    assert changed.trials == config.trials and changed.datasets == config.datasets


def test_sweeps_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.touch()
    assert find_sweep_file(str(path)) == path
    for name in sorted(p.stem for p in SWEEPS.glob("*.toml")):
        assert find_sweep_file(name) == find_sweep_file(f"{name}.toml") == SWEEPS / f"{name}.toml"
    with pytest.raises(UserError, match=r"no sweep file quickstrat.*quickstart"):
        find_sweep_file("quickstrat")
    with pytest.raises(UserError, match="there is no sweep file"):
        find_sweep_file(str(tmp_path / "quickstart.toml"))
