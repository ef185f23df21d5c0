"""kill -9 at random over a real sweep: two launchers on one folder, 40 short runs, 30 kills, then a comparison.

``python tests/benchmarks/kill_sweep.py [--kills 30] [--trials 10] [--steps 400] [--seed 1] [--folder DIR]``

Runs the sweep once undisturbed and once while launchers, runs and both are killed at random moments; then checks that
every run was committed once, that nothing half-written and no lease is left, and that results are equal: logs bit for
bit but for times and memory, the selected steps and their counts, every array of predictions.npz, the weights.
Exit code 0 if all of it holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
title = "Kills"
datasets = ["tiny"]
algorithms = ["erm", "group_dro", "irm", "dann"]
backbone = "convnet"
trials = {trials}

[budget]
steps = {steps}
evaluate_every = {every}
"""
#: Fields of a log line that an undisturbed run writes differently every time.
VARYING = ("seconds", "images_per_second", "memory_bytes")


@dataclass
class Disturbed:
    """The folder that is disturbed, and what was seen of it."""

    folder: Path
    commits: dict[str, tuple[int, int]] = field(default_factory=dict)
    second_commits: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Remember every record.json by its inode and time: a second commit would change them."""
        for path in self.folder.glob("runs/*/record.json"):
            found = path.stat()
            mark = found.st_ino, found.st_mtime_ns
            if self.commits.setdefault(path.parent.name, mark) != mark:
                self.second_commits.append(path.parent.name)

    def working(self) -> list[int]:
        """The processes that hold a lease."""
        pids = []
        for path in self.folder.glob("runs/*/lease.json"):
            try:
                pids += [
                    int(line[4:])
                    for line in path.read_text().splitlines()
                    if line.startswith("pid=")
                ]
            except FileNotFoundError:
                pass
        return pids


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    home = given.folder or Path(tempfile.mkdtemp(prefix="kill_sweep."))
    home.mkdir(parents=True, exist_ok=True)
    sweep = home / "kills.toml"
    sweep.write_text(
        SWEEP.format(trials=given.trials, steps=given.steps, every=max(1, given.steps // 8))
    )
    print(f"in {home}", flush=True)

    started = time.monotonic()
    assert launch(sweep, home / "calm", home / "calm.txt").wait() == 0, (
        home / "calm.txt"
    ).read_text()
    calm = time.monotonic() - started
    keys = sorted(path.name for path in (home / "calm" / "runs").iterdir())
    print(f"undisturbed: {len(keys)} runs in {calm:.0f} s", flush=True)

    disturbed = Disturbed(home / "disturbed")
    started = time.monotonic()
    disturb(sweep, disturbed, home, given.kills, calm, random.Random(given.seed))
    print(
        f"disturbed: {time.monotonic() - started:.0f} s, {sum(disturbed.hits.values())} kills: "
        + ", ".join(f"{count} × {kind}" for kind, count in disturbed.hits.items()),
        flush=True,
    )
    problems = check(home / "calm", disturbed, keys)
    tries = Counter(
        len(list((disturbed.folder / "runs" / key / "attempts").iterdir())) for key in keys
    )
    print(
        "tries per run: " + ", ".join(f"{runs} × {count}" for count, runs in sorted(tries.items()))
    )
    print(
        "\n".join(problems)
        if problems
        else f"{len(keys)} runs committed once, no lease left, all results equal"
    )
    return 1 if problems else 0


def launch(sweep: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "benchmark.sweep",
        "launch",
        str(sweep),
        "--output",
        str(output),
    ]
    command += ["--workers", "2", "--device", "cpu", "--checkpoint-seconds", "0.5"]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


def disturb(
    sweep: Path, disturbed: Disturbed, home: Path, kills: int, calm: float, chance: random.Random
) -> None:
    """Two launchers; every so often one of them, a run, or one of each is killed, and launchers are started again."""
    logs = [home / "launcher.0.txt", home / "launcher.1.txt"]
    both = [launch(sweep, disturbed.folder, log) for log in logs]
    while sum(disturbed.hits.values()) < kills:
        end = time.monotonic() + chance.uniform(0.2, 1.3) * calm / kills
        while time.monotonic() < end or not disturbed.working():
            disturbed.look()
            if all(process.poll() == 0 for process in both):
                print("done before all kills were made: raise --steps")
                return
            time.sleep(0.05)
        kind, which = chance.choice(["run", "launcher", "both"]), chance.randrange(2)
        disturbed.hits[kind] += 1
        if kind in ("run", "both"):
            kill(chance.choice(disturbed.working() or [0]))
        if kind in ("launcher", "both") and both[which].poll() is None:
            kill(both[which].pid)
            both[which].wait()
        for i, process in enumerate(both):
            if process.poll() is not None:
                both[i] = launch(sweep, disturbed.folder, logs[i])
    while any(process.poll() is None for process in both):
        disturbed.look()
        time.sleep(0.05)
    last = launch(sweep, disturbed.folder, logs[0])
    if last.wait() != 0:
        print("the last launch ended with", last.returncode, "\n" + logs[0].read_text()[-2000:])
    disturbed.look()


def kill(pid: int) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def check(calm: Path, disturbed: Disturbed, keys: list[str]) -> list[str]:
    """Everything that is not as it should be."""
    problems = [f"{key}: committed twice" for key in sorted(set(disturbed.second_commits))]
    for path in disturbed.folder.rglob("*"):
        if path.name.startswith("lease.json") or path.name.endswith(".tmp"):
            problems.append(f"left behind: {path}")
    for key in keys:
        one, other = calm / "runs" / key, disturbed.folder / "runs" / key
        if not (other / "record.json").exists():
            problems.append(f"{key}: not done")
            continue
        problems += [f"{key}: {what} differs" for what in differences(one, other)]
    return problems


def differences(one: Path, other: Path) -> list[str]:
    found = [
        what
        for what in ("selected", "steps", "stopped_early")
        if record(one)[what] != record(other)[what]
    ]
    found += ["log.jsonl"] if log(one) != log(other) else []
    with np.load(one / "predictions.npz") as a, np.load(other / "predictions.npz") as b:
        if a.files != b.files or any(a[name].tobytes() != b[name].tobytes() for name in a.files):
            found.append("predictions.npz")
    first, second = (
        torch.load(folder / "selected.pt", weights_only=True) for folder in (one, other)
    )
    if first.keys() != second.keys() or any(
        not torch.equal(first[name], second[name]) for name in first
    ):
        found.append("selected.pt")
    return found


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return found


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in VARYING} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
