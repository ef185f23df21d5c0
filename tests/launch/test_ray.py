"""The launcher for Ray: its tasks without Ray, and a sweep on a real local Ray if it is there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.core.named_options import parse_named_options
from benchmark.launch.executor import Workload
from benchmark.launch.executors.ray import RayExecutor, _make_task
from benchmark.launch.launcher import make_executor
from benchmark.launch.slots import CORES, Placement, granted_cores
from tests.support.messages import mentions

ROOT = Path(__file__).resolve().parents[2]
#: Starts a program that sees no network but a loopback of its own: Ray listens on all addresses.
ALONE = ("unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
LOOPBACK = 'ip link set lo up && exec "$@"'


def test_without_ray_the_launcher_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(UserError, match=r"pip install 'shortcutbed\[ray\]'"):
        make_executor(Placement("cpu"), parse_named_options("ray"))


def test_a_task_is_the_worker(tmp_path: Path) -> None:
    made = RayExecutor(Placement("cpu", 4, per_gpu=2), gpus=1, cpus=8)
    made.workload = Workload(tmp_path / "out", 3, ("--data-dir", "/data"))
    preview = made.preview()
    assert mentions(preview, "3 tasks", "8 CPUs", "1 GPUs")
    assert f"-m benchmark.sweep work {tmp_path}/out --device cuda --per-gpu 2" in preview
    assert preview.endswith("--data-dir /data")
    assert not made.is_active()


def test_a_worker_that_is_killed_is_an_error_for_ray(tmp_path: Path) -> None:
    run_worker, log = _make_task(), tmp_path / "log"
    say = "import os; print(os.environ['SHORTCUTBED_CORES'])"
    for _ in range(2):
        assert run_worker(["-c", say], {CORES: "3"}, str(log)) == 0
    assert log.read_text() == "3\n3\n"
    assert run_worker(["-c", "raise SystemExit(1)"], {}, str(log)) == 1  # a run has failed
    with pytest.raises(RuntimeError, match="killed"):
        run_worker(["-c", "import os; os.kill(os.getpid(), 9)"], {}, str(log))


def test_the_cores_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    monkeypatch.setenv(CORES, "2")
    assert granted_cores() == 2
    monkeypatch.setenv(CORES, "")
    assert granted_cores() == 7


def can_be_alone() -> bool:
    if shutil.which(ALONE[0]) is None or shutil.which("ip") is None:
        return False
    command = [*ALONE, "sh", "-c", LOOPBACK, "sh", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def results(folder: Path) -> dict[str, dict[str, bytes]]:
    found = {}
    for path in folder.glob("runs/*/predictions.npz"):
        with np.load(path) as arrays:
            found[path.parent.name] = {name: arrays[name].tobytes() for name in arrays.files}
    return found


def workers(folder: Path) -> list[int]:
    """The processes of ``sweep work FOLDER``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"work" in words and os.fsencode(folder) in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.very_slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
@pytest.mark.skipif(not can_be_alone(), reason="may not create a network of its own")
def test_a_sweep_on_a_real_ray_whose_worker_is_killed(tmp_path: Path) -> None:
    sweep = tmp_path / "s.toml"
    sweep.write_text(
        'datasets = ["tiny:size=64"]\nalgorithms = ["erm"]\nbackbone = "convnet:width=2"\n'
        "trials = 6\n[budget]\nsteps = 300\nevaluate_every = 50\n"
    )
    launch = [sys.executable, "-m", "benchmark.sweep", "launch", str(sweep), "--workers", "2"]
    launch += ["--checkpoint-seconds", "1", "--output"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([*launch, "undisturbed"], cwd=tmp_path, env=environment, check=True)
    # The folders of Ray's sockets need short paths.
    environment |= {"HOME": str(tmp_path), "RAY_DISABLE_IMPORT_WARNING": "1"}
    on_ray = [*launch, "out", "--launcher", "ray:address=local"]
    with subprocess.Popen(
        [*ALONE, "sh", "-c", LOOPBACK, "sh", *on_ray],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 300
        while not list(tmp_path.glob("out/runs/*/lease.json")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
        os.kill(workers(tmp_path / "out")[0], signal.SIGKILL)
        output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    assert results(tmp_path / "out") == results(tmp_path / "undisturbed")
    assert len(results(tmp_path / "out")) == 6
    assert not list(tmp_path.glob("out/runs/*/lease.json*"))
    assert workers(tmp_path / "out") == []
