"""Test loading sweep folders: states of runs and damage of all kinds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.core.layout import LEASE_SECONDS, State, find_sweep_folder
from benchmark.report.records.sweep_records import load_sweep
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

WORLD = World(size=60)


def one_run(root: Path) -> tuple[Path, Path]:
    """Return a sweep with one finished run, and the path of its record."""
    fake = FakeSweep(root)
    key = fake.add(WORLD, ERM, trials=(0,))[0]
    folder = fake.finish()
    return folder, folder / "runs" / key / "record.json"


def test_counts_are_those_of_the_record(tmp_path: Path) -> None:
    folder, path = one_run(tmp_path)
    sweep = load_sweep(folder)
    run = sweep.runs[0]
    stored = json.loads(path.read_text())["selected"]
    assert (run.state, run.trial, run.draw, run.method) == ("done", 0, 0, "erm")
    for criterion, entry in stored.items():
        assert run.selected[criterion].step == entry["step"]
        assert run.selected[criterion].value == entry["value"]
        for split, content in entry["splits"].items():
            assert np.array_equal(run.selected[criterion].counts[split], content["counts"])
    assert list(load_sweep(folder, keep="val_worst_group").runs[0].selected) == ["val_worst_group"]


def test_counts_larger_than_a_byte_survive(tmp_path: Path) -> None:
    folder, path = one_run(tmp_path)
    value = json.loads(path.read_text())
    value["selected"]["val_accuracy"]["splits"]["biased"]["counts"][0][0][0] = 70_000
    path.write_text(json.dumps(value))
    counts = load_sweep(folder).runs[0].selected["val_accuracy"].counts["biased"]
    assert counts[0, 0, 0] == 70_000


def test_states(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for i, state in enumerate(("done", "failed", "pending", "running")):
        fake.add(WORLD, Method(f"m{i}"), trials=(0,), state=state)
    lost = fake.add(WORLD, Method("lost"), trials=(0,), state="running")[0]
    failed = fake.add(WORLD, Method("teacher"), trials=(0,), state="failed")[0]
    student = fake.add(
        WORLD, Method("student"), trials=(0,), state="pending", upstream={"teacher": failed}
    )[0]
    fake.add(
        WORLD, Method("grandchild"), trials=(0,), state="pending", upstream={"teacher": student}
    )
    fake.plan["f" * 16] = {"dataset": WORLD.label, "method": "never_written", "requested": True}
    fake.refuse(WORLD, "isnet", "no masks")
    folder = fake.finish()
    old = time.time() - LEASE_SECONDS - 10
    os.utime(folder / "runs" / lost / "lease.json", (old, old))
    sweep = load_sweep(folder)
    states = {run.method: run.state for run in sweep.runs}
    assert states == {
        "m0": "done",
        "m1": "failed",
        "m2": "pending",
        "m3": "running",
        "lost": "lost",
        "teacher": "failed",
        "student": "blocked",
        "grandchild": "blocked",
        "never_written": "pending",
    }
    reasons = {run.method: run.reason for run in sweep.runs}
    assert mentions(reasons["m1"], "non finite", "cross_entropy", "step 30")
    assert (
        "its teacher failed" in reasons["student"]
        and "its teacher blocked" in reasons["grandchild"]
    )
    assert sum(sweep.states().values()) == len(sweep.runs) == 9
    assert sweep.refused[0].reason == "no masks"


DAMAGES = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not a table": lambda text: "[1, 2]",
    "other schema": lambda text: text.replace('"schema": 1', '"schema": 2'),
    "field missing": lambda text: text.replace('"attempt"', '"attempts"'),
    "no selection": lambda text: json.dumps({**json.loads(text), "selected": {}}),
    "negative count": lambda text: edited(text, [[[-1, 0], [0, 1]]] * 2),
    "ragged counts": lambda text: edited(text, [[[1, 0], [1]]]),
    "fractional counts": lambda text: edited(text, [[[0.5, 0], [0, 1]]] * 2),
    "counts of other classes": lambda text: edited(text, [[[1, 0, 0]] * 3]),
    "null counts": lambda text: edited(text, None),
}


def edited(text: str, counts: object) -> str:
    value = json.loads(text)
    value["selected"]["val_accuracy"]["splits"]["biased"]["counts"] = counts
    return json.dumps(value)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_record_is_named_and_the_others_stay(tmp_path: Path, kind: str) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM, trials=(0, 1))
    folder = fake.finish()
    path = folder / "runs" / keys[0] / "record.json"
    path.write_text(DAMAGES[kind](path.read_text()))
    sweep = load_sweep(folder)
    assert [run.state for run in sweep.runs] == [State.UNREADABLE, "done"]
    assert sweep.runs[0].reason and sweep.runs[0].trial == 0  # spec.json still tells the trial
    if kind == "other schema":
        assert "schema version 2, expected 1" in sweep.runs[0].reason


def test_nan_criterion_value_is_no_value(tmp_path: Path) -> None:
    folder, path = one_run(tmp_path)
    value = json.loads(path.read_text())
    value["selected"]["val_accuracy"]["value"] = float("nan")
    path.write_text(json.dumps(value))
    assert load_sweep(folder).runs[0].selected["val_accuracy"].value is None


def test_damaged_failure_and_missing_spec(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    key = fake.add(WORLD, ERM, trials=(0,), state="failed")[0]
    folder = fake.finish()
    (folder / "runs" / key / "failure.json").write_text("{")
    (folder / "runs" / key / "spec.json").unlink()
    plan = json.loads((folder / "sweep.json").read_text())
    for entry in plan["runs"].values():
        del entry["trial"], entry["draw"]
    (folder / "sweep.json").write_text(json.dumps(plan))
    run = load_sweep(folder).runs[0]
    assert (run.state, run.trial) == ("failed", None)
    assert run.reason.startswith("failure.json is not JSON")


@pytest.mark.parametrize("content", [None, '{"schema": 1, "runs": {', '{"schema": 1, "name": "x"}'])
def test_without_a_usable_plan_the_folders_tell(tmp_path: Path, content: str | None) -> None:
    fake = FakeSweep(tmp_path)
    teacher = fake.add(WORLD, DRO, trials=(0,))[0]
    fake.add(WORLD, Method("cdan:cdann"), trials=(0,), upstream={"teacher": teacher})
    folder = fake.finish()
    (folder / "sweep.json").unlink()
    if content is not None:
        (folder / "sweep.json").write_text(content)
    sweep = load_sweep(folder)
    assert {(run.method, run.requested) for run in sweep.runs} == {
        ("group_dro", False),
        ("cdan:cdann", True),
    }
    assert len({run.dataset for run in sweep.runs}) == 1
    assert "sweep.json" in sweep.notes[0]


def test_folders_that_nobody_planned_are_counted(tmp_path: Path) -> None:
    folder, _ = one_run(tmp_path)
    (folder / "runs" / "stray").mkdir()
    assert any("1 folder in runs/ not in sweep.json" in note for note in load_sweep(folder).notes)


def test_finding_a_sweep(tmp_path: Path) -> None:
    root = tmp_path / "results"
    with pytest.raises(UserError, match="no sweep in"):
        find_sweep_folder(None, root)
    for name, created in (("old", 10.0), ("new", 20.0)):
        fake = FakeSweep(root, name)
        fake.add(WORLD, ERM, trials=(0,))
        path = fake.finish(created) / "sweep.json"
        os.utime(path, (created, created))
    (root / "published").mkdir()
    assert find_sweep_folder(None, root) == root / "new"
    assert find_sweep_folder("old", root) == root / "old"
    assert find_sweep_folder(str(root / "old"), root) == root / "old"
    assert find_sweep_folder(str(root), Path("nowhere")) == root / "new"
    run = next((root / "old" / "runs").iterdir())
    with pytest.raises(UserError, match="folder of one run"):
        find_sweep_folder(str(run), root)
    with pytest.raises(UserError, match="no folder"):
        find_sweep_folder("nothing", root)
    with pytest.raises(UserError, match="neither"):
        find_sweep_folder(str(root / "published"), root)


def test_other_schema_of_the_sweep(tmp_path: Path) -> None:
    folder, _ = one_run(tmp_path)
    (folder / "sweep.json").write_text('{"schema": 7, "runs": {}}')
    with pytest.raises(UserError, match="schema version 7, expected 1"):
        load_sweep(folder)
