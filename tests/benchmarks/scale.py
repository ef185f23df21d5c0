"""Workers of one sweep folder as their number grows: runs per second, and what the folder bears.

``python tests/benchmarks/scale.py [--runs N] [--workers K …] [--count]`` starts K processes of
``sweep work`` on a new folder of N runs that an instant engine finishes at once, so that only the
overhead is left. It prints a row of a Markdown table per K and ends with 1 where a run was
committed more than once or not at all, a lease was left, or more than 60 metadata operations were
needed per run. ``--count`` counts these operations with strace, which makes the workers slower.
``--in-process`` runs each run in its worker instead of a process of its own. ``--watch`` asks for
the status and collects results meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.core.layout import SweepFolder  # noqa: E402
from benchmark.launch.executor import Executor  # noqa: E402
from benchmark.launch.executors.local import LocalExecutor  # noqa: E402
from benchmark.launch.job import Job, JobResult  # noqa: E402
from benchmark.launch.slots import Placement  # noqa: E402
from benchmark.launch.worker import work as run_job  # noqa: E402
from tests.support.fake_sweep import ERM, FakeSweep  # noqa: E402
from tests.support.instant_engine import CRITERIA, WORLD  # noqa: E402

MOST_OPERATIONS = 60.0
#: The system calls that name or describe a file; a listing is one to open the folder, one to
#: describe it, and two to read it.
CALLS = (
    "open,openat,creat,stat,lstat,fstat,newfstatat,statx,access,faccessat,faccessat2,readlink,"
    "readlinkat,link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,chmod,"
    "fchmodat,utime,utimensat,getdents64,fsync"
)
_CALL = re.compile(r"^\d+ +(\w+)\(")
TRIALS = 50


def build(root: Path, runs: int) -> SweepFolder:
    """Plan ``runs`` runs without running any."""
    sweep = FakeSweep(root, "scale", criteria=CRITERIA, predictions=False)
    trials = min(TRIALS, runs)
    for draw in range(-(-runs // trials)):
        left = min(trials, runs - draw * trials)
        sweep.add(WORLD, ERM, trials=range(left), draws=(draw,), state="pending")
    return SweepFolder(sweep.finish())


class InProcess(Executor):
    """Runs jobs in the process of the launcher, so that no time goes into starting processes."""

    name = "in-process"

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        self.slots = placement.local_slots()

    def submit(self, job: Job) -> Future[JobResult]:
        future: Future[JobResult] = Future()
        future.set_result(run_job(job))
        return future

    def signal(self, number: int) -> None:
        """Do nothing: a job has ended when ``submit`` returns."""

    def close(self) -> None:
        """Do nothing."""


def work(folder: str, *, in_process: bool) -> int:
    """One worker: ``sweep work`` with the instant engine; prints the runs that it has done.

    Args:
        folder: the sweep folder.
        in_process: False to start a process per run, as real workers do.
    """
    from benchmark.launch.launcher import launch
    from benchmark.launch.run_queue import planned_nodes
    from benchmark.launch.scheduler import WorkerShift
    from benchmark.plan.sweep_folder import read_stored

    stored = read_stored(Path(folder))
    started = 0

    def on_event(event: object) -> None:
        nonlocal started
        started += event.kind == "start"  # type: ignore[attr-defined]

    placement = Placement("cpu", 1)
    preload = ("tests.support.instant_engine",)
    summary = launch(
        Path(folder),
        list(stored.runs),
        InProcess(placement) if in_process else LocalExecutor(placement, preload),
        engine="tests.support.instant_engine",
        on_event=on_event,
        shift=WorkerShift(),
        nodes=planned_nodes(Path(folder), stored.runs),
    )
    print(json.dumps({"done": summary.done, "started": started}))
    return 0


@dataclass
class Result:
    """What K workers did.

    Attributes:
        workers: number of workers.
        runs: number of runs.
        seconds: wall time, from the start of the first worker to the end of the last.
        cpu: CPU seconds of all processes.
        starts: number of processes started for runs.
        problems: what must not happen, one sentence each.
        calls: number of system calls on the folder, by name; empty if they were not counted.
    """

    workers: int
    runs: int
    seconds: float = 0.0
    cpu: float = 0.0
    starts: int = 0
    problems: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> float:
        """Metadata operations on the folder per committed run."""
        return self.calls.total() / self.runs

    def row(self) -> str:
        counted = f"{self.operations:.1f}" if self.calls else "–"
        return (
            f"| {self.workers} | {self.runs:,} | {self.runs / self.seconds:.1f} | "
            f"{1000 * self.cpu / self.runs:.0f} | {self.starts / self.runs:.3f} | {counted} |"
        )


def measure(
    folder: SweepFolder,
    workers: int,
    runs: int,
    *,
    count: bool,
    in_process: bool,
    watched: bool,
) -> Result:
    """Let workers finish a folder, and check what they leave."""
    result = Result(workers, runs)
    arguments = f"{str(folder.path)!r}, in_process={in_process}"
    code = f"from tests.benchmarks.scale import work; work({arguments})"
    command = [sys.executable, "-c", code]
    trace = folder.path.parent / "trace"
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    processes = []
    for number in range(workers):
        traced = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-e", f"trace={CALLS}"]
        traced += ["-e", "signal=none", "-o", f"{trace}.{number}"]
        whole = [*traced, *command] if count else command
        processes.append(subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    if watched:
        watch(folder, processes, result)
    outputs = [process.communicate()[0] for process in processes]
    result.seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    done: Counter[str] = Counter()
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            result.problems.append(f"a worker ended with exit code {process.returncode}")
            continue
        report = json.loads(output.splitlines()[-1])
        done.update(report["done"])
        result.starts += report["started"]
    _check(folder, done, result)
    if count:
        for number in range(workers):
            result.calls += count_calls(Path(f"{trace}.{number}"), str(folder.path))
    return result


def watch(folder: SweepFolder, processes: list[subprocess.Popen[str]], result: Result) -> None:
    """Ask for the status and collect results until the workers have ended."""
    output = folder.path.parent / "report"
    commands = (
        ["benchmark.sweep", "status", str(folder.path), "--once"],
        ["benchmark.collect_results", str(folder.path), "--out", str(output), "--tables-only"],
    )
    done = 0
    while any(process.poll() is None for process in processes):
        for command in commands:
            started = time.perf_counter()
            asked = subprocess.run(
                [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
            )
            seconds = time.perf_counter() - started
            print(f"  {command[0]}: exit code {asked.returncode}, {seconds:.1f} s", file=sys.stderr)
            if asked.returncode:
                result.problems.append(f"{command[0]} failed: {asked.stderr[-300:]}")
            if match := re.search(r"(\d+) done", asked.stdout):
                print(f"  {match[0]}", file=sys.stderr)
                if int(match[1]) < done:
                    result.problems.append(f"{match[0]} after {done}")
                done = int(match[1])


def count_calls(trace: Path, folder: str) -> Counter[str]:
    """Count the system calls of a trace that concern a folder."""
    calls: Counter[str] = Counter()
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match and folder in line:
                calls[match[1]] += 1
    return calls


def _check(folder: SweepFolder, done: Counter[str], result: Result) -> None:
    keys = set(folder.run_names())
    if set(done) != keys or done.total() != len(keys):
        result.problems.append(
            f"{len(keys - set(done))} runs not committed by a worker, "
            f"{done.total() - len(done)} committed twice"
        )
    attempts = 0
    for key in keys:
        run = folder.run(key)
        attempts += len(run.attempt_numbers())
        if not run.record.exists():
            result.problems.append(f"{key} has no record")
        if left := [name for name in run.names() if "lease" in name or name.endswith(".tmp")]:
            result.problems.append(f"{key} holds {left}")
    if attempts != len(keys):
        result.problems.append(f"{attempts} executions of {len(keys)} runs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--in-process", action="store_true")
    parser.add_argument("--watch", action="store_true")
    given = parser.parse_args()
    if given.count and shutil.which("strace") is None:
        parser.error("--count needs strace")
    print("| workers | runs | runs/s | CPU ms per run | starts per run | operations per run |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    failed = False
    for workers in given.workers:
        with tempfile.TemporaryDirectory() as root:
            result = measure(
                build(Path(root), given.runs),
                workers,
                given.runs,
                count=given.count,
                in_process=given.in_process,
                watched=given.watch,
            )
        print(result.row(), flush=True)
        for name, number in result.calls.most_common():
            print(f"  {name}: {number / result.runs:.2f}", file=sys.stderr)
        for problem in result.problems[:10]:
            print(f"PROBLEM: {problem}", file=sys.stderr)
        failed |= bool(result.problems) or result.operations > MOST_OPERATIONS
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
