"""A process that never begins its job is replaced, and the job ends as that of a dead process."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.layout import SweepFolder
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.job import Job, JobResult, ProcessDied
from benchmark.launch.slots import Placement, Slot
from tests.support.launcher_process import make, spec

#: Runs one job, suspends all idle processes, and gives them another one. The pool forks no process
#: while it has enough, so that no process begins the job.
SCRIPT = """
import json, multiprocessing, os, signal, sys, time
from pathlib import Path
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.job import Job, ProcessDied
from benchmark.launch.slots import Placement

def job(folder):
    engine = "tests.support.fake_engine"
    return Job(Path(folder), False, executor.slots[0], None, 60.0, 60.0, engine)

def idle():
    return [p.pid for p in multiprocessing.active_children() if p.name == "pebble_pool_worker"]

executor = LocalExecutor(Placement("cpu", 1), ["tests.support.fake_preload"], begin_seconds=1.0)
executor.start()
first, second = sys.argv[1:]
found = {"first": executor.submit(job(first)).result(60).outcome}
executor.replace_stuck()
end = time.monotonic() + 60
known, since = set(), time.monotonic()
while (len(known) != 2 or time.monotonic() < since + 2) and time.monotonic() < end:
    time.sleep(0.05)
    if set(idle()) != known:  # the process of the first job ends, and another one is forked
        known, since = set(idle()), time.monotonic()
for pid in known:
    os.kill(pid, signal.SIGSTOP)
waiting = executor.submit(job(second))
while not waiting.done() and time.monotonic() < end:
    time.sleep(0.05)
    executor.replace_stuck()
found["lost"] = type(waiting.exception(0)).__name__
found["second"] = executor.submit(job(second)).result(60).outcome
executor.close()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_job_that_no_process_begins(tmp_path: Path) -> None:
    runs = [spec(trial, steps=2) for trial in range(2)]
    make(tmp_path, *runs)
    folders = [str(SweepFolder(tmp_path).run(run.key).path) for run in runs]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *folders], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"first": "done", "lost": "ProcessDied", "second": "done"}


class PoolThatStartsNothing:
    """A pool whose processes begin no job.

    Args:
        active: False if it breaks while a job is given to it and knows nothing of it afterwards.
    """

    def __init__(self, active: bool) -> None:
        self.active = active
        self.given: list[Future[JobResult]] = []
        self.stopped = False

    def schedule(self, function: Any, args: Any) -> Future[JobResult]:
        self.given.append(Future())
        return self.given[-1]

    def stop(self) -> None:
        self.stopped = True

    def join(self) -> None:
        assert self.stopped


class ExecutorOfSuchPools(LocalExecutor):
    """Gives every slot a pool that begins no job."""

    pools: list[PoolThatStartsNothing]
    active: bool

    def make_pool(self, slot: Slot) -> Any:
        self.pools.append(PoolThatStartsNothing(self.active))
        return self.pools[-1]


@pytest.mark.parametrize(("active", "begin_seconds"), [(False, 60.0), (True, 0.0)])
def test_a_job_whose_pool_breaks_or_does_not_begin_it_in_time_is_not_waited_for(
    active: bool, begin_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.launch.executors.local.start_fork_server", lambda preload: None)
    executor = ExecutorOfSuchPools(Placement("cpu", 1), begin_seconds=begin_seconds)
    executor.pools, executor.active = [], active
    executor.start()
    job = Job(tmp_path, False, executor.slots[0], None, 60.0, 60.0, "tests.support.fake_engine")
    waiting = executor.submit(job)
    assert not waiting.done()
    executor.replace_stuck()
    assert isinstance(waiting.exception(0), ProcessDied)
    replaced, fresh = executor.pools
    assert replaced.stopped and not fresh.stopped
    executor.replace_stuck()
    assert len(executor.pools) == 2
