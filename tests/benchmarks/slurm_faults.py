"""What becomes of a sweep on Slurm when something fails: run by hand, on a cluster made for it.

``python tests/benchmarks/slurm_faults.py OUTPUT [FAULT …]`` launches a small sweep with two workers
for each fault, makes the fault happen while they work, and waits until the queue is empty. It then
prints a row of a Markdown table, and ends with 1 where a run was not committed, a lease was left
or a result differs from that of the same sweep on this machine without any fault.

It kills processes of Slurm. It therefore only works on a cluster whose controller and nodes
are all on this machine: its nodes need the names n1 and n2, as in ``slurmd -N n1``, and preemption
needs a partition ``high`` of a higher priority.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.core.layout import SweepFolder  # noqa: E402
from benchmark.launch.executors.slurm import find_workers  # noqa: E402

RUNS = 8
SWEEP = f"""
datasets = ["tiny:size=256"]
algorithms = ["erm"]
backbone = "convnet:width=4"
trials = {RUNS}
[budget]
steps = 400
evaluate_every = 100
"""
#: Seconds after which a sweep counts as hanging.
PATIENCE = 900.0
TIME = "time=00:20:00,grace=60,memory=2G"


def sh(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout


def launch(file: Path, output: Path, *options: str) -> None:
    command = [sys.executable, "-m", "benchmark.sweep", "launch", str(file)]
    command += ["--output", str(output), "--checkpoint-seconds", "2", *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(1)


def records(folder: SweepFolder) -> int:
    return len(list(folder.runs.glob("*/record.json")))


def working(folder: SweepFolder) -> bool:
    """Return True once two runs have a checkpoint, so that a fault hits work that was saved."""
    return len(list(folder.runs.glob("*/checkpoint.pt"))) >= 2


def processes_of(node: str) -> list[int]:
    """Return the processes of the jobs on a node, and the daemons that watch them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            name = Path(f"/proc/{parent}/comm").read_text().strip()
        except (OSError, ValueError):
            continue
        if f"SLURMD_NODENAME={node}".encode() in environment:
            found.append(int(path.name))
            if name == "slurmstepd":
                found.append(parent)
    return found


def slurm_file(name: str) -> Path:
    match = re.search(rf"^{name}\s*=\s*(\S+)", sh("scontrol", "show", "config"), re.MULTILINE)
    assert match is not None
    return Path(match[1])


def node_down(folder: SweepFolder) -> str:
    """Kill slurmd of the node of a worker and everything that runs there."""
    node = next(worker.reason for worker in find_workers(folder.path) if worker.state == "RUNNING")
    pid = int(Path(str(slurm_file("SlurmdPidFile")).replace("%n", node)).read_text())
    os.kill(pid, signal.SIGKILL)
    killed = processes_of(node)
    for process in killed:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    until(lambda: "down" in sh("sinfo", "-h", "-n", node, "-o", "%T"), 120)
    sh("slurmd", "-N", node)
    return f"{len(killed)} processes of {node} killed"


def controller_restart(folder: SweepFolder) -> str:
    """Kill slurmctld, leave the cluster without it for a while, and start it again."""
    os.kill(int(slurm_file("SlurmctldPidFile").read_text()), signal.SIGKILL)
    time.sleep(15)
    sh("slurmctld")
    return "slurmctld was gone for 15 s"


def preemption(folder: SweepFolder) -> str:
    """Let jobs of a higher priority take all cores for a while."""
    command = ["sbatch", "-p", "high", "-N", "2", "--exclusive", "--output", "/dev/null"]
    job = sh(*command, "--parsable", "--wrap", "sleep 20").strip()
    until(lambda: sh("squeue", "-h", "-j", job, "-o", "%T", check=False).strip() == "RUNNING", 300)
    states = [worker.state for worker in find_workers(folder.path)]
    return f"workers became {', '.join(sorted(set(states))).lower()}"


def nothing(folder: SweepFolder) -> str:
    """Let the fault come by itself."""
    return ""


FAULTS: dict[str, tuple[str, Callable[[SweepFolder], str]]] = {
    "none": (TIME, nothing),
    "node down": (TIME, node_down),
    "controller restart": (TIME, controller_restart),
    "preemption": (TIME, preemption),
    "time limit": ("time=00:02:00,grace=60,memory=2G", nothing),
}


def results(folder: SweepFolder) -> dict[str, dict[str, object]]:
    """Return what must not depend on faults: selected steps with their counts, and predictions."""
    found: dict[str, dict[str, object]] = {}
    for path in folder.runs.glob("*/record.json"):
        content: dict[str, object] = {"selected": json.loads(path.read_text())["selected"]}
        with np.load(path.parent / "predictions.npz") as arrays:
            content |= {name: arrays[name].tobytes() for name in arrays.files}
        found[path.parent.name] = content
    return found


def try_fault(name: str, file: Path, output: Path, expected: object) -> bool:
    options, make_happen = FAULTS[name]
    started = time.monotonic()
    launch(file, output, "--workers", "2", "--launcher", f"slurm:{options}")
    folder = SweepFolder(output)
    until(lambda: working(folder) or records(folder) == RUNS)
    status = sh(sys.executable, "-m", "benchmark.sweep", "status", str(output), "--once")
    (output / "status.txt").write_text(status)
    what = make_happen(folder)
    until(lambda: not find_workers(output))
    seconds = time.monotonic() - started
    attempts = [len(folder.run(key).attempt_numbers()) for key in folder.run_names()]
    leases = list(folder.runs.glob("*/lease.json*"))
    equal = results(folder) == expected
    done = records(folder)
    print(
        f"| {name} | {what or '–'} | {done} of {RUNS} | {sum(attempts)} | {len(leases)} | "
        f"{'equal' if equal else 'DIFFERENT'} | {seconds:.0f} |",
        flush=True,
    )
    return done == RUNS and equal and not leases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], default=list(FAULTS))
    given = parser.parse_args()
    if (
        "127.0.0.1" not in sh("scontrol", "show", "config")
        or slurm_file("SlurmctldPidFile") is None
    ):
        parser.error("the controller is not on this machine")
    output = given.output.absolute()
    output.mkdir(parents=True)
    file = output / "faults.toml"
    file.write_text(SWEEP)
    launch(file, output / "undisturbed", "--workers", "2")
    expected = results(SweepFolder(output / "undisturbed"))
    print("| fault | what happened | committed | attempts | leases left | results | seconds |")
    print("|---|---|---:|---:|---:|---|---:|", flush=True)
    good = [
        try_fault(name, file, output / name.replace(" ", "_"), expected) for name in given.faults
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
