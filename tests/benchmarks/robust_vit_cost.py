"""Cost of a fine-tuning step of RobustViT and its baselines relative to cross-entropy.

    python tests/benchmarks/robust_vit_cost.py            # dim 128, depth 6, patch 4, 32 × 32
    python tests/benchmarks/robust_vit_cost.py --backbone vit_b_16 --side 224 --batch 4 --rounds 5
    python tests/benchmarks/robust_vit_cost.py --device cuda --backbone vit_b_16 --side 224 \
        --batch 8 --precision bf16

All methods run in one process and take turns, step by step, so that a drift in the speed of the
machine affects all of them. The table has the median over the rounds of each step's time divided by
that of cross-entropy in the same round. A step includes losses, backward passes and optimiser. On a
CPU the time is that of the process, on a GPU the wall time after the device has finished.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.speed.memory import keep_memory
from tests.benchmarks.explanation_cost import Flops, make_batch

CLASSES = 10
METHODS = ("erm_fine_tuned", "robust_vit:authors", "robust_vit", "rrr_fine_tuned")


def build(method: str, given: argparse.Namespace, start: Algorithm | None) -> Algorithm:
    """Return a method with its optimisers, in training mode."""
    name, _, variant = method.partition(":")
    kind = ALGORITHMS.get(name)
    size = (3, given.side, given.side)
    chosen = parse_named_options(given.backbone)
    backbone = BACKBONES.get(chosen.name)
    options = {key: backbone.options[key].parse(key, text) for key, text in chosen.options.items()}

    def network(num_outputs: int | None = None, **others: Any) -> torch.nn.Module:
        built: torch.nn.Module = backbone(num_outputs or CLASSES, size, **{**options, **others})
        return built

    def autocast() -> Any:
        if given.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(given.device).type, torch.bfloat16)

    hparams = {key: h.default for key, h in kind.all_hparams(given.side).items()}
    hparams.update(kind.variants.get(variant, {}))
    torch.manual_seed(0)
    setting = Setting(
        CLASSES,
        2,
        1,
        size,
        hparams,
        10_000,
        network,
        upstream={} if start is None else {"start": start},
        autocast=autocast,
    )
    algorithm: Algorithm = kind(setting)
    algorithm.to(given.device)
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm.train()


def on_device(batch: Batch, device: str) -> Batch:
    fields = {
        key: value.to(device) if torch.is_tensor(value) else value
        for key, value in vars(batch).items()
    }
    return Batch(**fields)


def seconds(algorithm: Algorithm, batch: Batch) -> float:
    """Return the time of one step."""
    if not batch.image.is_cuda:
        began = time.process_time()
        algorithm.step(batch)
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    algorithm.step(batch)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def peak(algorithm: Algorithm, batch: Batch) -> float:
    """Return the peak memory of one step on a GPU in MiB, all models included; else NaN."""
    if not batch.image.is_cuda:
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    algorithm.step(batch)
    return float(torch.cuda.max_memory_allocated() / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit:patch=4,dim=128,depth=6,heads=4")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as every run does
    start = build("erm", given, None).eval().requires_grad_(False)
    # the last layer of a new transformer is zero, and so would be its relevance
    torch.nn.init.normal_(start.network.classifier.weight, std=0.02)  # type: ignore[union-attr,arg-type]
    methods = {method: build(method, given, start) for method in given.methods}
    batches = {
        method: on_device(make_batch(type(algorithm), given), given.device)
        for method, algorithm in methods.items()
    }
    flops = {}
    for method, algorithm in methods.items():  # which also warms up
        with Flops() as counter:
            algorithm.step(batches[method])
        flops[method] = counter.total
        algorithm.step(batches[method])
    taken: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(given.rounds):
        for method, algorithm in methods.items():
            taken[method].append(seconds(algorithm, batches[method]))
    first = given.methods[0]
    table = []
    for method, times in taken.items():
        ratios = sorted(t / base for t, base in zip(times, taken[first], strict=True))
        quarter = len(ratios) // 4
        table.append(
            [
                method,
                1000 * statistics.median(times),
                statistics.median(ratios),
                f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}",
                min(times) / min(taken[first]),
                flops[method] / flops[first],
                peak(methods[method], batches[method]),
            ]
        )
    print(
        f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, {given.precision}, "
        f"{given.device}, {given.rounds} rounds, one thread"
    )
    columns = ["", "ms", f"× {first}", "quartiles", "× of minima", "FLOPs ×", "peak MiB"]
    print(tabulate(table, columns, floatfmt=".2f"))


if __name__ == "__main__":
    main()
