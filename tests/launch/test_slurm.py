"""The launcher for Slurm: its script and commands with stand-ins, and a real cluster if any."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.named_options import parse_named_options
from benchmark.launch.events import INTERRUPTED, TIME_IS_UP
from benchmark.launch.executor import Workload
from benchmark.launch.executors.slurm import (
    SlurmExecutor,
    cancel_workers,
    describe_workers,
    find_workers,
)
from benchmark.launch.launcher import make_executor
from benchmark.launch.slots import Placement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the commands of Slurm that note their arguments; squeue prints a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in (
        ("sbatch", "echo 77"),
        ("squeue", f"cat {tmp_path}/queue"),
        ("scancel", ""),
    ):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $@" >> {tmp_path}/called\n{body}\n')
        path.chmod(0o755)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def executor(folder: Path, workers: int = 4, left: int = 10, **options: object) -> SlurmExecutor:
    made = SlurmExecutor(Placement("cpu", workers), **options)
    made.workload = Workload(folder, left, ("--data-dir", "/data"))
    return made


def test_the_script_asks_for_what_the_user_wants(tmp_path: Path) -> None:
    made = executor(
        tmp_path / "my sweep",
        gpus=1,
        cpus=8,
        time="2-12:00:00",
        grace=600,
        memory="32G",
        partition="gpu",
        exclude="n1+n2",
        at_once=2,
        setup="module load python",
        extra="--mail-type=FAIL --nice=5",
    )
    lines = made.script(4).splitlines()
    settings = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert settings >= {
        "--array=0-3%2",
        "--gres=gpu:1",
        "--cpus-per-task=8",
        "--mem=32G",
        "--time=2-12:00:00",
        "--signal=B:USR1@600",
        "--partition=gpu",
        "--exclude=n1,n2",
        "--requeue",
        "--mail-type=FAIL",
        "--nice=5",
    }
    assert not any(setting.startswith(("--account", "--qos")) for setting in settings)
    assert "module load python" in lines
    (command,) = [line for line in lines if "benchmark.sweep work" in line]
    assert f"--time {60 * 3600 - 600} " in command and "--device cuda" in command
    assert "'" in command and "my sweep" in command  # quoted for the shell
    assert made.preview() == made.script(4)
    assert subprocess.run(["bash", "-n"], input=made.script(4), text=True).returncode == 0


def test_workers_are_submitted_once_and_only_as_many_as_there_is_work(commands: Path) -> None:
    folder = commands / "sweep"
    executor(folder, workers=4, left=3).start()
    assert "--array=0-2" in (folder / "workers" / "worker.sh").read_text()
    assert json.loads((folder / "workers" / "jobs.json").read_text()) == ["77"]
    (commands / "queue").write_text("77_0|RUNNING|n1\n77_1|PENDING|(Priority)\n")
    again = executor(folder, workers=4, left=3)
    again.start()
    assert "--array=0-0" in (folder / "workers" / "worker.sh").read_text()
    (commands / "queue").write_text("77_0|RUNNING|n1\n77_1|RUNNING|n1\n78_0|RUNNING|n2\n")
    last = executor(folder, workers=4, left=3)
    last.start()
    assert "none" in last.note
    called = (commands / "called").read_text()
    assert called.count("sbatch") == 2


def test_what_slurm_says_about_workers(commands: Path) -> None:
    folder = commands / "sweep"
    assert find_workers(folder) == [] and describe_workers(folder) == ""
    executor(folder).start()
    (commands / "queue").write_text("77_0|RUNNING|n1\n77_1|PENDING|(Priority)\n77_2|RUNNING|n2\n")
    assert describe_workers(folder) == "2 running, 1 pending (Priority)"
    assert cancel_workers(folder) == 3
    called = (commands / "called").read_text().splitlines()
    # A signal to every process would reach a worker twice, and the second one kills its runs.
    assert "scancel --signal=TERM --batch 77_0 77_1 77_2" in called
    assert "scancel 77_1" in called
    (folder / "workers" / "jobs.json").write_text('["77; rm -rf", 3]')
    assert find_workers(folder) == []


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ("time=12h", "12h"),
        ("time=00:05:00,grace=300", "grace"),
        ("gpus=many", "gpus"),
        ("speed=9", "speed"),
    ],
)
def test_mistakes_are_refused(commands: Path, options: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        make_executor(Placement("cpu"), parse_named_options(f"slurm:{options}"))


def test_without_slurm_the_launcher_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="sbatch"):
        make_executor(Placement("cpu"), parse_named_options("slurm"))


@pytest.mark.parametrize(
    ("number", "code", "requeued"),
    [
        (signal.SIGTERM, 0, False),
        (signal.SIGTERM, 1, False),
        (signal.SIGTERM, INTERRUPTED, False),  # cancelled
        (signal.SIGTERM, TIME_IS_UP, True),
        (signal.SIGUSR1, INTERRUPTED, True),  # the time limit
        (signal.SIGUSR1, 0, False),  # nothing was left
    ],
)
def test_the_script_passes_signals_on_and_requeues(
    tmp_path: Path, number: signal.Signals, code: int, requeued: bool
) -> None:
    made = executor(tmp_path / "sweep")
    worker = tmp_path / "worker"
    worker.write_text(
        f"#!/bin/bash\ntrap 'sleep 0.2; touch {tmp_path}/saved; exit {code}' TERM\n"
        f"touch {tmp_path}/started\nwhile true; do sleep 0.05; done\n"
    )
    worker.chmod(0o755)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    made._command = lambda: [str(worker)]  # type: ignore[method-assign]
    script = tmp_path / "worker.sh"
    script.write_text(made.script(1))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_ARRAY_JOB_ID": "5",
        "SLURM_ARRAY_TASK_ID": "2",
    }
    process = subprocess.Popen(["bash", str(script)], env=environment)
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    process.send_signal(number)  # Slurm signals the batch shell only
    assert process.wait(20) == code
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 5_2\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm")
def test_a_sweep_on_a_real_cluster(tmp_path: Path) -> None:
    """Needs a cluster that answers ``sinfo`` and sees this folder."""
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("no Slurm controller answers")
    sweep = tmp_path / "s.toml"
    sweep.write_text(
        'datasets = ["tiny:size=64"]\nalgorithms = ["erm"]\nbackbone = "convnet:width=2"\n'
        "trials = 4\n[budget]\nsteps = 20\nevaluate_every = 10\n"
    )
    command = ["python", "-m", "benchmark.sweep", "launch", str(sweep), "--output", "out"]
    command += ["--workers", "2", "--launcher", "slurm:time=00:20:00,grace=60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    end = time.monotonic() + 600
    while time.monotonic() < end and find_workers(tmp_path / "out"):
        time.sleep(2)
    assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 4
    assert not list((tmp_path / "out" / "runs").glob("*/lease.json*"))


def test_a_worker_computes_with_the_cores_that_slurm_grants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmark.launch.slots.available_cores", lambda: (0, 1, 2, 3))
    for granted, workers, threads in (("2", 1, 2), ("", 1, 4), ("many", 2, 2), ("3", None, 1)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
        slots = Placement("cpu", workers).local_slots()
        assert {slot.threads for slot in slots} == {threads}
        assert len(slots) == (workers or int(granted))
