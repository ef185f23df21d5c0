"""The local launcher with real processes and signals, and an engine without torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmark.core.files import read_json, write_json
from benchmark.core.layout import State
from benchmark.core.spec import RunSpec
from benchmark.launch.retry import retry
from benchmark.launch.status import sweep_states
from tests.support.launcher_process import (
    Launcher,
    expected_value,
    leases,
    make,
    record,
    run,
    spec,
    until,
)


def failure(folder: Path, one: RunSpec) -> dict[str, object]:
    found: dict[str, object] = read_json(folder / "runs" / one.key / "failure.json")
    return found


def alive(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )  # a zombie waits for init
    except FileNotFoundError:
        return False


def test_a_sweep_from_beginning_to_end(tmp_path: Path) -> None:
    teacher = spec(7, sleep=0.02)
    student = spec(1, upstream={"teacher": teacher.key, "again": teacher.key})
    others = [spec(trial) for trial in range(3)]
    # the student is named first and its teacher not at all: it is run first all the same
    make(tmp_path, teacher)
    keys = make(tmp_path, student, *others)
    launcher = run(tmp_path, workers=2)
    assert launcher.wait() == 0, launcher.errors.read_text()
    assert launcher.errors.read_text() == ""
    assert set(launcher.summary()["done"]) == {teacher.key, *keys}
    for one in (teacher, *others):
        assert record(tmp_path, one.key)["value"] == expected_value(one)
    taught = expected_value(teacher)
    assert record(tmp_path, student.key)["value"] == expected_value(student, start=2 * taught)
    assert leases(tmp_path) == []
    output = (tmp_path / "runs" / student.key / "output.txt").read_text()
    assert output.splitlines() == [
        "well attempt 1 from step 0",
        "from a grandchild",
    ]  # C and children of ours included

    machines = [record(tmp_path, key)["machine"] for key in (teacher.key, *keys)]
    assert len({machine["pid"] for machine in machines}) == 5, "a process of its own for every run"
    assert {machine["leaked"] for machine in machines} == {1}
    assert all(machine["preloaded"] and machine["sigint_ignored"] for machine in machines)
    assert {machine["oom_score"] for machine in machines} == {500}
    assert {machine["cuda"] for machine in machines} == {""}
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    assert {machine["threads"] for machine in machines} == {str(half)}
    assert {tuple(machine["cores"]) for machine in machines} <= {
        tuple(cores[:half]),
        tuple(cores[half:] or cores),
    }

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    again = run(tmp_path)
    assert again.wait() == 0
    assert set(again.summary()["already"]) == {teacher.key, *keys}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before


def test_failures_block_what_needs_them_and_nothing_else(tmp_path: Path) -> None:
    ends = {
        mode: spec(mode=mode)
        for mode in ("failure", "exception", "user_error", "killed_always", "exit")
    }
    child = spec(1, upstream={"teacher": ends["failure"].key})
    grandchild = spec(2, upstream={"teacher": child.key})
    well = spec(3)
    keys = make(tmp_path, *ends.values(), child, grandchild, well)
    launcher = run(tmp_path)
    assert launcher.wait() == 1, launcher.errors.read_text()
    summary = launcher.summary()
    assert summary["done"] == [well.key]
    assert set(summary["failed"]) == {one.key for one in ends.values()}
    assert summary["blocked"] == {child.key: ends["failure"].key, grandchild.key: child.key}

    found = failure(tmp_path, ends["exception"])
    assert (found["kind"], found["attempt"]) == ("exception", 1)
    assert "ValueError: a bug" in str(found["message"]) and "Traceback" in str(found["traceback"])
    found = failure(tmp_path, ends["user_error"])
    assert found["kind"] == "user_error" and "traceback" not in found
    found = failure(tmp_path, ends["killed_always"])
    assert (found["kind"], found["attempt"], found["code"]) == ("signal", 4, -9)
    killed = str(found["message"])
    assert "SIGKILL" in killed and "4" in killed and "attempts/4/output.txt" in killed
    exited = str(failure(tmp_path, ends["exit"])["message"])
    assert "exit code 7" in exited and "attempts/4/output.txt" in exited
    retries = [event["key"] for event in launcher.events("retry")]
    assert sorted(retries) == sorted([ends["killed_always"].key] * 3 + [ends["exit"].key] * 3)
    assert leases(tmp_path) == []
    states = sweep_states(tmp_path, keys).by_key
    assert [states[one.key] for one in (child, grandchild, well)] == [
        State.BLOCKED,
        State.BLOCKED,
        State.DONE,
    ]

    # Failed runs stay failed until `retry`; then they and the runs they blocked are tried again.
    assert run(tmp_path).summary()["failed"].keys() == summary["failed"].keys()
    key = ends["killed_always"].key
    assert retry(tmp_path, [key, well.key]) == [key]
    again = run(tmp_path)
    assert len(again.events("retry")) == 3, "the count of attempts restarts"
    assert failure(tmp_path, ends["killed_always"])["attempt"] == 8


@pytest.mark.parametrize("mode", ["killed_once", "segfault_once"])
def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path, mode: str) -> None:
    one = spec(mode=mode, steps=8, checkpoint_every=3)
    make(tmp_path, one, spec(1, sleep=0.05))
    launcher = run(tmp_path)
    assert launcher.wait() == 0, launcher.errors.read_text()
    home = tmp_path / "runs" / one.key
    assert record(tmp_path, one.key)["attempt"] == 2
    assert record(tmp_path, one.key)["value"] == expected_value(one)
    assert (home / "output.txt").read_text().startswith(f"{mode} attempt 2 from step 3")
    assert len((home / "log.jsonl").read_text().splitlines()) == 8
    assert read_json(home / "attempts" / "1" / "ended.json")["reason"] == "signal"
    if mode == "segfault_once":
        assert "Segmentation fault" in (home / "attempts" / "1" / "output.txt").read_text()
    assert leases(tmp_path) == []


def test_out_of_memory_is_tried_once_more_alone(tmp_path: Path) -> None:
    once, always = spec(mode="memory_once"), spec(mode="memory_always")
    gpu = spec(mode="gpu_fails_once")
    others = [spec(trial, steps=10, sleep=0.03) for trial in range(6)]
    make(tmp_path, once, *others, always, gpu)
    launcher = run(tmp_path, workers=3)
    assert launcher.wait() == 1, launcher.errors.read_text()
    assert record(tmp_path, once.key)["attempt"] == 2
    assert record(tmp_path, gpu.key)["attempt"] == 2
    found = failure(tmp_path, always)
    assert (found["kind"], found["attempt"]) == ("out_of_memory", 2)
    assert "batch_size" in str(found["message"])
    for key in (once.key, always.key, gpu.key):
        running: set[str] = set()
        for event in launcher.events():
            if event["kind"] == "start":
                if event["key"] == key and event["attempt"] == 2:
                    assert running == set(), "it was to be alone"
                assert key not in running or record_attempt(launcher, key, event) == 1
                running.add(event["key"])
            else:
                running.discard(event["key"])


def record_attempt(launcher: Launcher, key: str, until_event: dict[str, object]) -> int:
    """Return the number of the attempt that was under way at an event."""
    events = launcher.events()
    starts = [
        e for e in events[: events.index(until_event)] if e["kind"] == "start" and e["key"] == key
    ]
    return len(starts)


def test_a_try_that_takes_too_long_is_killed_and_tried_again(tmp_path: Path) -> None:
    one = spec(mode="hang_once")
    make(tmp_path, one)
    launcher = run(tmp_path, run_time_limit=1.0)
    assert launcher.wait() == 0, launcher.errors.read_text()
    retries = launcher.events("retry")  # on a busy machine, later tries can take too long as well
    assert all("time limit" in event["reason"] for event in retries)
    assert record(tmp_path, one.key)["attempt"] == 1 + len(retries) >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_saves_and_says_130(tmp_path: Path, number: int) -> None:
    slow = {"sleep": 0.02, "checkpoint_every": 10**6, "saving": 1.0}
    keys = make(tmp_path, *(spec(trial, steps=400, **slow) for trial in range(3)))
    launcher = Launcher(tmp_path)
    until(lambda: len(list(tmp_path.rglob("attempts/1/log.jsonl"))) == 2)
    time.sleep(0.1)
    os.killpg(
        launcher.process.pid, number
    )  # as a terminal does: to the launcher and to everything it started
    assert launcher.wait(10) == 130
    assert "interrupted" in launcher.errors.read_text()
    assert len(launcher.events("interrupted")) == 2
    assert leases(tmp_path) == []
    assert [(tmp_path / "runs" / key / "checkpoint.pt").exists() for key in keys] == [
        True,
        True,
        False,
    ]
    assert set(sweep_states(tmp_path, keys).by_key.values()) == {State.PENDING}
    assert read_json(tmp_path / "runs" / keys[0] / "checkpoint.pt")["step"] >= 4
    assert (
        read_json(tmp_path / "runs" / keys[0] / "attempts" / "1" / "ended.json")["reason"]
        == "stopped"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_it_ignores_from_the_start_does_not_stop_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    """``nohup`` ignores SIGHUP; a shell without job control ignores SIGINT after ``&``."""
    keys = make(tmp_path, *(spec(trial, steps=20, sleep=0.02) for trial in range(3)))
    launcher = Launcher(tmp_path, ignored=[number])
    until(lambda: len(list(tmp_path.rglob("attempts/1/log.jsonl"))) == 2)
    os.killpg(launcher.process.pid, number)
    assert launcher.wait() == 0, launcher.errors.read_text()
    assert launcher.events("interrupted") == []
    assert {record(tmp_path, key)["attempt"] for key in keys} == {1}

    more = make(tmp_path, spec(3, steps=400, sleep=0.02))
    launcher = Launcher(tmp_path, ignored=[number])
    until(lambda: list((tmp_path / "runs" / more[0]).rglob("attempts/1/log.jsonl")))
    launcher.process.send_signal(signal.SIGTERM)  # which is not ignored
    assert launcher.wait(10) == 130
    assert leases(tmp_path) == []


def test_asked_twice_it_kills(tmp_path: Path) -> None:
    one = spec(mode="hang_once")
    make(tmp_path, one)
    launcher = Launcher(tmp_path)
    until(lambda: list(tmp_path.rglob("attempts/1/log.jsonl")))
    launcher.process.send_signal(signal.SIGINT)
    until(lambda: launcher.events("stopping"))
    time.sleep(0.3)
    assert launcher.process.poll() is None  # it waits for a run that does not listen
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.wait(10) == 130
    assert leases(tmp_path) == []
    again = run(tmp_path)
    assert again.wait() == 0
    assert record(tmp_path, one.key)["attempt"] == 2


def test_runs_die_with_their_launcher_and_leave_no_lease(tmp_path: Path) -> None:
    keys = make(tmp_path, *(spec(trial, steps=30, sleep=0.03) for trial in range(2)))
    launcher = Launcher(tmp_path)
    until(lambda: len(list(tmp_path.rglob("checkpoint.pt"))) == 2)
    pids = processes_in_session(launcher.process.pid)
    assert len(pids) >= 4  # the launcher, the fork server, two runs
    launcher.process.kill()
    launcher.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), 10)
    assert list(tmp_path.rglob("lease.json*")) == []  # a checkpoint can be half written
    again = run(tmp_path)
    assert again.wait() == 0
    assert leases(tmp_path) == []
    for key in keys:
        assert record(tmp_path, key)["attempt"] == 2
        assert "from step 0" not in (tmp_path / "runs" / key / "output.txt").read_text()


def processes_in_session(session: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in found.stdout.split()]


def test_two_launchers_share_the_work(tmp_path: Path) -> None:
    teacher = spec(50, steps=40, sleep=0.02)
    student = spec(51, upstream={"teacher": teacher.key})
    keys = make(
        tmp_path, teacher, student, *(spec(trial, steps=8, sleep=0.02) for trial in range(10))
    )
    both = [Launcher(tmp_path, workers=1), Launcher(tmp_path, workers=1)]
    assert [launcher.wait() for launcher in both] == [0, 0]
    done = [launcher.summary()["done"] for launcher in both]
    assert sorted(done[0] + done[1]) == sorted(keys), "every run is done by one of them"
    assert min(map(len, done)) >= 2
    assert {record(tmp_path, key)["attempt"] for key in keys} == {1}
    assert leases(tmp_path) == []


def test_a_lost_lease_ends_a_run_without_a_word(tmp_path: Path) -> None:
    one = spec(steps=60, sleep=0.03, checkpoint_every=10**6)
    make(tmp_path, one)
    home = tmp_path / "runs" / one.key
    launcher = Launcher(tmp_path, lease=0.6)
    until(lambda: (home / "attempts" / "1" / "log.jsonl").exists())
    (home / "lease.json").unlink()
    until(lambda: (home / "attempts" / "1" / "ended.json").exists(), 5)
    assert read_json(home / "attempts" / "1" / "ended.json")["reason"] == "lease lost"
    assert not (home / "checkpoint.pt").exists()
    assert launcher.wait() == 0
    assert record(tmp_path, one.key)["attempt"] == 2
    assert leases(tmp_path) == []


def test_a_full_disk_ends_the_launch_with_a_sentence_and_fails_no_run(tmp_path: Path) -> None:
    slow = spec(1, steps=400, sleep=0.02, checkpoint_every=10**6)
    keys = make(
        tmp_path,
        slow,
        spec(mode="disk_full", steps=60, sleep=0.02, checkpoint_every=10**6),
        spec(2),
    )
    launcher = run(tmp_path)
    assert launcher.wait() == 2
    output = launcher.errors.read_text()
    assert output.startswith("error: No space left on device (checkpoint.pt)")
    assert output.count("\n") == 1
    assert set(sweep_states(tmp_path, keys).by_key.values()) <= {State.PENDING, State.DONE}
    assert (tmp_path / "runs" / slow.key / "checkpoint.pt").exists(), "the other run saved itself"
    assert leases(tmp_path) == []


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    one = spec()
    make(tmp_path, one)
    (tmp_path / "runs" / one.key / "attempts").write_text("in the way")
    launcher = run(tmp_path)
    assert launcher.wait() != 0
    assert not (tmp_path / "runs" / one.key / "failure.json").exists()
    assert leases(tmp_path) == []


def test_idle_processes_and_the_fork_server_may_be_killed_too(tmp_path: Path) -> None:
    keys = make(tmp_path, *(spec(trial, steps=10, sleep=0.05) for trial in range(6)))
    launcher = Launcher(tmp_path)
    until(lambda: len(launcher.events("start")) >= 2)
    until(lambda: list(tmp_path.rglob("attempts/1/log.jsonl")))
    for pid in processes_in_session(launcher.process.pid):
        if (
            pid != launcher.process.pid
        ):  # the fork server, the resource tracker, running and idle processes
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    assert launcher.wait() == 0, launcher.errors.read_text()
    assert len(launcher.summary()["done"]) == 6
    assert {record(tmp_path, key)["value"] for key in keys} == {
        expected_value(spec(trial, steps=10, sleep=0.05)) for trial in range(6)
    }
    assert leases(tmp_path) == []


def test_a_missing_or_damaged_spec_is_a_sentence(tmp_path: Path) -> None:
    one = spec(upstream={"teacher": "0123456789abcdef"})
    make(tmp_path, one)
    launcher = run(tmp_path)
    assert launcher.wait() == 2
    assert "0123456789abcdef/spec.json is missing" in launcher.errors.read_text()
    (tmp_path / "runs" / one.key / "spec.json").write_text("{")
    assert run(tmp_path).wait() == 2
    assert "is not JSON" in (tmp_path / "errors").read_text()
    write_json(tmp_path / "runs" / one.key / "spec.json", json.loads('{"schema": 0}'))
    assert run(tmp_path).wait() == 2
    assert "schema version 0, expected 1" in (tmp_path / "errors").read_text()
