"""Time of a training step with channels_last, bf16 and compilation, as ratios to the default.

    python tests/benchmarks/step_options.py                      # ResNet-18, batch 16, 64 × 64
    python tests/benchmarks/step_options.py --backbone convnet --batch 64 --side 32 --rounds 40
    python tests/benchmarks/step_options.py --networks convnet:64:32 resnet18:64:64 --rows erm \\
        --options channels_last bf16 both compile compile_channels_last compile_bf16 compile_both

All methods and options take turns, step by step, so that a drift in the speed of the machine
affects all of them. A figure is the median over the rounds of the ratio to the default in the same
round; × erm is the ratio of the default to that of ERM. On a CPU the time is that of the processor
with one thread. A step includes losses, backward pass, clipping and optimiser; compilation is part
of the steps that warm up. Tables are in Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from benchmark.core.speed.memory import keep_memory
from tests.benchmarks.explanation_cost import ROWS, build, make_batch

#: Options of ``[compute]`` by their name in the table.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "both": {"channels_last": True, "precision": "bf16"},
    "compile": {"compile": True},
    "compile_channels_last": {"compile": True, "channels_last": True},
    "compile_bf16": {"compile": True, "precision": "bf16"},
    "compile_both": {"compile": True, "channels_last": True, "precision": "bf16"},
}


def clock(device: str) -> float:
    """Return processor seconds on a CPU, and wall seconds of finished work on a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(
    rows: list[str], options: list[str], given: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of the steps of each method with each option, in turns."""
    made = {}
    for row in rows:
        name, upstream = ROWS[row]
        for option in options:
            algorithm = build(name, given, upstream, given.device, OPTIONS[option])
            made[row, option] = (algorithm, make_batch(type(algorithm), given, given.device))
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in made}
    for turn in range(given.warm_up + given.rounds):
        for key, (algorithm, batch) in made.items():
            started = clock(given.device)
            algorithm.step(batch)
            if turn >= given.warm_up:
                seconds[key].append(clock(given.device) - started)
    return seconds


def ratio(one: list[float], other: list[float]) -> float:
    """Return the median over rounds of the ratio of two times."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def table(
    rows: list[str], options: list[str], given: argparse.Namespace
) -> tuple[list[str], list[list[Any]]]:
    """Return headers and rows: milliseconds, the ratio to ERM, and the ratio of each option."""
    seconds = measure(rows, options, given)
    found = []
    for row in rows:
        default = seconds[row, options[0]]
        ratios = [ratio(seconds[row, option], default) for option in options[1:]]
        to_erm = ratio(default, seconds[rows[0], options[0]])
        found.append([row, 1000 * statistics.median(default), to_erm, *ratios])
    return ["", "ms", f"× {rows[0]}", *options[1:]], found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[],
        metavar="BACKBONE:BATCH:SIDE",
        help="a table for each of these, instead of --backbone, --batch and --side",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--rows",
        nargs="+",
        default=["erm", "tea", "rrr", "isnet", "gain", "ex2l"],
        choices=list(ROWS),
    )
    parser.add_argument(
        "--options",
        nargs="+",
        default=["channels_last", "bf16", "both"],
        choices=[name for name in OPTIONS if name != "default"],
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as every run does
    for network in given.networks or [f"{given.backbone}:{given.batch}:{given.side}"]:
        given.backbone, batch, side = network.rsplit(":", 2)
        given.batch, given.side = int(batch), int(side)
        headers, found = table(given.rows, ["default", *given.options], given)
        print(
            f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, {given.device}, "
            f"{given.rounds} rounds, torch {torch.__version__}\n"
        )
        print(tabulate(found, headers, tablefmt="github", floatfmt=".2f"), flush=True)
        print()


if __name__ == "__main__":
    main()
