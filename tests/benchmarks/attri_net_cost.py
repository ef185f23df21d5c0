"""Cost of an iteration of Attri-Net relative to a step of ERM, and which part of it takes how long.

    python tests/benchmarks/attri_net_cost.py                 # 32 pixels, the small networks
    python tests/benchmarks/attri_net_cost.py --side 320 --rounds 3 --device cuda
    python tests/benchmarks/attri_net_cost.py --profile       # the operations of each part

An iteration has five steps of the critic, one of the generator and five of the heads. Parts and ERM
take turns in one process, in another order in each round, so that a drift in the speed of the
machine affects all of them. The table has the median over rounds of the CPU time of a step (of the
time on a GPU, after the device has finished), its share of an iteration, and the number of ERM
steps that take as long. Each part sees a batch of its own. The first rounds are left out.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.speed.memory import keep_memory

PARTS = ("critic", "generator", "heads")
WARM_UP = 2


def build(name: str, given: argparse.Namespace) -> Algorithm:
    """Return a method with its optimisers, in training mode."""
    kind = ALGORITHMS.get(name)
    size = (1, given.side, given.side)

    def network(num_outputs: int | None = None, **options: float) -> torch.nn.Module:
        built: torch.nn.Module = BACKBONES.get(given.backbone)(
            num_outputs or given.classes, size, **options
        )
        return built

    hparams = {key: h.default for key, h in kind.all_hparams(given.side).items()}
    torch.manual_seed(0)
    algorithm: Algorithm = kind(Setting(given.classes, 1, 1, size, hparams, 10_000, network))
    algorithm.to(given.device)
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm.train()


def make_batch(given: argparse.Namespace, k: int) -> Batch:
    """Return random images, half of them with class k."""
    rows = torch.arange(given.batch, device=given.device)
    image = torch.randn(given.batch, 1, given.side, given.side, device=given.device)
    label = torch.zeros(given.batch, given.classes, device=given.device)
    label[: given.batch // 2, k] = 1
    mask = torch.rand(given.batch, given.classes, given.side, given.side) < 0.3
    return Batch(image, label, rows, class_mask=mask.to(given.device))


def steps_of(algorithm: Algorithm, given: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Return a function for each part that makes its next step."""
    numbers: dict[str, list[int]] = {part: [] for part in PARTS}
    for step in range(2000):
        numbers[algorithm.draw(step).stream].append(step)
    position = dict.fromkeys(PARTS, 0)

    def step_of(part: str) -> Callable[[], None]:
        def run() -> None:
            algorithm.current_step = numbers[part][position[part] % len(numbers[part])]
            drawn = algorithm.draw(algorithm.current_step)
            position[part] += 1
            algorithm.step(make_batch(given, drawn.position % given.classes))

        return run

    return {part: step_of(part) for part in PARTS}


def seconds(step: Callable[[], None], given: argparse.Namespace) -> float:
    """Return the CPU time of a step, or its time on a GPU."""
    if given.device != "cpu":
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start


def print_profile(steps: dict[str, Callable[[], None]]) -> None:
    for name, step in steps.items():
        step()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(5):
                step()
        print(f"\n{name}")
        print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--method", default="attri_net", choices=("attri_net", "attri_net_guided"))
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args(arguments)
    keep_memory()
    torch.set_num_threads(1)
    algorithm = build(given.method, given)
    erm = build("erm", given)
    steps = steps_of(algorithm, given)
    steps["erm"] = lambda: erm.step(make_batch(given, 0)) and None  # type: ignore[assignment]
    if given.profile:
        print_profile(steps)
        return
    measured: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(given.rounds + WARM_UP):
        for name in random.Random(number).sample(list(steps), len(steps)):
            taken = seconds(steps[name], given)
            if number >= WARM_UP:
                measured[name].append(taken)
    median = {name: float(np.median(values)) for name, values in measured.items()}
    count = {"critic": algorithm.hp["critic_steps"], "generator": 1}
    count["heads"] = algorithm.hp["head_steps"]
    total = sum(count[part] * median[part] for part in PARTS)
    rows: list[list[object]] = []
    for part in PARTS:
        taken = count[part] * median[part]
        rows.append(
            [
                part,
                count[part],
                f"{median[part] * 1e3:.1f}",
                f"{taken / total:.0%}",
                f"{taken / median['erm']:.1f}",
            ]
        )
    rows.append(["iteration", "", f"{total * 1e3:.1f}", "100%", f"{total / median['erm']:.1f}"])
    rows.append(["ERM", 1, f"{median['erm'] * 1e3:.1f}", "", "1"])
    print(tabulate(rows, headers=["part", "steps", "ms per step", "share", "ERM steps"]))


if __name__ == "__main__":
    main()
