"""Workers on file systems and machines as clusters have them: every run is still done once."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmark.core.layout import SweepFolder
from benchmark.core.spec import RunSpec
from benchmark.launch.done_list import DoneList
from tests.support.launcher_process import (
    Launcher,
    expected_value,
    leases,
    make,
    record,
    run,
    spec,
)

#: Starts a process in a process namespace of its own: to all others it is on another machine, and
#: when it dies, everything in it dies.
MACHINE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")


def node(folder: Path, environment: Mapping[str, str]) -> Launcher:
    patches = ["tests.support.strange_node"]
    return Launcher(folder, 1, 5.0, environment=environment, shift={}, patches=patches)


def check(folder: Path, specs: list[RunSpec], nodes: list[Launcher]) -> None:
    """Every run was executed once, is right, and left no lease; no worker waits forever."""
    for worker in nodes:
        assert worker.wait(120) == 0, worker.errors.read_text()
    done = [key for worker in nodes for key in worker.summary()["done"]]
    assert sorted(done) == sorted(one.key for one in specs)
    for one in specs:
        start = expected_value(specs[0]) if one.upstream else 0
        assert record(folder, one.key)["value"] == expected_value(one, start)
        assert os.listdir(folder / "runs" / one.key / "attempts") == ["1"]
    assert leases(folder) == []


def sweep(folder: Path, runs: int) -> list[RunSpec]:
    teacher = spec(0, steps=2)
    students = [spec(trial, steps=2, upstream={"teacher": teacher.key}) for trial in range(1, 3)]
    specs = [teacher, *students, *(spec(trial, steps=2) for trial in range(3, runs))]
    make(folder, *specs)
    return specs


def test_with_late_listings_wrong_clocks_and_no_links_every_run_is_done_once(
    tmp_path: Path,
) -> None:
    specs = sweep(tmp_path, 12)
    common = {"NODE_DELAY": "1.5", "NODE_LINKS": "no"}
    clocks = ("-1000", "0", "1000")
    check(tmp_path, specs, [node(tmp_path, {**common, "NODE_CLOCK": clock}) for clock in clocks])


@pytest.mark.slow
@pytest.mark.parametrize(
    "environments",
    [
        [{"NODE_DELAY": "4"}] * 4,
        [{"NODE_LINKS": "no"}] * 4,
        [{"NODE_CLOCK": clock} for clock in ("-100000", "-1000", "1000", "100000")],
    ],
    ids=["delay", "links", "clocks"],
)
def test_each_of_these_faults_alone(tmp_path: Path, environments: list[dict[str, str]]) -> None:
    specs = sweep(tmp_path, 30)
    nodes = [node(tmp_path, environment) for environment in environments]
    check(tmp_path, specs, nodes)
    starts = sum(len(worker.events("start")) for worker in nodes)
    assert starts <= 45, "most processes are started for runs that no worker has begun"


def test_the_list_of_done_runs_is_a_hint(tmp_path: Path) -> None:
    specs = sweep(tmp_path, 4)
    keys = [one.key for one in specs]
    assert run(tmp_path, workers=1, shift={}).wait() == 0
    listed = SweepFolder(tmp_path).done
    assert sorted(listed.read_text().split()) == sorted(keys)
    # A record that was deleted by hand is missed by a worker that finds nothing else to do.
    (tmp_path / "runs" / keys[3] / "record.json").unlink()
    again = run(tmp_path, workers=1, shift={})
    assert again.wait() == 0 and again.summary()["done"] == [keys[3]]
    # Whatever stands in the list, a launch replaces it by what it has seen.
    listed.write_bytes(b"\xff\n" + keys[0][:7].encode() + b"\n" + b"0" * 16 + b"\n" + b"unfinished")
    assert DoneList(tmp_path, keys).read_new() == []
    assert run(tmp_path, workers=1).wait() == 0
    assert listed.read_text().split() == keys
    reader = DoneList(tmp_path, keys)
    assert reader.read_new() == sorted(keys)


def test_interrupted_runs_are_finished_before_others_are_begun(tmp_path: Path) -> None:
    one, *others = [spec(trial) for trial in range(20)]
    make(tmp_path, one, *others)
    DoneList(tmp_path, ()).add_begun(one.key)
    worker = run(tmp_path, workers=1, shift={})
    assert worker.events("start")[0]["key"] == one.key and len(worker.summary()["done"]) == 20
    reader = DoneList(tmp_path, [one.key])
    assert reader.read_new() == [one.key] and reader.take_begun() == []


def can_make_machines() -> bool:
    if shutil.which(MACHINE[0]) is None:
        return False
    return subprocess.run([*MACHINE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.very_slow
@pytest.mark.skipif(not can_make_machines(), reason="may not create process namespaces")
def test_a_machine_dies_at_random_twenty_times(tmp_path: Path) -> None:
    """All processes of one of two machines, each with two workers of two runs at a time."""
    chance = random.Random(int(os.environ.get("KILL_SEED", "3")))
    teacher = spec(0, steps=20, sleep=0.05)
    specs = [teacher] + [
        spec(trial, steps=20, sleep=0.05, upstream={"t": teacher.key} if trial % 4 == 0 else None)
        for trial in range(1, 60)
    ]
    keys = make(tmp_path, *specs)

    def start() -> Launcher:
        return Launcher(tmp_path, workers=2, lease=3.0, prefix=MACHINE, shift={})

    machines = [start() for _ in range(3)]
    kills = 0
    while kills < 20:
        time.sleep(chance.uniform(0.5, 3.0))
        which = chance.randrange(len(machines))
        if machines[which].process.poll() is None:
            machines[which].process.kill()
            kills += 1
        machines[which].process.wait()
        machines[which] = start()
    for machine in machines:
        assert machine.wait(300) == 0, machine.errors.read_text()
    assert leases(tmp_path) == []
    taught = expected_value(teacher)
    for one in specs:
        assert record(tmp_path, one.key)["value"] == expected_value(
            one, taught if one.upstream else 0
        )
        lines = (tmp_path / "runs" / one.key / "log.jsonl").read_text().splitlines()
        assert len(lines) == 20
    last = run(tmp_path, shift={})
    assert last.summary()["done"] == [] and len(keys) == len(set(keys))
