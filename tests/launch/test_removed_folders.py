"""Folders that are removed or damaged while runs are in progress cost only their own run."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.layout import SweepFolder
from benchmark.core.spec import RunSpec
from benchmark.core.sweep_plan import PlannedEntry, SweepPlan
from benchmark.launch.display import show_status
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.foreign_runs import ForeignRuns
from benchmark.launch.launcher import launch
from benchmark.launch.lease import Claim
from benchmark.launch.retry import retry
from benchmark.launch.run_queue import read_node
from benchmark.launch.slots import Placement
from benchmark.launch.status import sweep_states
from benchmark.plan.sweep_folder import StoredSweep
from tests.support.launcher_process import Launcher, make, record, spec, until

REMOVED = "its folder was removed during the launch"


def started(folder: Path, one: RunSpec) -> bool:
    """Return True if a run has written a line of its log."""
    log = SweepFolder(folder).run(one.key).attempt(1).log
    return log.exists() and log.stat().st_size > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_the_folder_of_a_running_run_is_removed(tmp_path: Path, workers: int) -> None:
    lost = spec(0, steps=400, sleep=0.05, checkpoint_every=5)
    needs_it = spec(1, upstream={"teacher": lost.key})
    others = [spec(trial, steps=6) for trial in (2, 3, 4)]
    make(tmp_path, lost, needs_it, *others)
    launcher = Launcher(tmp_path, workers=workers, lease=2.0)
    until(lambda: started(tmp_path, lost))
    shutil.rmtree(tmp_path / "runs" / lost.key)
    assert launcher.wait(60) == 1, launcher.errors.read_text()
    summary = launcher.summary()
    assert list(summary["failed"]) == [lost.key] and REMOVED in summary["failed"][lost.key]
    assert summary["blocked"] == {needs_it.key: lost.key}
    assert sorted(summary["done"]) == sorted(one.key for one in others)
    assert "Traceback" not in launcher.errors.read_text()
    (event,) = launcher.events("failed")
    assert REMOVED in event["reason"] and "\n" not in event["reason"]
    # launching again, which writes the spec, runs it from the beginning
    make(tmp_path, spec(0, steps=4))
    assert not (tmp_path / "runs" / lost.key).exists()


def test_the_folder_of_a_waiting_run_is_removed(tmp_path: Path) -> None:
    first, lost, last = spec(0, steps=30, sleep=0.05), spec(1), spec(2)
    make(tmp_path, first, lost, last)
    launcher = Launcher(tmp_path, workers=1)
    until(lambda: started(tmp_path, first))
    shutil.rmtree(tmp_path / "runs" / lost.key)
    assert launcher.wait(60) == 1
    assert list(launcher.summary()["failed"]) == [lost.key]
    assert sorted(launcher.summary()["done"]) == sorted([first.key, last.key])


def test_the_spec_of_a_running_run_is_removed_and_the_run_ends_well(tmp_path: Path) -> None:
    """It has read its spec; what it commits is a result."""
    one = spec(0, steps=40, sleep=0.05)
    make(tmp_path, one)
    launcher = Launcher(tmp_path, workers=1)
    until(lambda: started(tmp_path, one))
    (tmp_path / "runs" / one.key / "spec.json").unlink()
    assert launcher.wait(60) == 0 and launcher.summary()["done"] == [one.key]
    assert record(tmp_path, one.key)["key"] == one.key


def test_all_of_the_sweep_is_removed(tmp_path: Path) -> None:
    runs = [spec(trial, steps=400, sleep=0.05) for trial in range(3)]
    make(tmp_path, *runs)
    launcher = Launcher(tmp_path, workers=2, lease=2.0)
    until(lambda: started(tmp_path, runs[0]) and started(tmp_path, runs[1]))
    shutil.rmtree(tmp_path / "runs")
    assert launcher.wait(60) == 1
    assert set(launcher.summary()["failed"]) == {one.key for one in runs}
    assert "Traceback" not in launcher.errors.read_text()


def test_a_lease_never_makes_a_folder_again(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "gone", 1.0)
    with pytest.raises(FileNotFoundError):
        claim.take()
    assert not (tmp_path / "gone").exists()
    one = spec(0)
    make(tmp_path, one)
    foreign = ForeignRuns(1.0)
    foreign.watch(read_node(tmp_path, one.key))
    shutil.rmtree(tmp_path / "runs" / one.key)
    assert [(node.key, state) for node, state in foreign.poll()] == [(one.key, "pending")]
    assert len(foreign) == 0 and not (tmp_path / "runs" / one.key).exists()


def stored(folder: Path, *specs: RunSpec) -> StoredSweep:
    runs = {one.key: PlannedEntry("fake", one.method, one.trial, one.draw) for one in specs}
    return StoredSweep(folder, SweepPlan("s", "A sweep", 0.0, (), runs, ()))


def status(sweep: StoredSweep) -> tuple[int, list[str]]:
    stream = io.StringIO()
    code = show_status(sweep, watch=False, stream=stream)
    return code, stream.getvalue().splitlines()


def test_status_shows_the_rest_where_a_spec_is_missing(tmp_path: Path) -> None:
    runs = [spec(trial) for trial in range(4)]
    make(tmp_path, *runs)
    (tmp_path / "runs" / runs[0].key / "spec.json").unlink()
    shutil.rmtree(tmp_path / "runs" / runs[1].key)
    code, lines = status(stored(tmp_path, *runs))
    assert code == 0 and lines[0].endswith("4 runs, 4 pending, 0 done")
    assert [line.split()[1] for line in lines[1:]] == [runs[0].key, runs[1].key]
    assert all("spec.json is missing; launch the sweep again" in line for line in lines[1:])


DAMAGES = {
    "torn": lambda text: text[: len(text) // 2],
    "of another run": lambda text: text.replace('"trial": 1', '"trial": 7'),
    "of another type": lambda text: text.replace('"draw": 0', '"draw": []'),
    "of another schema": lambda text: text.replace('"schema": 1', '"schema": 9'),
    "no text": lambda text: "\udcff",
    "deep": lambda text: "[" * 100_000,
    "empty": lambda text: "",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_status_names_a_damaged_spec_and_shows_the_rest(tmp_path: Path, kind: str) -> None:
    runs = [spec(0), spec(1), spec(2)]
    student = spec(9, upstream={"teacher": runs[1].key})
    make(tmp_path, *runs, student)
    path = tmp_path / "runs" / runs[1].key / "spec.json"
    path.write_bytes(DAMAGES[kind](path.read_text()).encode("utf-8", "surrogateescape"))
    states = sweep_states(tmp_path, [one.key for one in (*runs, student)])
    assert list(states.by_key.values()) == ["pending", "unreadable", "pending", "blocked"]
    code, lines = status(stored(tmp_path, *runs, student))
    assert code == 1 and len(lines) == 3
    (line,) = [line for line in lines if line.startswith("unreadable")]
    assert runs[1].key in line and "spec.json" in line and "Traceback" not in line
    assert retry(tmp_path) == []


def test_launching_with_a_damaged_spec_is_a_sentence(tmp_path: Path) -> None:
    runs = [spec(0), spec(1)]
    make(tmp_path, *runs)
    path = tmp_path / "runs" / runs[1].key / "spec.json"
    for kind in DAMAGES:
        good = path.read_bytes()
        path.write_bytes(DAMAGES[kind](good.decode()).encode("utf-8", "surrogateescape"))
        executor = LocalExecutor(Placement("cpu", 1), [])
        with pytest.raises(UserError) as found:
            launch(tmp_path, [run.key for run in runs], executor)
        text = str(found.value)
        assert "spec.json" in text and len(text.splitlines()) == 1, kind
        path.write_bytes(good)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"message": 3}',
        '{"message": "x", "attempt": -5}',
        '{"message": "x", "attempt": true}',
        '{"message": "x", "attempt": 1e999}',
        '{"message": "x", "key": "0123456789abcdef"}',
        "[" * 100_000,
        "",
    ],
)
def test_a_damaged_failure_is_named_and_can_be_retried(tmp_path: Path, content: str) -> None:
    one = spec(0)
    make(tmp_path, one)
    home = tmp_path / "runs" / one.key
    (home / "failure.json").write_text(content)
    code, lines = status(stored(tmp_path, one))
    assert code == 1 and lines[1].startswith("failed") and "failure.json" in lines[1]
    assert retry(tmp_path) == [one.key]
    assert (home / "attempts" / "1" / "failure.json").read_text() == content


@pytest.mark.parametrize(
    "line",
    [
        {"step": "ten"},
        {"step": True},
        {"step": -1},
        {"step": 1e999},
        {"step": 3, "seconds": "x"},
        {"step": 10**400},
        {"step": 3, "steps": None},
        {"step": 3, "images_per_second": float("nan")},
        [],
        None,
        3,
    ],
)
def test_lines_of_a_log_that_are_none_are_passed_over(tmp_path: Path, line: object) -> None:
    one = spec(0)
    make(tmp_path, one)
    home = tmp_path / "runs" / one.key
    (home / "attempts" / "1").mkdir(parents=True)
    (home / "lease.json").write_text("")
    good = json.dumps({"step": 2, "steps": 4, "seconds": 1.0, "images_per_second": 10.0})
    (home / "attempts" / "1" / "log.jsonl").write_text(f"{good}\n{json.dumps(line)}\n")
    code, lines = status(stored(tmp_path, one))
    assert code == 0 and "step 2 of 4, 10 images/s, 1.0 s left" in lines[1]


def file(path: Path) -> None:
    path.write_text("not a folder")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


OBSTACLES = {
    "attempts is a file": ("attempts", file),
    "attempts is a link in a circle": ("attempts", loop),
    "the lease is a folder": ("lease.json", Path.mkdir),
    "the lease is a link in a circle": ("lease.json", loop),
    "the checkpoint is a folder": ("checkpoint.pt", Path.mkdir),
    "the log is a folder": ("log.jsonl", Path.mkdir),
    "the output is a folder": ("output.txt", Path.mkdir),
    "a temporary file is a folder": (".checkpoint.pt.x.tmp", Path.mkdir),
    "the lease is text": ("lease.json", lambda path: path.write_bytes(b"\xff\x00" * 100)),
}


def test_what_stands_in_the_way_of_runs_stops_no_other(tmp_path: Path) -> None:
    """Every obstacle lies in the folder of a run of its own, and one launcher meets them all."""
    obstructed = [spec(trial) for trial in range(len(OBSTACLES))]
    others = [spec(100 + trial) for trial in range(2)]
    make(tmp_path, others[0], *obstructed, others[1])
    for one, (name, put) in zip(obstructed, OBSTACLES.values(), strict=True):
        put(tmp_path / "runs" / one.key / name)
    launcher = Launcher(tmp_path, workers=1, lease=1.0)
    code = launcher.wait(60)
    errors = launcher.errors.read_text()
    assert "Traceback" not in errors and code in (0, 1), errors
    summary = launcher.summary()
    assert {one.key for one in others} <= set(summary["done"])
    for reason in summary["failed"].values():
        assert reason and "\n" not in reason
