"""Test that files of one run in the folder of another are not used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.files import sha256_of
from benchmark.core.layout import State
from benchmark.report.formats.report_format import file_names
from benchmark.report.records.stored_arrays import read_heatmaps
from benchmark.report.records.sweep_records import SweepRun, load_sweep
from benchmark.report.render import render
from benchmark.report.report import make_report
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

WORLD = World(size=60)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str, str]:
    """A finished run of ERM and one of GroupDRO, which is much better."""
    fake = FakeSweep(tmp_path)
    (erm,), (dro,) = fake.add(WORLD, ERM, trials=(0,)), fake.add(WORLD, DRO, trials=(0,))
    return fake.finish(), erm, dro


def by_key(folder: Path) -> dict[str, SweepRun]:
    return {run.key: run for run in load_sweep(folder).runs}


def edit(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def scores(folder: Path) -> dict[str, float | None]:
    (table,) = make_report(folder).tables
    return {row.method: row.values[0].estimate.value for row in table.rows if row.values}


def test_a_record_of_another_run(two: tuple[Path, str, str]) -> None:
    folder, erm, dro = two
    before = scores(folder)
    shutil.copy(folder / "runs" / erm / "record.json", folder / "runs" / dro / "record.json")
    runs = by_key(folder)
    assert (runs[erm].state, runs[dro].state) == (State.DONE, State.UNREADABLE)
    reason = f"record.json is of the run {erm}, not of {dro}: files of two runs were mixed"
    assert runs[dro].reason == reason
    assert scores(folder) == {"erm": before["erm"], "group_dro": None}
    report = make_report(folder)
    for form in file_names():
        text = " ".join(render(report, form).replace("\\", "").split())
        assert dro in text and "unreadable" in text


def test_a_record_whose_key_was_changed_to_fit(two: tuple[Path, str, str]) -> None:
    folder, erm, dro = two
    shutil.copy(folder / "runs" / erm / "record.json", folder / "runs" / dro / "record.json")
    edit(folder / "runs" / dro / "record.json", key=dro)
    run = by_key(folder)[dro]
    assert run.state == State.UNREADABLE
    assert mentions(run.reason, "key", "spec", erm)


def test_a_record_with_the_right_spec_and_the_results_of_another(
    two: tuple[Path, str, str],
) -> None:
    """The record is unremarkable, but the predictions are of another run."""
    folder, erm, dro = two
    other = json.loads((folder / "runs" / erm / "record.json").read_text())
    edit(folder / "runs" / dro / "record.json", selected=other["selected"])
    report = make_report(folder)
    notes = " ".join(report.tables[0].notes)
    assert f"({dro}): predictions.npz contradicts record.json on" in notes


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "spec alone"])
def test_a_folder_under_the_name_of_another_run(two: tuple[Path, str, str], whole: bool) -> None:
    folder, erm, dro = two
    if whole:
        shutil.rmtree(folder / "runs" / dro)
        shutil.copytree(folder / "runs" / erm, folder / "runs" / dro)
    else:
        shutil.copy(folder / "runs" / erm / "spec.json", folder / "runs" / dro / "spec.json")
    run = by_key(folder)[dro]
    assert run.state == State.UNREADABLE and run.record is None
    assert "mixed" in run.reason or "does not belong to its folder" in run.reason


def test_a_failure_of_another_run(two: tuple[Path, str, str]) -> None:
    folder, erm, dro = two
    failure = {"schema": 1, "key": erm, "attempt": 1, "kind": "exception", "message": "a bug"}
    (folder / "runs" / dro / "record.json").unlink()
    (folder / "runs" / dro / "failure.json").write_text(json.dumps(failure))
    run = by_key(folder)[dro]
    assert (
        run.reason
        == f"failure.json is of the run {erm}, not of {dro}: files of two runs were mixed"
    )


def test_predictions_of_another_run(two: tuple[Path, str, str]) -> None:
    folder, erm, dro = two
    runs = folder / "runs"
    shutil.copy(runs / erm / "predictions.npz", runs / dro / "predictions.npz")
    (table,) = make_report(folder).tables
    assert f"({dro}): predictions.npz contradicts record.json" in " ".join(table.notes)


def test_predictions_with_other_confounders(two: tuple[Path, str, str]) -> None:
    """The same predictions for other groups have equal sums over confounders."""
    folder, _, dro = two
    path = folder / "runs" / dro / "predictions.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["unbiased/confounder"] = 1 - arrays["unbiased/confounder"]
    np.savez(path, **arrays)
    notes = " ".join(make_report(folder).tables[0].notes)
    assert f"({dro}): predictions.npz contradicts record.json on unbiased" in notes


def test_files_that_the_record_does_not_know(two: tuple[Path, str, str]) -> None:
    """Checksums also reveal files that would fit, and files that the run did not write."""
    folder, erm, dro = two
    for key in (erm, dro):
        path = folder / "runs" / key
        np.savez(path / "heatmaps.npz", split=np.array(["biased"]))
        edit(
            path / "record.json",
            checksums={"predictions.npz": sha256_of(path / "predictions.npz")},
        )
    assert scores(folder)["erm"] is not None
    report = make_report(folder)
    assert report.store.problems == {}
    path = folder / "runs" / dro / "predictions.npz"
    path.write_bytes(path.read_bytes() + b"\0")
    report = make_report(folder)
    assert "its checksum is wrong" in report.store.problems[dro]
    with pytest.raises(ValueError, match=r"of another run: record\.json does not"):
        read_heatmaps(by_key(folder)[erm])


def test_a_plan_that_lists_a_run_twice(two: tuple[Path, str, str]) -> None:
    """Two requested runs of one method, trial and draw must not count as two draws."""
    folder, erm, dro = two
    plan = json.loads((folder / "sweep.json").read_text())
    plan["runs"][dro] = plan["runs"][erm]
    (folder / "sweep.json").write_text(json.dumps(plan))
    runs = by_key(folder)
    assert (runs[erm].state, runs[dro].state) == (State.DONE, State.UNREADABLE)
    assert runs[dro].reason == f"sweep.json lists this run twice, also as {erm}"


def test_a_plan_with_the_same_key_twice(two: tuple[Path, str, str]) -> None:
    folder, erm, _ = two
    text = (folder / "sweep.json").read_text()
    entry = json.dumps(json.loads(text)["runs"][erm])
    (folder / "sweep.json").write_text(text.replace('"runs": {', f'"runs": {{"{erm}": {entry}, '))
    sweep = load_sweep(folder)
    assert f"the name '{erm}' appears twice" in sweep.notes[0]
    assert {run.key for run in sweep.runs} == set(two[1:])  # as the folders tell


def test_a_plan_that_calls_a_run_something_else(two: tuple[Path, str, str]) -> None:
    folder, erm, dro = two
    plan = json.loads((folder / "sweep.json").read_text())
    plan["runs"][erm], plan["runs"][dro] = plan["runs"][dro], plan["runs"][erm]
    (folder / "sweep.json").write_text(json.dumps(plan))
    assert [run.state for run in load_sweep(folder).runs] == [State.UNREADABLE] * 2
    assert all("sweep.json" in run.reason for run in load_sweep(folder).runs)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc", "..", "", "0123", "0" * 17, "0" * 15 + "G"]
)
def test_a_plan_that_lists_what_is_no_key(two: tuple[Path, str, str], name: str) -> None:
    folder, erm, _ = two
    plan = json.loads((folder / "sweep.json").read_text())
    plan["runs"][name] = plan["runs"][erm]
    (folder / "sweep.json").write_text(json.dumps(plan))
    sweep = load_sweep(folder)
    assert len(sweep.runs) == 2 and all(run.state == State.DONE for run in sweep.runs)
    assert "1 runs with invalid keys" in sweep.notes[0]


def test_runs_on_one_data_set_have_the_same_labels(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    (odd,) = fake.add(World(size=60, classes=3), DRO, trials=(0,))
    folder = fake.finish()
    runs = by_key(folder)
    assert runs[odd].state == State.UNREADABLE
    assert mentions(runs[odd].reason, "record.json", "other labels or splits")
    assert sum(run.state == State.DONE for run in runs.values()) == 3
    make_report(folder)


def test_more_than_ten_unreadable_runs_are_counted(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, Method("m"), trials=range(12))
    folder = fake.finish()
    for key in keys:
        (folder / "runs" / key / "record.json").write_text("{")
    (row,) = make_report(folder).tables[0].rows
    (note,) = row.notes
    assert note.startswith("12 of 12 runs unreadable") and note.endswith("; and 2 more")
    assert sum(key in note for key in keys) == 10


def test_a_pending_run_that_needs_an_unreadable_one_is_blocked(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (teacher,) = fake.add(WORLD, ERM, trials=(0,))
    (student,) = fake.add(
        WORLD, Method("tea"), trials=(0,), state="pending", upstream={"teacher": teacher}
    )
    folder = fake.finish()
    (folder / "runs" / teacher / "record.json").write_text("[]")
    run = by_key(folder)[student]
    assert run.state == State.BLOCKED and "its teacher unreadable (record.json" in run.reason
