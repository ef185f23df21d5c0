"""The launcher for Slurm: one job array of identical workers.

Each worker is ``python -m benchmark.sweep work FOLDER``, which claims runs in the folder until none
is left. The scheduler of Slurm therefore knows nothing about runs, and a worker that is preempted,
requeued or lost costs at most the work since the last checkpoint.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DamagedError, UserError, shown
from benchmark.core.files import read_json, write_json
from benchmark.core.hparam import HParam
from benchmark.core.layout import SweepFolder
from benchmark.core.registry import LAUNCHERS
from benchmark.launch.events import INTERRUPTED, TIME_IS_UP
from benchmark.launch.executor import Executor
from benchmark.launch.slots import MAX_WORKERS, Placement

_SECONDS_OF = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
_TIME = re.compile(
    r"(?:(?P<days>\d{1,3})-)?(?P<hours>\d{1,3}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)"
)


@dataclass(frozen=True)
class WorkerJob:
    """What Slurm says about a worker.

    Attributes:
        job: Id of the job, such as ``123_4``.
        state: State, such as ``RUNNING`` or ``PENDING``.
        reason: Why it waits, such as ``Priority``; the nodes of a running job.
    """

    job: str
    state: str
    reason: str


def _text(doc: str) -> HParam:
    return HParam("", doc=doc)


@LAUNCHERS.register
class SlurmExecutor(Executor):
    """Submits workers to Slurm and returns.

    Args:
        placement: ``workers`` is the number of workers, ``per_gpu`` the number of runs at a time on
            each GPU.
        options: see ``options``.
    """

    name = "slurm"
    title = "a Slurm cluster: one job array of workers"
    detached = True
    options = {
        "gpus": HParam(0, doc="GPUs of each worker", low=0, high=64),
        "cpus": HParam(1, doc="CPU cores of each worker", low=1, high=1024),
        "runs": HParam(
            0, doc="runs at a time in each worker; 0: one, or per GPU", low=0, high=MAX_WORKERS
        ),
        "time": HParam("01:00:00", doc="time limit of a job, [DAYS-]HH:MM:SS"),
        "grace": HParam(
            300, doc="seconds before the limit at which runs are saved", low=30, high=86400
        ),
        "memory": HParam("4G", doc="memory of each worker; empty: the default of the cluster"),
        "partition": _text("partition"),
        "account": _text("account"),
        "qos": _text("quality of service"),
        "constraint": _text("features of nodes"),
        "exclude": _text("nodes to avoid, separated by +"),
        "at_once": HParam(
            0, doc="largest number of jobs that run at a time; 0: no limit", low=0, high=100_000
        ),
        "setup": _text("shell command before the worker, such as module load python"),
        "extra": _text("further options of sbatch, separated by spaces"),
    }

    def __init__(self, placement: Placement, **options: object) -> None:
        super().__init__(placement)
        self.chosen = {name: option.default for name, option in self.options.items()} | options
        seconds = self._seconds()
        if seconds <= self.chosen["grace"]:
            raise UserError(
                f"launcher slurm: the time limit {self.chosen['time']} is shorter than the grace "
                f"of {self.chosen['grace']} seconds; choose a longer time."
            )
        for name, value in self.chosen.items():
            if isinstance(value, str) and re.search(r"[\n\r\0]", value):
                raise UserError(f"launcher slurm: {name} is {shown(value)}, expected one line.")

    @classmethod
    def check_available(cls) -> None:
        if shutil.which("sbatch") is None:
            raise UserError(
                "launcher slurm needs the command sbatch, which this machine does not have; call "
                "the launch on a login node."
            )

    def start(self) -> None:
        """Submit as many workers as the sweep needs, beside those that exist already."""
        assert self.workload is not None
        folder = self.workload.folder
        logs = worker_folder(folder)
        logs.mkdir(parents=True, exist_ok=True)
        existing = len(find_workers(folder))
        count = min(self.workers, self.workload.left) - existing
        if count <= 0:
            self.note = f"{existing} workers are in the queue already; none was submitted."
            return
        script = logs / "worker.sh"
        script.write_text(self.script(count), encoding="utf-8")
        done = _run(["sbatch", "--parsable", str(script)])
        job = done.strip().partition(";")[0]
        write_json(logs / "jobs.json", [*_submitted(folder), job])
        self.note = f"{count} workers submitted as job {job}"

    def preview(self) -> str:
        assert self.workload is not None
        return self.script(min(self.workers, self.workload.left))

    @property
    def workers(self) -> int:
        """The number of workers that the user wants."""
        return self.placement.workers or 1

    def script(self, count: int) -> str:
        """Return the batch script of an array of workers.

        Args:
            count: number of workers.
        """
        assert self.workload is not None
        chosen = self.chosen
        folder = self.workload.folder.absolute()
        at_once = f"%{chosen['at_once']}" if chosen["at_once"] else ""
        settings = {
            "job-name": f"sweep-{folder.name}",
            "array": f"0-{count - 1}{at_once}",
            "ntasks": "1",
            "cpus-per-task": str(chosen["cpus"]),
            "gres": f"gpu:{chosen['gpus']}" if chosen["gpus"] else "",
            "mem": chosen["memory"],
            "time": chosen["time"],
            "signal": f"B:USR1@{chosen['grace']}",
            "open-mode": "append",
            "output": f"{worker_folder(folder)}/%A_%a.out",
            "partition": chosen["partition"],
            "account": chosen["account"],
            "qos": chosen["qos"],
            "constraint": chosen["constraint"],
            "exclude": str(chosen["exclude"]).replace("+", ","),
        }
        lines = [f"#SBATCH --{name}={value}" for name, value in settings.items() if value != ""]
        lines += [f"#SBATCH {option}" for option in shlex.split(str(chosen["extra"]))]
        command = shlex.join(self._command())
        return "\n".join(
            [
                "#!/bin/bash",
                *lines,
                "#SBATCH --requeue",
                *([str(chosen["setup"])] if chosen["setup"] else []),
                # The shell passes signals on, and waits until the runs are saved. Slurm announces
                # the time limit by USR1, up to a minute early: the worker then goes on in another
                # job. TERM means that it was cancelled.
                f"{command} &",
                "worker=$!",
                "limit=",
                "trap 'kill -TERM $worker' TERM",
                "trap 'limit=1; kill -TERM $worker' USR1",
                "wait $worker; code=$?",
                "while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done",
                f'if [ $code = {TIME_IS_UP} ] || [ "$limit$code" = 1{INTERRUPTED} ]; then',
                '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
                "fi",
                "exit $code",
                "",
            ]
        )

    def _command(self) -> list[str]:
        assert self.workload is not None
        limit = self._seconds() - int(str(self.chosen["grace"]))
        runs = int(str(self.chosen["runs"]))
        command = [sys.executable, "-m", "benchmark.sweep", "work"]
        command += [str(self.workload.folder.absolute()), "--time", str(limit)]
        command += ["--device", "cuda" if self.chosen["gpus"] else "cpu"]
        if runs or not self.chosen["gpus"]:
            command += ["--workers", str(runs or 1)]
        command += ["--per-gpu", str(self.placement.per_gpu)]
        return [*command, *self.workload.arguments]

    def _seconds(self) -> int:
        match = _TIME.fullmatch(str(self.chosen["time"]))
        if match is None:
            raise UserError(
                f"launcher slurm: time is {shown(self.chosen['time'])}, expected "
                "[DAYS-]HH:MM:SS such as 12:00:00."
            )
        return sum(int(match[name] or 0) * each for name, each in _SECONDS_OF.items())

    def signal(self, number: int) -> None:
        """Do nothing: workers end by ``sweep cancel``."""

    def close(self) -> None:
        """Do nothing: the workers go on."""


def worker_folder(folder: Path) -> Path:
    """Return the folder of the logs and job numbers of a sweep's workers."""
    return SweepFolder(folder).workers.absolute()


def find_workers(folder: Path) -> list[WorkerJob]:
    """Return the workers of a sweep that Slurm still knows; empty where it does not answer."""
    jobs = _submitted(folder)
    if not jobs or shutil.which("squeue") is None:
        return []
    try:
        listed = _run(["squeue", "-h", "-r", "-j", ",".join(jobs), "-o", "%i|%T|%R"])
    except UserError:  # all jobs are too old, or the controller does not answer
        return []
    found = []
    for line in listed.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        found.append(WorkerJob(job, state, reason.strip("()")))
    return found


def cancel_workers(folder: Path) -> int:
    """End the workers of a sweep; their runs are saved first.

    Returns:
        The number of workers that were asked to end.

    Raises:
        UserError: Slurm refused.
    """
    workers = find_workers(folder)
    if workers:
        # Only the shell: it passes the signal on, and a second one would kill the runs.
        _run(["scancel", "--signal=TERM", "--batch", *(worker.job for worker in workers)])
        waiting = [worker.job for worker in workers if worker.state == "PENDING"]
        if waiting:
            _run(["scancel", *waiting])
    return len(workers)


def describe_workers(folder: Path) -> str:
    """Return what Slurm says about the workers of a sweep, in one line; empty without workers."""
    counts: dict[str, int] = {}
    for worker in find_workers(folder):
        state = worker.state.lower()
        if worker.state == "PENDING" and worker.reason:
            state += f" ({worker.reason})"
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _submitted(folder: Path) -> list[str]:
    path = worker_folder(folder) / "jobs.json"
    if not path.exists():
        return []
    try:
        jobs = read_json(path)
    except (OSError, DamagedError, json.JSONDecodeError):
        return []
    is_list = isinstance(jobs, list)
    return [job for job in jobs if isinstance(job, str) and job.isdecimal()] if is_list else []


def _run(command: Sequence[str]) -> str:
    """Return the output of a command of Slurm.

    Raises:
        UserError: it failed.
    """
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
        raise UserError(f"{command[0]} failed: {reason}")
    return done.stdout
