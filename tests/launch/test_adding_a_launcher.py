"""Other launchers than the local one: the example of docs/adding_a_launcher.md, and workers."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import LAUNCHERS
from benchmark.launch.executor import Executor
from benchmark.launch.job import Job, JobResult, ProcessDied
from benchmark.launch.launcher import launch, make_executor
from benchmark.launch.run_job import read_result
from benchmark.launch.slots import Placement, Slot
from tests.support.launcher_process import (
    ROOT,
    Launcher,
    expected_value,
    leases,
    make,
    record,
    spec,
    until,
)

PAGE = ROOT / "docs" / "adding_a_launcher.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The file of the page, imported under the name of a package of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "subprocesses.py"
    path.write_text(code, encoding="utf-8")
    found = importlib.util.spec_from_file_location("subprocesses", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with LAUNCHERS.only_within():
        found.loader.exec_module(module)
        yield module


def launch_with(executor: Executor, folder: Path, **options: Any) -> Any:
    keys = read_json(folder / "keys.json")
    return launch(folder, keys, executor, engine="tests.support.fake_engine", **options)


def test_the_example_of_the_page_runs_a_sweep(example: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    teacher = spec(7)
    student = spec(1, upstream={"teacher": teacher.key})
    killed = spec(mode="killed_once")
    failed = spec(2, mode="failure")
    make(folder, teacher, student, killed, failed)
    launcher = parse_named_options("subprocess:niceness=3")
    executor = make_executor(Placement("cpu", 2), launcher)
    assert isinstance(executor, example.SubprocessExecutor) and executor.niceness == 3
    events: list[str] = []
    summary = launch_with(executor, folder, on_event=lambda event: events.append(event.kind))
    assert set(summary.done) == {teacher.key, student.key, killed.key}
    assert set(summary.failed) == {failed.key}
    assert events.count("retry") == 1
    assert record(folder, killed.key)["attempt"] == 2
    taught = expected_value(teacher)
    assert record(folder, student.key)["value"] == expected_value(student, start=taught)
    assert leases(folder) == []


def test_the_example_supports_time_limits(example: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    one = spec(mode="hang_once")
    make(folder, one)
    executor = example.SubprocessExecutor(Placement("cpu", 1))
    reasons: list[str] = []
    launch_with(
        executor, folder, run_time_limit=3.0, on_event=lambda event: reasons.append(event.reason)
    )
    assert any("time limit" in reason for reason in reasons)
    assert record(folder, one.key)["attempt"] == 2


def test_unknown_launchers_and_options_are_reported(example: ModuleType) -> None:
    placement = Placement("cpu", 1)
    with pytest.raises(UserError, match=r"unknown launcher 'subproces'.*subprocess"):
        make_executor(placement, parse_named_options("subproces"))
    with pytest.raises(UserError, match=r"has no option 'nicenes'.*niceness"):
        make_executor(placement, parse_named_options("subprocess:nicenes=1"))
    with pytest.raises(UserError, match="niceness = 99 is out of bounds"):
        make_executor(placement, parse_named_options("subprocess:niceness=99"))


#: Seconds of the leases of workers.
LEASE = 30.0


class Workers(Executor):
    """Starts launchers elsewhere, which claim the runs themselves; it has no slots."""

    name = "workers"

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(Placement("cpu"))
        self.folder = folder
        self.count = count
        self.workers: list[Launcher] = []

    def start(self) -> None:
        self.workers = [Launcher(self.folder, 1, LEASE) for _ in range(self.count)]

    def signal(self, number: int) -> None:
        for worker in self.workers:
            worker.process.send_signal(number)

    def is_active(self) -> bool:
        return any(worker.process.poll() is None for worker in self.workers)

    def close(self) -> None:
        self.signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait()


def test_workers_may_claim_runs_themselves(tmp_path: Path) -> None:
    teacher = spec(7)
    student = spec(1, upstream={"teacher": teacher.key})
    others = [spec(trial, steps=8, sleep=0.02) for trial in (2, 3)]
    failed = spec(5, mode="failure")
    keys = make(tmp_path, teacher, student, failed, *others)
    executor = Workers(tmp_path, count=2)
    # The workers and the launch that watches them must agree on the time of leases.
    summary = launch_with(executor, tmp_path, lease_seconds=LEASE)
    assert set(summary.already) == set(keys) - {failed.key}
    assert set(summary.failed) == {failed.key}
    # A worker that was asked to end before it has seen the last run prints no summary.
    finished = [event["key"] for worker in executor.workers for event in worker.events("done")]
    assert sorted(finished) == sorted(summary.already)
    assert leases(tmp_path) == []


def test_workers_that_end_too_early_are_reported(tmp_path: Path) -> None:
    make(tmp_path, spec(1), spec(2))
    with pytest.raises(UserError, match=r"workers have ended.*2 runs"):
        launch_with(Workers(tmp_path, count=0), tmp_path)


def test_a_job_and_its_result_survive_json(tmp_path: Path) -> None:
    slot = Slot(1, "cuda", "GPU-1", (2, 3), threads=2, share=4)
    job = Job(tmp_path, True, slot, tmp_path / "data", 60.0, 120.0, "engine", ("a", "b"))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    result = read_result(0, 'noise\n{"result": {"outcome": "done", "attempt": 2}}\n')
    assert result == JobResult("done", 2)  # type: ignore[arg-type]


def test_errors_of_a_job_are_raised_where_it_was_submitted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lease time"):
        read_result(0, '{"user_error": "another lease time"}')
    with pytest.raises(OSError, match="No space") as full:
        read_result(0, '{"os_error": [28, "No space left on device", "checkpoint.pt"]}')
    assert (full.value.errno, full.value.filename) == (28, "checkpoint.pt")
    for output in ("", "not JSON", "{}", '{"result": {"outcome": "unknown"}}'):
        with pytest.raises(ProcessDied) as died:
            read_result(-9, output)
        assert died.value.exit_code == -9


def test_a_job_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    one = spec(steps=2000, sleep=0.02)
    make(tmp_path, one)
    folder = tmp_path / "runs" / one.key
    job = Job(
        folder,
        False,
        Placement("cpu", 1).local_slots()[0],
        None,
        60.0,
        30.0,
        "tests.support.fake_engine",
    )
    program = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'benchmark.launch.run_job']\n"
        "subprocess.Popen(command, stdin=subprocess.PIPE).communicate(sys.argv[1].encode())\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(job.to_json())],
        env={"PYTHONPATH": str(ROOT)},
    )
    until((folder / "attempts" / "1" / "log.jsonl").exists)
    parent.kill()
    parent.wait()
    until(lambda: not (folder / "lease.json").exists())
    assert not (folder / "record.json").exists()
