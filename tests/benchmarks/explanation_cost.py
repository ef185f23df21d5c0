"""Cost of a training step with explanations relative to ERM: CPU seconds, FLOPs, peak memory.

    python tests/benchmarks/explanation_cost.py                      # ResNet-18, batch 16, 64 × 64
    python tests/benchmarks/explanation_cost.py --backbone convnet --batch 64 --side 32 --rounds 40

All methods run in one process and take turns, step by step, so that a drift in the speed of the
machine affects all of them. Figures are medians over the rounds. A step includes losses, backward
pass, clipping and optimiser. The teacher of ``tea`` is a standard classifier, that of ``tea,
pipeline`` has a U-Net before it. Peak memory is the growth of the resident set of a fresh process
from the built method to its third step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from benchmark.core.algorithm import Algorithm, Setting  # noqa: E402
from benchmark.core.batch import Batch  # noqa: E402
from benchmark.core.registry import ALGORITHMS, BACKBONES  # noqa: E402
from benchmark.core.spec import ComputeOptions  # noqa: E402
from benchmark.engine.build import place  # noqa: E402

CLASSES = 10
#: Row of the table: the method, and the teacher (or earlier run) that it is given.
ROWS = {
    "erm": ("erm", None),
    "tea": ("tea", "erm"),
    "tea, pipeline": ("tea", "segment_classify"),
    "rrr": ("rrr", None),
    "isnet": ("isnet", "erm"),
    "gain": ("gain", None),
    "ex2l": ("ex2l", None),
    "distill_outputs": ("distill_outputs", "erm"),
    "distill_gradcam": ("distill_gradcam", "erm"),
}


class Flops(TorchDispatchMode):
    """Counts two operations per multiply-add of convolutions and matrix products.

    It uses torch's formulas and includes backward passes. ``FlopCounterMode`` of torch also tracks
    modules, which fails if ``autograd.grad`` is called with respect to an input.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def build(
    name: str,
    given: argparse.Namespace,
    upstream: str | None = None,
    device: str = "cpu",
    compute: Mapping[str, Any] | None = None,
) -> Algorithm:
    """Return a method with its optimisers, in training mode.

    Args:
        name: the method.
        given: the options of the command: backbone, batch and side.
        upstream: the method of its teacher or earlier run, or None.
        device: where it trains.
        compute: the ``compute`` table of a spec.
    """
    compute = compute or {}
    kind = ALGORITHMS.get(name)
    size = (3, given.side, given.side)

    def network(num_outputs: int | None = None, **options: Any) -> torch.nn.Module:
        built: torch.nn.Module = BACKBONES.get(given.backbone)(
            num_outputs or CLASSES, size, **options
        )
        return built

    hparams = {key: h.default for key, h in kind.all_hparams(given.side).items()}
    hparams |= {"batch_size": given.batch, "lr": 1e-4}
    before = {
        role: build(upstream, given, None, device, compute).eval().requires_grad_(False)
        for role in ("teacher", "standard")
        if upstream
    }
    setting = Setting(CLASSES, 2, 1, size, hparams, 10_000, network, upstream=before)
    if compute.get("precision") == "bf16":
        setting = replace(setting, autocast=partial(torch.autocast, device, dtype=torch.bfloat16))
    torch.manual_seed(0)
    algorithm: Algorithm = kind(setting)
    if name == "isnet":
        algorithm.low, algorithm.high = torch.tensor(1.0), torch.tensor(10.0)
    if name == "segment_classify":
        algorithm.network.low.zero_(), algorithm.network.high.fill_(1.0)
    place(algorithm, torch.device(device), ComputeOptions(**compute))
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm.train()


def make_batch(kind: type[Algorithm], given: argparse.Namespace, device: str = "cpu") -> Batch:
    mask = torch.zeros(given.batch, 1, given.side, given.side, dtype=torch.bool)
    mask[:, :, given.side // 4 : -given.side // 4, given.side // 4 : -given.side // 4] = True
    image, label = (
        torch.randn(given.batch, 3, given.side, given.side),
        torch.randint(CLASSES, (given.batch,)),
    )
    confounder = torch.randint(2, (given.batch,))
    tensors = {
        "image": image,
        "label": label,
        "index": torch.arange(given.batch),
        "mask": mask,
        "confounder": confounder,
        "group": 2 * label + confounder,
    }
    return Batch(**{k: value.to(device) for k, value in tensors.items()}).strip(kind.needs)


def resident(which: str) -> int:
    """Return VmRSS or VmHWM of this process in kilobytes."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(which)
    )
    return int(line.split()[1])


def memory(row: str, given: argparse.Namespace, answer: Any) -> None:
    """Put the peak memory in MiB that three steps add on the queue; run in a fresh process."""
    torch.set_num_threads(1)
    name, upstream = ROWS[row]
    algorithm = build(name, given, upstream)
    batch, before = make_batch(type(algorithm), given), resident("VmRSS")
    for _ in range(3):
        algorithm.step(batch)
    answer.put((resident("VmHWM") - before) / 1024)


def peak(row: str, given: argparse.Namespace) -> float:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=memory, args=(row, given, answer))
    process.start()
    found: float = answer.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {row: build(*(ROWS[row][:1]), given, ROWS[row][1]) for row in given.rows}
    batches = {row: make_batch(type(algorithm), given) for row, algorithm in rows.items()}
    flops: dict[str, int] = {}
    for row, algorithm in rows.items():  # which also warms up
        with Flops() as counter:
            algorithm.step(batches[row])
        flops[row] = counter.total
        algorithm.step(batches[row])
    seconds: dict[str, list[float]] = {row: [] for row in rows}
    for _ in range(given.rounds):
        for row, algorithm in rows.items():
            start = time.process_time()
            algorithm.step(batches[row])
            seconds[row].append(time.process_time() - start)
    first = given.rows[0]
    table = []
    for row, times in seconds.items():
        ratios = [t / base for t, base in zip(times, seconds[first], strict=True)]
        table.append(
            [
                row,
                1000 * statistics.median(times),
                statistics.median(ratios),
                min(times) / min(seconds[first]),
                flops[row] / flops[first],
                peak(row, given),
            ]
        )
    print(
        f"{given.backbone}, batch {given.batch}, {given.side} × {given.side}, "
        f"{given.rounds} rounds, one thread"
    )
    print(
        tabulate(
            table,
            ["", "CPU ms", f"× {first}, median", "× of minima", "FLOPs ×", "peak MiB"],
            floatfmt=".2f",
        )
    )


if __name__ == "__main__":
    main()
