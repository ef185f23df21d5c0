"""Grid search: draws that are the points of a grid."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from benchmark.cli.launching import _config
from benchmark.core.errors import Problems, UserError
from benchmark.core.spec import RunSpec
from benchmark.plan import planner
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import SweepConfig, config_from
from benchmark.sweep import _parser


def config(**values: Any) -> SweepConfig:
    table = {
        "datasets": ["tiny"],
        "algorithms": ["ex2l"],
        "backbone": "convnet:width=2",
        "budget": {"steps": 4},
        "draws": "grid",
    }
    return config_from({**table, **values}, "grid", "grid")


def specs(**values: Any) -> list[RunSpec]:
    return [run.spec for run in expand(config(**values)).runs.values()]


def test_draws_are_the_points_of_the_product_of_the_grids() -> None:
    lambdas = [0.1, 1, 10, 100]
    override = {"ex2l": {"confounder_weight": {"grid": lambdas}}}
    fixed = {"similarity_weight": {"grid": [0.5, 5.0]}, "lr": 0.01}
    found = specs(fixed=fixed, override=override, trials=[0, 7])
    assert [(s.trial, s.draw) for s in found] == [*itertools.product((0, 7), range(1, 9))]
    names = ("confounder_weight", "similarity_weight")
    points = [tuple(spec.hparams[name] for name in names) for spec in found]
    expected = [(float(a), b) for a, b in itertools.product(lambdas, (0.5, 5.0))]
    assert points == 2 * expected, "the same points in each trial"
    assert len({s.key for s in found}) == 16
    (default,) = specs(draws=0, fixed={"lr": 0.01})
    for spec in found:
        others = {name: value for name, value in spec.hparams.items() if name not in names}
        assert others.items() <= default.hparams.items(), "everything else has its default"
        assert all(type(spec.hparams[name]) is float for name in ("confounder_weight", "lr"))


def test_each_method_has_its_own_grid_and_one_run_without_any() -> None:
    found = specs(
        algorithms=["erm", "group_dro", "ex2l:mae", "ex2l"],
        override={
            "group_dro": {"eta": {"grid": [0.1, 1.0, 10.0]}},
            "ex2l": {"lr": {"grid": [0.1, 0.01]}, "confounder_weight": {"uniform": [0.1, 100]}},
            "ex2l:mae": {"lr": 0.5},
        },
    )
    draws: dict[str, list[int]] = {}
    for spec in found:
        draws.setdefault(spec.method, []).append(spec.draw)
    assert draws == {"erm": [0], "group_dro": [1, 2, 3], "ex2l:mae": [0], "ex2l": [1, 2]}
    assert {s.hparams["confounder_weight"] for s in found if s.method == "ex2l"} == {1.0}, (
        "other distributions have the declared default"
    )


def test_a_first_stage_has_the_values_of_the_point() -> None:
    found = specs(
        algorithms=["jtt"], override={"jtt": {"upweight": {"grid": [2.0, 5.0]}}},
        fixed={"lr": {"grid": [0.1, 0.2, 0.3]}},
    )  # fmt: skip
    by_key = {spec.key: spec for spec in found}
    stages = [spec for spec in found if spec.algorithm == "jtt"]
    assert len(stages) == 6
    for spec in stages:
        (first,) = (by_key[key] for key in spec.upstream.values())
        assert first.hparams["lr"] == spec.hparams["lr"] and first.draw == spec.draw


def test_a_teacher_has_its_defaults() -> None:
    found = specs(
        algorithms=["tea"],
        fixed={"lr": {"grid": [0.1, 0.2]}},
        override={"segment_classify": {"unet_width": 2, "unet_depth": 2}},
    )
    (teacher,) = (spec for spec in found if spec.algorithm == "segment_classify")
    assert teacher.draw == 0 and teacher.hparams["lr"] not in (0.1, 0.2)
    assert [spec.hparams["lr"] for spec in found if spec.algorithm == "tea"] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ([], "is not a grid of values"),
        (0.1, "is not a grid of values"),
        (["high"], "expected a number"),
        ([-1.0], "out of bounds"),
        ([0.1, 0.1], "contains a value twice"),
    ],
)
def test_mistakes_are_named_once(grid: Any, sentence: str) -> None:
    with pytest.raises(Problems, match=sentence) as found:
        specs(fixed={"lr": {"grid": grid}}, trials=2)
    assert len(found.value.problems) == 1


def test_a_grid_needs_its_kind_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"lr": {"grid": [0.1, 0.2]}}
    with pytest.raises(Problems, match='needs draws = "grid"'):
        specs(fixed=fixed, draws=2)
    (default,) = specs(fixed=fixed, draws=0)
    (plain,) = specs(draws=0)
    assert default.key == plain.key, "draw 0 has the declared default"
    with pytest.raises(Problems, match=r"or draws = .grid."):
        config(draws="grd")
    with pytest.raises(Problems, match="trials"):
        config(trials="grid")
    monkeypatch.setattr(planner, "MAX_RUNS", 3)
    with pytest.raises(UserError, match="at most 3"):
        specs(fixed={"lr": {"grid": [0.1, 0.2]}}, trials=2)


def test_the_plan_records_it_and_the_command_line_replaces_it(tmp_path: Any) -> None:
    assert config().to_json()["draws"] == "grid" and "grid" not in config().to_json()
    assert config(draws=[0, 2]).to_json()["draws"] == (0, 2)
    file = tmp_path / "search.toml"
    file.write_text(
        'datasets = ["tiny"]\nalgorithms = ["erm"]\ndraws = "grid"\n'
        "[fixed]\nlr = { grid = [0.1, 0.2] }\n"
    )
    given = _parser().parse_args(["launch", str(file)])
    assert _config(given).grid and json.dumps(_config(given).to_json())
    given = _parser().parse_args(["launch", str(file), "--draws", "0"])
    assert not _config(given).grid and _config(given).draws == (0,)
