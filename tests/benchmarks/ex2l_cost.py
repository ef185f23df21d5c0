"""What an eX2L step costs beside ERM's: CPU seconds and FLOPs. The paper's overhead is 1.95 to 2.05 (its table 8).

    python tests/benchmarks/ex2l_cost.py                                           # ResNet-18, batch 16, 64 × 64
    python tests/benchmarks/ex2l_cost.py --backbone resnet50 --side 224 --batch 2 --rounds 5
    python tests/benchmarks/ex2l_cost.py --device cuda --backbone resnet50 --side 224 --batch 128

All methods live in one process and take turns, step by step and every round in another order, so that a machine whose
speed drifts is fair to all; the ratio is the median over the rounds of a method's step by ERM's of the same round. Two
steps of ERM, on two networks, are a row too: what lies between it and 2 is the noise, what lies between it and eX2L is
what the maps cost. A step is everything that training does per batch: losses, backward, optimiser. On a GPU the time is
the wall clock's, after the device has finished.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.engine.machine import keep_memory
from tests.benchmarks.explanation_cost import Flops

CLASSES, CONFOUNDERS = 4, 6  # Spawrious


def build(method: str, given: argparse.Namespace) -> Algorithm:
    """A method with its optimisers, in training mode."""
    name, _, variant = method.partition(":")
    kind, size = ALGORITHMS.get(name), (3, given.side, given.side)

    def network(num_outputs: int | None = None, **options: float) -> torch.nn.Module:
        built: torch.nn.Module = BACKBONES.get(given.backbone)(num_outputs or CLASSES, size, **options)
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


def seconds(algorithms: Sequence[Algorithm], batch: Batch) -> float:
    """Of one step of each: of this process on a CPU, of the wall clock on a GPU."""
    cuda = batch.image.is_cuda
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    for algorithm in algorithms:
        algorithm.step(batch)
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="+", default=["erm", "ex2l:mae", "ex2l:ssim", "ex2l:js_distance"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as every run does
    first = given.methods[0]
    methods = {method: [build(method, given)] for method in given.methods}
    methods[f"2 × {first}"] = [build(first, given), build(first, given)]
    batch, flops = make_batch(given), {}
    for method, algorithms in methods.items():  # which also warms up
        with Flops() as counter:
            seconds(algorithms, batch)
        flops[method] = counter.total
        seconds(algorithms, batch)
    times: dict[str, list[float]] = {method: [] for method in methods}
    names = list(methods)
    for turn in range(given.rounds):
        for i in range(len(names)):
            method = names[(turn + i) % len(names)]
            times[method].append(seconds(methods[method], batch))
    table = []
    for method, found in times.items():
        ratios = [t / base for t, base in zip(found, times[first], strict=True)]
        cost = [statistics.median(ratios), min(found) / min(times[first]), flops[method] / flops[first]]
        table.append([method, 1000 * statistics.median(found), *cost])
    print(f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, {given.rounds} rounds, {given.device}")
    columns = ["", "ms a step", f"× {first}, median", "× of minima", "FLOPs ×"]
    print(tabulate(table, columns, floatfmt=("", ".1f", ".3f", ".3f", ".4f")))


if __name__ == "__main__":
    main()
