"""Titles of methods, data sets and groups: from classes and sweep files to the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import Problems
from benchmark.core.layout import SweepFolder
from benchmark.core.registry import ALGORITHMS, DATASETS, EXPLAINERS
from benchmark.core.sweep_plan import read_plan
from benchmark.core.titles import Titles, make_distinct, method_title, own_title
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import config_from


def _plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "datasets": ["digits_on_photos:places=2,bias=0.95"],
        "algorithms": ["erm", "group_dro", "ex2l:mae"],
        "budget": {"steps": 4, "evaluate_every": 2},
    }
    return expand(config_from({**values, **changes}, "small", "small.toml"))


def test_titles_of_the_classes() -> None:
    names = _plan().titles.names
    assert names["erm"] == "ERM"
    assert names["group_dro"] == "GroupDRO"
    assert names["ex2l:mae"] == "eX2L (MAE)"
    assert names["digits_on_photos:places=2,bias=0.95"] == "Digits on photographs, 95 % bias"


def test_the_sweep_file_overrides_titles_but_no_key() -> None:
    plain = _plan()
    group = next(iter(plain.data.values())).info.group_names[0]
    named = _plan(titles={"ex2l": "Ours", "digits_on_photos": "Digits", group: "first group"})
    assert list(named.runs) == list(plain.runs)
    assert named.titles.of("ex2l:mae") == "Ours (MAE)"
    dataset = "digits_on_photos:places=2,bias=0.95"
    assert named.titles.of(dataset) == "Digits, 95 % bias"
    assert named.titles.of_group(dataset, group) == "first group"
    assert _plan(titles={dataset: "Photos"}).titles.of(dataset) == "Photos"


def test_mistakes_in_titles() -> None:
    with pytest.raises(Problems, match=r"ex2ll.*ex2l"):
        _plan(titles={"ex2ll": "Ours"})
    with pytest.raises(Problems, match="is empty"):
        _plan(titles={"erm": " "})
    with pytest.raises(Problems, match="not a text"):
        _plan(titles={"erm": 3})


def test_equal_titles_show_the_options() -> None:
    names = ["digits_on_photos:bias=0.9", "digits_on_photos:bias=0.9,places=2"]
    titles = _plan(datasets=names, algorithms=["erm"]).titles
    assert len({titles.of(name) for name in names}) == 2
    assert make_distinct({"a": "A", "b:x=1": "A"}) == {"a": "A (a)", "b:x=1": "A (x=1)"}


def test_titles_survive_the_plan_and_a_second_launch(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    write_plan(_plan(titles={"erm": "Baseline"}), folder)
    write_plan(_plan(algorithms=["irm"]), folder)
    titles = read_plan(SweepFolder(folder)).plan.titles
    assert (titles.of("erm"), titles.of("irm")) == ("Baseline", "IRM")


def test_names_stand_in_for_missing_titles() -> None:
    assert Titles().of("erm") == "erm"
    assert Titles().of_group("tiny", "a/b") == "a/b"


def test_subclasses_do_not_inherit_titles() -> None:
    erm = ALGORITHMS.get("erm")
    mine = type("Mine", (erm,), {"name": "mine"})
    assert method_title(mine) == "mine"
    assert method_title(mine, "few_images") == "mine (few images)"


@pytest.mark.parametrize(
    "registry", [ALGORITHMS, DATASETS, EXPLAINERS], ids=["algorithms", "datasets", "explainers"]
)
def test_every_class_has_a_title_of_its_own(registry: Any) -> None:
    titles = [own_title(registry.get(name)) for name in registry.names()]
    assert len(set(titles)) == len(titles)
    assert not set(titles) & set(registry.names())


def test_groups_have_titles() -> None:
    (groups,) = _plan(algorithms=["erm"]).titles.groups.values()
    assert all("/" not in title and "_" not in title for title in groups.values())
