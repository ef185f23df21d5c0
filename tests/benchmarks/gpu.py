"""Measurements on one GPU, within eight minutes: steps, ratios, determinism, runs per GPU.

    python tests/benchmarks/gpu.py --output gpu.md
    python tests/benchmarks/gpu.py --device cpu --dry-run    # the same path, with few small steps

The parts follow each other in the order of their worth; a part that would begin after ``--seconds``
is left out and named. Tables are in Markdown.

1. Steps: milliseconds of a step, its ratio to ERM, and the ratios with channels last and bf16.
2. Memory: the peak of PyTorch's allocator in three steps of each method.
3. Determinism: the ratio of a step with deterministic algorithms to one without.
4. Runs per hour of the quickstart with 1, 2, 4 and 8 runs at a time on the GPU.

Not part of it: whether every method takes a step on a GPU (the tests marked ``gpu`` and the
contract tests), and DomainBed beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from tests.benchmarks.explanation_cost import ROWS, build, make_batch
from tests.benchmarks.step_options import measure, ratio, table

METHODS = ["erm", "tea", "rrr", "isnet", "gain", "ex2l"]
Table = tuple[list[str], list[list[Any]]]


def steps(given: argparse.Namespace) -> Table:
    """Return the times of steps and the ratios of the options."""
    return table(METHODS, ["default", "channels_last", "bf16", "both"], given)


def memory(given: argparse.Namespace) -> Table:
    """Return the peak memory of three steps of each method, in MiB."""
    found: list[list[Any]] = []
    for row in METHODS:
        name, upstream = ROWS[row]
        if given.device == "cpu":
            found.append([row, None])
            continue
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        algorithm = build(name, given, upstream, given.device)
        batch = make_batch(type(algorithm), given, given.device)
        for _ in range(3):
            algorithm.step(batch)
        found.append([row, torch.cuda.max_memory_allocated() / 2**20])
        del algorithm
    return ["", "peak MiB"], found


def determinism(given: argparse.Namespace) -> Table:
    """Return the ratio of steps with deterministic algorithms, in blocks that take turns."""
    seconds: dict[tuple[str, bool], list[float]] = {}
    for _ in range(3):
        for exact in (False, True):
            torch.use_deterministic_algorithms(exact)
            torch.backends.cudnn.benchmark = not exact
            for (row, _), times in measure(METHODS, ["default"], given).items():
                seconds.setdefault((row, exact), []).extend(times)
    torch.use_deterministic_algorithms(False)
    found = [[row, ratio(seconds[row, True], seconds[row, False])] for row in METHODS]
    return ["", "deterministic / default"], found


def runs_per_hour(given: argparse.Namespace) -> Table:
    """Return how many runs of the quickstart end per hour with several at a time on the GPU."""
    found: list[list[Any]] = []
    for count in (1, 2) if given.dry_run else (1, 2, 4, 8):
        at_once = "--workers" if given.device == "cpu" else "--per-gpu"
        methods = ["erm"] if given.dry_run else ["erm", "irm", "group_dro", "dann"]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmark.sweep", "launch", "quickstart"]
            command += ["--device", given.device, at_once, str(count), "--output", folder]
            command += ["--trials", "2", "--algorithms", *methods]
            command += ["--steps", "4" if given.dry_run else "600"]
            started = time.monotonic()
            left = max(given.ends - started, 1.0)
            try:
                subprocess.run(command, check=True, timeout=left, stdout=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                found.append([count, None])
                break
            found.append([count, 3600 * 2 * len(methods) / (time.monotonic() - started)])
    first = found[0][1]
    return ["runs at a time", "runs per hour", "× one"], [
        [count, value, value / first if value and first else None] for count, value in found
    ]


PARTS: dict[str, Callable[[argparse.Namespace], Table]] = {
    "steps": steps,
    "memory": memory,
    "determinism": determinism,
    "runs per hour": runs_per_hour,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=450.0, help="no part begins after this")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    parser.add_argument("--dry-run", action="store_true", help="few small steps, to test the path")
    given = parser.parse_args()
    if given.dry_run:
        given.backbone, given.batch, given.side = "convnet", 8, 32
        given.rounds, given.warm_up = 2, 1
    given.ends = time.monotonic() + given.seconds
    return given


def main() -> int:
    given = parse()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch finds no GPU; use --device cpu --dry-run to test the path.", file=sys.stderr)
        return 2
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    texts = [
        f"{name}, torch {torch.__version__}, {given.backbone}, batch {given.batch}, "
        f"{given.side} × {given.side}, {given.rounds} rounds"
    ]
    for part in given.parts:
        if time.monotonic() > given.ends:
            texts.append(f"{part}: left out, the time was up")
            continue
        started = time.monotonic()
        headers, found = PARTS[part](given)
        texts.append(f"{part}\n\n" + tabulate(found, headers, tablefmt="github", floatfmt=".2f"))
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        if given.output:  # a part that fails or is cut off keeps the tables of the others
            given.output.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
