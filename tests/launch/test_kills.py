"""kill -9 at random moments: two launchers on one folder finish the sweep all the same."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from benchmark.core.layout import RunFolder, names_in
from benchmark.core.run_states import AttemptEnd
from benchmark.launch import worker
from benchmark.launch.lease import Claim, has_leftovers, remove_stale_lease
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

#: Runs per round of kills.
RUNS = 12


def working(folder: Path) -> list[int]:
    """Return the processes that work on runs, no matter which launcher started them."""
    found = []
    for lease in folder.glob("runs/*/lease.json"):
        try:
            fields = dict(line.partition("=")[::2] for line in lease.read_text().splitlines())
            found.append(int(fields["pid"]))
        except (FileNotFoundError, KeyError):  # it ended meanwhile
            pass
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_random_every_run_is_done_once_and_as_if_undisturbed(
    tmp_path: Path, rounds: int
) -> None:
    chance = random.Random(int(os.environ.get("KILL_SEED", "2")))
    teacher = spec(100, steps=12, sleep=0.02)
    specs = [teacher] + [
        spec(
            trial,
            steps=12,
            sleep=0.02,
            upstream={"teacher": teacher.key} if trial % 4 == 0 else None,
        )
        for trial in range(RUNS * rounds - 1)
    ]
    keys = make(tmp_path, *specs)
    both = [Launcher(tmp_path, workers=2), Launcher(tmp_path, workers=2)]
    kinds = (["run"] * 3 + ["launcher"] * 2 + ["both"] * 2) * rounds
    chance.shuffle(kinds)
    for kind in kinds:
        time.sleep(chance.uniform(0.0, 0.3))
        until(
            lambda: (
                working(tmp_path) or all(launcher.process.poll() is not None for launcher in both)
            )
        )
        which = chance.randrange(2)
        if kind in ("run", "both"):
            for pid in chance.sample(found := working(tmp_path), min(1, len(found))):
                kill(pid)
        if kind in ("launcher", "both"):
            both[which].process.kill()
            both[which].process.wait()
        if both[which].process.poll() is not None:
            both[which] = Launcher(tmp_path, workers=2)
    for launcher in both:
        assert launcher.wait(60) in (0, 1), launcher.errors.read_text()
    last = run(tmp_path)  # whatever happened, launching again completes
    assert last.wait() == 0, last.output.read_text()
    assert sorted(last.summary()["already"] + last.summary()["done"]) == sorted(keys)

    assert leases(tmp_path) == []
    taught = expected_value(teacher)
    for one in specs:
        assert record(tmp_path, one.key)["value"] == expected_value(
            one, start=taught if one.upstream else 0
        )
        lines = (tmp_path / "runs" / one.key / "log.jsonl").read_text().splitlines()
        assert len(lines) == 12, "the resumed log is the one that an undisturbed run writes"
        assert not (tmp_path / "runs" / one.key / "failure.json").exists()
    tries = [
        max(int(p.name) for p in (tmp_path / "runs" / key / "attempts").iterdir()) for key in keys
    ]
    assert max(tries) > 1, "no kill hit a run"


@pytest.mark.parametrize(
    "goes_on", ["meanwhile", pytest.param("afterwards", marks=pytest.mark.slow)]
)
def test_a_run_that_is_suspended_beyond_its_lease_is_done_once(
    tmp_path: Path, goes_on: str
) -> None:
    one = spec(3, steps=40, sleep=0.05)
    make(tmp_path, one)
    first = Launcher(tmp_path, workers=1, lease=2.0)
    pid = until(lambda: working(tmp_path))[0]
    until(RunFolder(tmp_path / "runs" / one.key).attempt(1).path.exists)  # it has begun its try
    os.kill(pid, signal.SIGSTOP)
    second = Launcher(tmp_path, workers=1, lease=2.0)
    until(lambda: [other for other in working(tmp_path) if other != pid], 60)
    if goes_on == "meanwhile":
        os.kill(pid, signal.SIGCONT)
        assert second.wait(60) == 0
    else:
        assert second.wait(60) == 0
        os.kill(pid, signal.SIGCONT)
    assert first.wait(60) == 0, first.errors.read_text()
    summaries = [launcher.summary() for launcher in (first, second)]
    assert [key for summary in summaries for key in summary["done"]] == [one.key]
    assert record(tmp_path, one.key)["value"] == expected_value(one)
    assert record(tmp_path, one.key)["attempt"] == 2
    assert leases(tmp_path) == []
    assert not (tmp_path / "runs" / one.key / "checkpoint.pt").exists()


def test_a_process_that_was_suspended_looks_at_its_lease_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat has had no time yet to notice that another process has the run."""
    claim = Claim(tmp_path, 30.0)
    assert claim.take()
    clock = [1000.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    stop = worker.LeasedStopRequest()
    stop.watch(claim)
    path = RunFolder(tmp_path).lease
    ours = path.read_text()
    path.write_text(ours.replace(f"pid={os.getpid()}", "pid=1"))
    assert stop.reason() is None, "a step does not ask the file system"
    clock[0] += 100.0
    assert stop.reason() == AttemptEnd.LEASE_LOST
    path.write_text(ours)
    claim.release()


def test_a_checkpoint_beside_a_record_is_removed(tmp_path: Path) -> None:
    """A suspended process wrote it when another one had already committed."""
    folder = RunFolder(tmp_path)
    (folder.attempt(1).path).mkdir(parents=True)
    folder.record.write_text('{"attempt": 1}')
    folder.output.touch()
    assert not has_leftovers(tmp_path, names_in(tmp_path))
    folder.checkpoint.touch()
    assert has_leftovers(tmp_path, names_in(tmp_path))
    assert remove_stale_lease(Claim(tmp_path))
    assert folder.names() == {"record.json", "output.txt", "attempts"}


def test_what_a_killed_planner_left_in_a_finished_run_is_removed(tmp_path: Path) -> None:
    one = spec(5, steps=2)
    make(tmp_path, one)
    assert run(tmp_path).wait() == 0
    folder = tmp_path / "runs" / one.key
    old, new = folder / ".spec.json.abcdefgh.tmp", folder / ".spec.json.ijklmnop.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert run(tmp_path).summary()["already"] == [one.key]
    assert not old.exists()
    assert new.exists(), "another planner may be writing it"
