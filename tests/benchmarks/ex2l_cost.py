"""Cost of a step of eX2L relative to ERM: CPU seconds, seconds and FLOPs.

The paper reports 1.95 to 2.05 (table 8).

    python tests/benchmarks/ex2l_cost.py                      # ResNet-18, batch 16, 64 × 64
    python tests/benchmarks/ex2l_cost.py --backbone resnet50 --side 224 --batch 4 --threads 2 \
        --processes 6 --rounds 10
    python tests/benchmarks/ex2l_cost.py --device cuda --backbone resnet50 --side 224 --batch 128

All methods run in one process and take turns, step by step and in another order in each round, so
that a drift in the speed of the machine affects all of them. The ratio of a process is the total
time of a method's steps divided by that of ERM's. The addresses of a process's tensors change this
ratio by a few hundredths, however many rounds there are. Therefore several fresh processes run one
after another, and the table has the mean, Student's 95 % interval and the extremes. The first
steps, in which a process still requests memory from the system, are left out.

Two steps of ERM on two networks are a row too: its difference from 2 is noise, and its difference
from eX2L is the cost of the maps. A step includes losses, backward pass and optimiser. On a GPU the
clock is read after the device has finished. With several threads the two networks of eX2L run at
the same time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from scipy import stats
from tabulate import tabulate

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.parallel_forward import ParallelForward
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.speed.memory import keep_memory
from tests.benchmarks.explanation_cost import Flops

CLASSES, CONFOUNDERS = 4, 6  # Spawrious


def build(method: str, given: argparse.Namespace) -> Algorithm:
    """Return a method with its optimisers, in training mode."""
    name, _, variant = method.partition(":")
    kind, size = ALGORITHMS.get(name), (3, given.side, given.side)

    def network(num_outputs: int | None = None, **options: float) -> torch.nn.Module:
        built: torch.nn.Module = BACKBONES.get(given.backbone)(
            num_outputs or CLASSES, size, **options
        )
        return built

    hparams = {key: h.default for key, h in kind.all_hparams(given.side).items()}
    hparams |= {"optimizer": "sgd", "lr": 1e-4, **kind.variants.get(variant, {})}
    torch.manual_seed(0)
    algorithm: Algorithm = kind(Setting(CLASSES, CONFOUNDERS, 2, size, hparams, 10_000, network))
    algorithm.to(given.device)
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm.train()


def make_batch(given: argparse.Namespace) -> Batch:
    rows = torch.arange(given.batch, device=given.device)
    image = torch.randn(given.batch, 3, given.side, given.side, device=given.device)
    label, confounder = rows % CLASSES, rows % CONFOUNDERS
    return Batch(image, label, rows, label * CONFOUNDERS + confounder, confounder, rows % 2)


def seconds(algorithms: Sequence[Algorithm], batch: Batch) -> np.ndarray:
    """Return CPU seconds and seconds of one step of each algorithm, float[2]."""
    cuda = batch.image.is_cuda
    if cuda:
        torch.cuda.synchronize()
    start = np.array([time.process_time(), time.perf_counter()])
    for algorithm in algorithms:
        algorithm.step(batch)
    if cuda:
        torch.cuda.synchronize()
    return np.array([time.process_time(), time.perf_counter()]) - start


def measure(given: argparse.Namespace) -> dict[str, list[float]]:
    """Return mean CPU seconds, mean seconds and FLOPs of a step of each method."""
    torch.set_num_threads(given.threads)
    keep_memory()  # as every run does
    first = given.methods[0]
    methods = {method: [build(method, given)] for method in given.methods}
    methods[f"2 × {first}"] = [build(first, given), build(first, given)]
    batch, flops = make_batch(given), {}
    for method, algorithms in methods.items():  # which also warms up
        torch.set_num_threads(1)  # the counter sees its own thread only
        with Flops() as counter:
            seconds(algorithms, batch)
        flops[method] = counter.total
        torch.set_num_threads(given.threads)
        for algorithm in algorithms:
            algorithm.parallel_forward = ParallelForward()  # decides again
        seconds(algorithms, batch)
    total, order = {method: np.zeros(2) for method in methods}, list(methods)
    for turn in range(given.warm_up + given.rounds):
        random.shuffle(order)
        for method in order:
            taken = seconds(methods[method], batch)
            total[method] += taken * (turn >= given.warm_up)
    return {method: [*(total[method] / given.rounds), flops[method]] for method in methods}


def table(found: Sequence[Mapping[str, Sequence[float]]], first: str) -> list[list[str]]:
    """Return a row for each method from the measurements of each process."""
    rows = []
    for method in found[0]:
        values = np.array([one[method] for one in found])
        ratios, row = values / np.array([one[first] for one in found]), [method]
        for clock in (0, 1):
            row += [f"{1000 * values[:, clock].mean():.0f}", f"{ratios[:, clock].mean():.3f}"]
            if len(found) > 1:
                half = stats.t.ppf(0.975, len(found) - 1) * stats.sem(ratios[:, clock])
                row.append(
                    f"± {half:.3f} ({ratios[:, clock].min():.3f} to {ratios[:, clock].max():.3f})"
                )
        rows.append([*row, f"{ratios[0, 2]:.4f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25, help="of each process")
    parser.add_argument(
        "--warm-up", type=int, default=5, help="rounds of each process before the clock counts"
    )
    parser.add_argument("--processes", type=int, default=1, help="fresh ones, one after another")
    parser.add_argument(
        "--threads", type=int, default=1, help="that PyTorch uses; a sweep's share of the cores"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--methods", nargs="+", default=["erm", "ex2l:mae", "ex2l:ssim", "ex2l:js_distance"]
    )
    given = parser.parse_args()
    context, found = multiprocessing.get_context("spawn"), []
    for _ in range(given.processes):
        with context.Pool(1) as pool:
            found.append(pool.apply(measure, [given]))
    print(
        f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, {given.device}, ",
        end="",
    )
    print(f"{given.threads} threads: {given.processes} × {given.rounds} rounds")
    columns = [""]
    for clock in ("CPU", "wall"):
        columns += [
            f"{clock} ms",
            f"× {given.methods[0]}",
            *(["95 % (processes)"] if given.processes > 1 else []),
        ]
    print(tabulate(table(found, given.methods[0]), [*columns, "FLOPs ×"], disable_numparse=True))


if __name__ == "__main__":
    main()
