"""Seconds per image of every explainer, with NEMt's trained mask beside them.

    python tests/benchmarks/explainer_cost.py                        # convnet, 32 × 32, on the CPU
    python tests/benchmarks/explainer_cost.py --backbone resnet50 --side 224 --device cuda

One image is explained at a time. All explainers run in one process and take turns, so that a drift
in the speed of the machine affects all of them; the first round warms up and is not counted. On the
CPU the time is that of the processor with one thread, which other programs disturb little. On a GPU
it is the wall time after the device has finished. Weights are random, which does not change the
time. NEMt needs a forward pass of the classifier and of the decoder, which was trained before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402

from algorithms.nem import MaskedClassifier  # noqa: E402
from benchmark.core.registry import BACKBONES, EXPLAINERS  # noqa: E402
from benchmark.explain import get  # noqa: E402
from benchmark.models.base import Backbone  # noqa: E402

CLASSES = 10
NEMT = "nemt"


def explainers(network: Backbone, width: int) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return a function of an image for each explainer that suits the network, and for NEMt."""
    masked = MaskedClassifier(network, width, explains_removed=True).to(next(network.parameters()))
    masked.eval().requires_grad_(False)

    def by(name: str, model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        explainer = get(name)
        return lambda image: explainer(model, image, torch.zeros_like(image[:, 0, 0, 0]).long())

    names = [n for n in EXPLAINERS.names() if EXPLAINERS.get(n).suits(network.capabilities)]
    return {NEMT: by("native", masked), **{name: by(name, network) for name in names}}


def seconds(explain: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> float:
    """Return the processor time of an explanation, or on a GPU its wall time."""
    if image.device.type == "cuda":
        torch.cuda.synchronize()
        started = time.perf_counter()
        explain(image)
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    explain(image)
    return time.process_time() - started


def main() -> None:
    """Time the explainers and print a table, the fastest first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = (3, given.side, given.side)
    network = BACKBONES.get(given.backbone)(CLASSES, size).to(given.device)
    network.eval().requires_grad_(False)
    timed = explainers(network, width=16 if given.side >= 128 else 8)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(given.rounds + 1):
        image = torch.randn(1, *size, device=given.device)
        for name, explain in timed.items():
            times[name].append(seconds(explain, image))
    rows = []
    median = {name: statistics.median(found[1:]) for name, found in times.items()}
    for name in sorted(median, key=lambda name: median[name]):
        kept = times[name][1:]
        chosen = {} if name == NEMT else get(name).chosen
        options = ", ".join(f"{option}={value}" for option, value in chosen.items())
        rows.append(
            [
                name,
                options,
                f"{1000 * median[name]:.2f}",
                f"{1000 * min(kept):.2f} to {1000 * max(kept):.2f}",
                f"{median[name] / median[NEMT]:.1f}",
            ]
        )
    where = given.device if given.device == "cpu" else torch.cuda.get_device_name()
    print(f"{given.backbone}, {given.side} × {given.side}, {given.rounds} rounds, {where}")
    print(tabulate(rows, ["explainer", "options", "ms per image", "range", "times NEMt"]))


if __name__ == "__main__":
    main()
