"""CPU seconds of a training step with and without the faster code of ``benchmark/core/speed``.

    python tests/benchmarks/speed_switch.py                      # ResNet-18, batch 16, 64 × 64
    python tests/benchmarks/speed_switch.py --backbone convnet --batch 64 --side 32 --rounds 40

Each figure is the median over the steps of several fresh processes, which take turns, because how a
process keeps memory cannot be changed back. A step draws its batch from a data set and does all
that training does: losses, backward pass, clipping, optimiser.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from tabulate import tabulate

from benchmark.core.registry import DATASETS
from benchmark.core.speed import VARIABLE
from benchmark.core.speed.memory import keep_memory
from benchmark.engine.device_split import DeviceSplit
from tests.benchmarks.explanation_cost import ROWS, build


def measure(row: str, given: argparse.Namespace) -> list[float]:
    """Return the CPU seconds of each step of a method in this process."""
    torch.set_num_threads(1)
    keep_memory()  # as every run does
    name, upstream = ROWS[row]
    algorithm = build(name, given, upstream)
    source = DATASETS.get("tiny")(None, side=given.side, size=4 * given.batch)
    split = DeviceSplit(source.load(0), "train", torch.device("cpu"))
    rng = np.random.default_rng(0)
    seconds = []
    for turn in range(given.warm_up + given.rounds):
        rows = rng.integers(split.size, size=given.batch)
        start = time.process_time()
        algorithm.step(split.batch(rows).strip(type(algorithm).needs))
        if turn >= given.warm_up:
            seconds.append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20, help="steps of each process")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--processes", type=int, default=3, help="processes of each setting")
    parser.add_argument(
        "--rows", nargs="+", default=["erm", "rrr", "isnet", "tea"], choices=list(ROWS)
    )
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    table = []
    for row in given.rows:
        seconds: dict[str, list[float]] = {"1": [], "0": []}
        for _ in range(given.processes):
            for switch, measured in seconds.items():
                os.environ[VARIABLE] = switch
                with context.Pool(1) as pool:
                    measured += pool.apply(measure, [row, given])
        with_it, without = (1000 * statistics.median(seconds[switch]) for switch in ("1", "0"))
        table.append([row, with_it, without, without / with_it])
    print(f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, one thread")
    headers = ["", "with, CPU ms", "without, CPU ms", "without / with"]
    print(tabulate(table, headers, floatfmt=".2f"))


if __name__ == "__main__":
    main()
