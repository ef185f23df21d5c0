"""CPU seconds and peak memory of ``sweep status`` on a folder of many runs.

``python tests/benchmarks/status_speed.py [RUNS]`` makes a sweep folder by hand in a temporary
folder, with what real runs leave in theirs, and asks for its status in a fresh process: at most 1
CPU-s and 200 MB for 10,000 runs, once in a realistic mix of states and once just planned, when
every spec must be read. Ends with 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.core.failure import FailureKind, failure_json  # noqa: E402
from benchmark.core.files import to_json  # noqa: E402
from benchmark.core.layout import LEASE_SECONDS, RunFolder, State, SweepFolder  # noqa: E402
from benchmark.core.spec import RunSpec, spec_bytes, spec_digest  # noqa: E402
from benchmark.core.sweep_plan import PlannedEntry, SweepPlan  # noqa: E402

MOST_CPU_SECONDS, MOST_MEGABYTES = 1.0, 200.0

#: Shares of the states; what is left is pending. A method with an upstream run makes some of those
#: blocked.
SHARES = ((State.DONE, 0.55), (State.FAILED, 0.02), (State.RUNNING, 0.002), (State.LOST, 0.001))

Shares = Sequence[tuple[State, float]]


def spec_of(number: int, upstream: str | None) -> RunSpec:
    """Return a run of a sweep over data sets, methods, trials and draws."""
    return RunSpec(
        dataset="digits_on_photos",
        dataset_options={"bias": 0.95, "side": 64, "classes": 2, "photos": "places"},
        data_fingerprint=f"{number % 7:016x}",
        algorithm=f"method_{number % 13}",
        variant="",
        backbone="resnet",
        backbone_options={"depth": 18, "pretrained": ""},
        hparams={f"setting_{i}": 0.1 * i for i in range(20)},
        trial=number % 5,
        draw=number,
        budget={"steps": 3000, "evaluate_every": 100, "patience": 0, "min_delta": 0.0},
        selection=("val_accuracy", "val_worst_group", "last"),
        compute={"precision": "fp32", "channels_last": False, "compile": False},
        upstream={} if upstream is None else {"first": upstream},
    )


def build(root: Path, runs: int, shares: Shares = SHARES) -> SweepFolder:
    """A sweep folder of ``runs`` runs; every fourth needs the one before it."""
    folder = SweepFolder(root / "many")
    rows: dict[str, PlannedEntry] = {}
    before = ""
    names = [state for state, share in shares for _ in range(round(share * 1000))]
    for number in range(runs):
        spec = spec_of(number, before if number % 4 == 3 else None)
        key = before = spec.key
        rows[key] = PlannedEntry(
            "digits_on_photos:bias=0.95",
            spec.algorithm,
            spec.trial,
            spec.draw,
            upstream=spec.upstream_keys,
            spec_digest=spec_digest(spec_bytes(spec)),
        )
        # 387 and 1000 have no common factor: the states are spread over the sweep
        place = number * 387 % 1000
        state = names[place] if place < len(names) else State.PENDING
        write_run(folder.run(key), spec, state)
    plan = SweepPlan("many", "Many runs", 1_700_000_000.0, spec.selection, rows, ())
    folder.plan.write_bytes(to_json(plan.to_json()))
    return folder


def write_run(folder: RunFolder, spec: RunSpec, state: State) -> None:
    """Write the files of a run in this state, as far as ``status`` reads them."""
    folder.path.mkdir(parents=True)
    folder.spec.write_bytes(spec_bytes(spec))
    if state is State.PENDING:
        return
    attempt = folder.attempt(1)
    attempt.path.mkdir(parents=True)
    lines = [
        json.dumps({"step": step, "steps": 3000, "seconds": step / 50, "images_per_second": 3200.0})
        for step in range(100, 1600, 100)
    ]
    log = "\n".join(lines) + "\n"
    if state is State.DONE:
        for path in (folder.record, folder.predictions, folder.selected, folder.output):
            path.write_text("{}", encoding="utf-8")
        folder.log.write_text(log, encoding="utf-8")
        return
    attempt.log.write_text(log, encoding="utf-8")
    attempt.output.write_text("", encoding="utf-8")
    if state is State.FAILED:
        failure = failure_json(
            spec.key, 1, FailureKind.NON_FINITE, "the loss is NaN at step 1500", step=1500
        )
        folder.failure.write_text(json.dumps(failure), encoding="utf-8")
        return
    folder.lease.write_text("{}", encoding="utf-8")
    if state is State.LOST:
        then = time.time() - 10 * LEASE_SECONDS
        os.utime(folder.lease, (then, then))


def measure(folder: SweepFolder) -> tuple[float, float, float, str]:
    """CPU seconds, wall seconds, peak megabytes and output of ``sweep status FOLDER --once``."""
    command = [sys.executable, "-m", "benchmark.sweep", "status", str(folder.path), "--once"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, after.ru_maxrss / 1024, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=10_000)
    options = parser.parse_args()
    too_much = False
    for shares in (SHARES, ()):
        with tempfile.TemporaryDirectory() as root:
            folder = build(Path(root), options.runs, shares)
            tries = [measure(folder) for _ in range(3)]
        print(tries[0][3].splitlines()[0])
        cpu, wall, memory = (min(values[i] for values in tries) for i in range(3))
        print(f"{options.runs:,} runs: {cpu:.2f} CPU-s, {wall:.2f} s, peak {memory:.0f} MB")
        too_much |= cpu > MOST_CPU_SECONDS or memory > MOST_MEGABYTES
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
