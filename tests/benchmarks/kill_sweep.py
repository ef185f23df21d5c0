"""Kill the processes of a real sweep, and compare its results with an undisturbed one.

Two launchers work on one folder with 50 short runs, and 100 times something is killed.

``python tests/benchmarks/kill_sweep.py [--kills 100] [--trials 10] [--steps 400] [--seed 1]
[--folder DIR]``

Runs the sweep once undisturbed and once while it is disturbed in these ways:

- processes kill themselves before or after a random open, fsync, link, replace, unlink or mkdir in
  the folder (``kill_hook.py``): half of the kills;
- launchers, runs and both are killed at random moments;
- runs are stopped for longer than their lease, so that another process takes them over, and then go
  on;
- checkpoints are truncated, or bits of them flipped, and their run is killed.

Then it checks that every run was committed once, that nothing half-written and no lease is left,
and that results are equal: logs bit for bit but for times and memory, the selected steps and their
counts, every array of predictions.npz, the weights. Exit code 0 if all of it holds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks import kill_hook  # noqa: E402

LAUNCHER = Path(__file__).with_name("kill_launcher.py")
#: How long a silent process keeps its lease here, seconds.
LEASE = 8.0
SWEEP = """
title = "Kills"
datasets = ["tiny"]
algorithms = ["erm", "group_dro", "irm", "dann", "jtt"]
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
    log: str
    commits: dict[str, tuple[int, int]] = field(default_factory=dict)
    second_commits: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Remember every record.json by its inode and time: a second commit would change them."""
        for path in self.folder.glob("runs/*/record.json"):
            found = path.stat()
            mark = found.st_ino, found.st_mtime_ns
            if self.commits.setdefault(path.parent.name, mark) != mark:
                self.second_commits.append(path.parent.name)

    def working(self) -> dict[int, str]:
        """The processes that hold a lease, and the keys of their runs."""
        found = {}
        for path in self.folder.glob("runs/*/lease.json"):
            try:
                lines = path.read_text().splitlines()
            except FileNotFoundError:
                continue
            found |= {int(line[4:]): path.parent.name for line in lines if line.startswith("pid=")}
        return found

    def victims(self) -> dict[int, str]:
        """Processes whose run may be killed once more without failing for good."""
        before = Counter(kill["key"] for kill in kill_hook.noted(self.log))
        most = kill_hook.MOST_PER_RUN
        return {pid: key for pid, key in self.working().items() if before[key] < most}

    def note(self, what: str, key: str = "", **more: object) -> None:
        kill_hook.note(self.log, what=what, key=key, **more)

    def kills(self) -> Counter[str]:
        return Counter(kill["what"] for kill in kill_hook.noted(self.log))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
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
    launchers = Launchers(sweep, home / "calm", home / "calm", 1)
    launchers.start()
    launchers.finish(lambda: None)
    calm = time.monotonic() - started
    keys = sorted(path.name for path in (home / "calm" / "runs").iterdir())
    print(f"undisturbed: {len(keys)} runs in {calm:.0f} s", flush=True)

    disturbed = Disturbed(home / "disturbed", str(home / "kills.jsonl"))
    started = time.monotonic()
    disturb(sweep, disturbed, home, given.kills, calm, random.Random(given.seed))
    kills = disturbed.kills()
    print(
        f"disturbed: {time.monotonic() - started:.0f} s, {sum(kills.values())} kills: "
        + ", ".join(f"{count} × {kind}" for kind, count in kills.items()),
        flush=True,
    )
    own = [kill for kill in kill_hook.noted(disturbed.log) if kill["what"] == "self"]
    for name in ("operation", "when", "file"):
        counts = Counter(_plain(kill[name]) for kill in own)
        print(f"self-kills by {name}: " + ", ".join(f"{n} × {k}" for k, n in counts.most_common()))
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


def _plain(name: str) -> str:
    """A file's name without what is random in it."""
    return re.sub(r"\.[a-z0-9_]{8}\.tmp$", ".*.tmp", re.sub(r"[0-9a-f]{32}", "*", name))


@dataclass
class Launchers:
    """Launchers of one sweep on one folder, each started again when it has ended too early.

    Args:
        logs: their outputs go to files of this name with a number and an ending.
        count: how many at a time.
        kill_log, limit: where self-kills are noted, and how many there may be; none by default.
    """

    sweep: Path
    output: Path
    logs: Path
    count: int
    kill_log: str = ""
    limit: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        self.processes = [self._launch(i) for i in range(self.count)]

    def restart_the_dead(self) -> None:
        for i, process in enumerate(self.processes):
            if process.poll() not in (None, 0):
                self.processes[i] = self._launch(i)

    def finished(self) -> bool:
        return all(process.poll() == 0 for process in self.processes)

    def finish(self, look: Callable[[], None]) -> None:
        """Wait until every launcher has ended; only processes that kill themselves still die."""
        while not self.finished():
            look()
            self.restart_the_dead()
            time.sleep(0.05)

    def _launch(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(LAUNCHER), str(LEASE), "launch", str(self.sweep)]
        command += ["--output", str(self.output), "--workers", "2", "--device", "cpu"]
        command += ["--checkpoint-seconds", "0.5"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "KILL_FOLDER": str(self.output),
            "KILL_LOG": self.kill_log,
            "KILL_LIMIT": str(self.limit),
        }
        with self.logs.with_suffix(f".{number}.txt").open("ab") as file:
            return subprocess.Popen(
                command, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True
            )


def disturb(
    sweep: Path, disturbed: Disturbed, home: Path, kills: int, calm: float, chance: random.Random
) -> None:
    """Run two launchers whose processes are killed, stopped, and given damaged checkpoints."""
    launchers = Launchers(sweep, disturbed.folder, home / "launcher", 2, disturbed.log, kills // 2)
    launchers.start()
    stopped: dict[int, float] = {}
    kinds = ["run"] * 3 + ["launcher"] * 2 + ["both"] * 2 + ["stop"] * 2 + ["checkpoint"] * 3
    while sum(disturbed.kills().values()) < kills:
        end = time.monotonic() + chance.uniform(0.2, 2.0) * calm / kills
        while time.monotonic() < end or not disturbed.victims():
            disturbed.look()
            go_on(stopped)
            launchers.restart_the_dead()
            if launchers.finished():
                break
            time.sleep(0.05)
        if launchers.finished():
            print("done before all kills were made: raise --steps or --trials")
            break
        kind = chance.choice(kinds)
        victims = disturbed.victims()
        if kind != "launcher" and not victims:
            continue
        pid = chance.choice(list(victims)) if victims else 0
        if kind == "stop":
            if pid in stopped or not send(pid, signal.SIGSTOP):
                continue
            stopped[pid] = time.monotonic() + LEASE * chance.uniform(1.2, 2.5)
            disturbed.note("stop", victims[pid])
        elif kind == "checkpoint":
            how = damage(disturbed.folder / "runs" / victims[pid] / "checkpoint.pt", chance)
            if not how:
                continue
            send(pid, signal.SIGKILL)
            disturbed.note(how, victims[pid])
        else:
            if kind in ("run", "both"):
                send(pid, signal.SIGKILL)
            if kind in ("launcher", "both"):
                process = chance.choice(launchers.processes)
                process.kill()
                process.wait()
            disturbed.note(kind, victims.get(pid, "") if kind != "launcher" else "")
    while stopped:
        go_on(stopped)
        launchers.restart_the_dead()
        disturbed.look()
        time.sleep(0.05)
    launchers.finish(disturbed.look)
    for path in disturbed.folder.rglob(".*.tmp"):  # as if an hour had passed
        os.utime(path, (0, 0))
    last = Launchers(sweep, disturbed.folder, home / "last", 1)
    last.start()
    last.finish(disturbed.look)
    disturbed.look()


def go_on(stopped: dict[int, float]) -> None:
    """Let processes go on whose time has come."""
    for pid, until in list(stopped.items()):
        if time.monotonic() > until:
            del stopped[pid]
            send(pid, signal.SIGCONT)


def damage(path: Path, chance: random.Random) -> str:
    """Truncate a checkpoint or flip bits of it; return the damage, empty without a checkpoint."""
    try:
        size = path.stat().st_size
        with path.open("r+b") as file:
            if chance.random() < 0.5:
                file.truncate(chance.randrange(size))
                return "checkpoint truncated"
            for _ in range(chance.choice((1, 3))):
                at = chance.randrange(size)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1 << chance.randrange(8)]))
            return "checkpoint with flipped bits"
    except FileNotFoundError:
        return ""


def send(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def check(calm: Path, disturbed: Disturbed, keys: list[str]) -> list[str]:
    """Everything that is not as it should be."""
    problems = [f"{key}: committed twice" for key in sorted(set(disturbed.second_commits))]
    for path in disturbed.folder.rglob("*"):
        if path.name.startswith(("lease.json", "checkpoint.pt")) or path.name.endswith(".tmp"):
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
