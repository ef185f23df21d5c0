"""Plans on disk: complete writes, merging with earlier launches, and other folders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import UserError
from benchmark.core.files import read_json, write_json
from benchmark.core.spec import RunSpec
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import config_from
from tests.support.toy_algorithms import Choosy, Pupil, Student, registered


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Student, Pupil, Choosy):
        yield


def _plan(name: str = "test", skip: bool = False, **values: Any) -> Plan:
    least = {"datasets": ["tiny"], "algorithms": ["erm"], "backbone": "convnet:width=2"}
    return expand(config_from({**least, **values}, name, "here"), skip_impossible=skip)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _rows(folder: Path, requested: bool = True) -> list[tuple[str, str, int]]:
    runs = read_stored(folder).runs.values()
    return [(r.dataset, r.method, r.trial) for r in runs if r.requested == requested]


def test_a_plan_is_written_and_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "sweep"
    plan = _plan(title="A title", algorithms=["erm", "toy_student"], trials=2)
    keys = write_plan(plan, folder)
    assert keys == list(plan.runs)
    stored = read_stored(folder)
    assert (stored.name, stored.title, stored.refused) == ("test", "A title", ())
    assert list(stored.runs) == keys
    for key in keys:
        spec = RunSpec.from_json(read_json(stored.run_folder(key) / "spec.json"))
        assert spec == plan.runs[key].spec and spec.key == key
    written = read_json(folder / "sweep.json")
    assert written["selection"] == ["val_accuracy", "last"] and written["config"]["datasets"] == [
        "tiny"
    ]
    assert {p.name for p in folder.iterdir()} == {"sweep.json", "runs"}


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    write_plan(_plan(trials=2), tmp_path / "s")
    before = _contents(tmp_path / "s")
    write_plan(_plan(trials=2), tmp_path / "s")
    assert _contents(tmp_path / "s") == before


def test_a_later_launch_adds_to_an_earlier_one(tmp_path: Path) -> None:
    first = write_plan(_plan(trials=2), tmp_path)
    second = write_plan(_plan(algorithms=["irm"]), tmp_path)
    assert set(read_stored(tmp_path).runs) == {*first, *second}
    assert sorted(_rows(tmp_path)) == [("tiny", "erm", 0), ("tiny", "erm", 1), ("tiny", "irm", 0)]


def test_changed_settings_replace_the_row_and_leave_the_folder(tmp_path: Path) -> None:
    (old,) = write_plan(_plan(budget={"steps": 5}), tmp_path)
    (new,) = write_plan(_plan(budget={"steps": 6}), tmp_path)
    assert list(read_stored(tmp_path).runs) == [new] and old != new
    assert (tmp_path / "runs" / old / "spec.json").exists()


def test_upstream_runs_stay_as_long_as_somebody_needs_them(tmp_path: Path) -> None:
    """Two students have different teachers: a launch of one keeps the teacher of the other."""
    both = _plan(algorithms=["toy_student", "toy_pupil"])
    write_plan(both, tmp_path)
    write_plan(_plan(algorithms=["toy_student"]), tmp_path)
    runs = read_stored(tmp_path).runs
    assert set(runs) == set(both.runs)
    order = list(runs)
    for key in runs:
        for needed in both.runs[key].spec.upstream.values():
            assert order.index(needed) < order.index(key)


def test_upstream_runs_go_with_the_last_that_needed_them(tmp_path: Path) -> None:
    write_plan(_plan(algorithms=["toy_student"], override={"erm": {"lr": 0.5}}), tmp_path)
    plan = _plan(algorithms=["toy_student"], override={"erm": {"lr": 0.25}})
    write_plan(plan, tmp_path)
    assert list(read_stored(tmp_path).runs) == list(plan.runs)


def test_a_row_that_becomes_a_teacher_stays_a_row(tmp_path: Path) -> None:
    write_plan(_plan(algorithms=["erm"]), tmp_path)
    write_plan(_plan(algorithms=["toy_pupil"]), tmp_path)
    assert _rows(tmp_path) == [("tiny", "erm", 0), ("tiny", "toy_pupil", 0)]


def test_refusals_are_kept_and_settled(tmp_path: Path) -> None:
    write_plan(_plan(skip=True, algorithms=["erm", "toy_choosy"], trials=2), tmp_path)
    assert [r.method for r in read_stored(tmp_path).refused] == ["toy_choosy"]
    write_plan(_plan(algorithms=["irm"]), tmp_path)
    assert [(r.method, r.trial) for r in read_stored(tmp_path).refused] == [("toy_choosy", 0)]
    # A run that is refused now leaves the rows, and a refused run that runs now the refusals.
    write_plan(_plan(skip=True, algorithms=["toy_choosy"], trials=2, selection=["last"]), tmp_path)
    assert len(read_stored(tmp_path).refused) == 1
    assert _rows(tmp_path).count(("tiny", "toy_choosy", 0)) == 0


def _refuses(folder: Path, message: str, plan: Plan | None = None) -> None:
    before = _contents(folder) if folder.is_dir() else None
    with pytest.raises(UserError, match=message):
        write_plan(plan or _plan(), folder)
    assert (_contents(folder) if folder.is_dir() else None) == before


def test_another_sweeps_folder(tmp_path: Path) -> None:
    write_plan(_plan("first"), tmp_path)
    _refuses(
        tmp_path,
        r"holds the sweep 'first', not 'second'; choose another folder with --output",
        _plan("second"),
    )


def test_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    _refuses(tmp_path, "is not empty and holds no sweep; choose another folder with --output")
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "runs" / "tensorboard").mkdir(parents=True)
    _refuses(tmp_path, "is not empty and holds no sweep")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    _refuses(path, "file is a file; choose a folder with --output")


def test_hidden_files_do_not_make_a_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    assert write_plan(_plan(), tmp_path)


def test_a_sweep_json_that_was_deleted_is_written_anew(tmp_path: Path) -> None:
    keys = write_plan(_plan(), tmp_path)
    (tmp_path / "sweep.json").unlink()
    assert write_plan(_plan(), tmp_path) == keys and list(read_stored(tmp_path).runs) == keys


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "has schema version None, expected 1"),
        (b'{"schema": 99}', "has schema version 99, expected 1"),
        (b'{"schema": 1, "name": "test"}', "was edited or damaged"),
    ],
)
def test_a_damaged_sweep_json(content: bytes, message: str, tmp_path: Path) -> None:
    write_plan(_plan(), tmp_path)
    (tmp_path / "sweep.json").write_bytes(content)
    _refuses(tmp_path, message)
    with pytest.raises(UserError, match=message):
        read_stored(tmp_path)


def test_reading_a_folder_without_a_sweep(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"holds no sweep \(no sweep\.json\)"):
            read_stored(folder)


def _edit(path: Path, **changed: Any) -> None:
    write_json(path, {**read_json(path), **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trial": 5}, "does not belong to its folder; it was edited"),
        ({"schema": 2}, "has schema version 2, expected 1"),
        ({"another": 2}, r"has missing or unknown fields \(another\)"),
    ],
)
def test_an_edited_spec_stops_the_launch_before_anything_is_written(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (key,) = write_plan(_plan(), tmp_path)
    _edit(tmp_path / "runs" / key / "spec.json", **changed)
    _refuses(tmp_path, message, _plan(algorithms=["irm", "erm"]))


def test_a_damaged_spec_is_reported_and_a_missing_one_is_written(tmp_path: Path) -> None:
    (key,) = write_plan(_plan(), tmp_path)
    path = tmp_path / "runs" / key / "spec.json"
    path.write_text('{"dataset": "ti')
    _refuses(tmp_path, r"spec\.json is not JSON .*delete that run folder and launch again")
    shutil.rmtree(path.parent)
    write_plan(_plan(), tmp_path)
    assert RunSpec.from_json(json.loads(path.read_text())).key == key


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        write_plan(_plan(), tmp_path / "locked" / "sweep")
