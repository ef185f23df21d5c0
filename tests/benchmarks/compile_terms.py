"""Terms of every method with and without ``compute.compile``, as a table in Markdown.

Run by hand: python tests/benchmarks/compile_terms.py [METHOD …] [--backend inductor] [--variants]

Each method runs twice through the engine on the data set ``tiny``, plain and compiled, its upstream
runs included. For each term the table has the value in the first step that has it, the relative
difference in that step, and the largest relative difference of all steps, which includes the
rounding of earlier steps. The last column is the effect of rounding alone: the largest difference
of plain runs whose initial weights differ by one part in ten million.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.core.algorithm import Algorithm
from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.registry import ALGORITHMS
from benchmark.engine import build
from benchmark.engine.execute import execute
from tests.support.runs import plan_runs

STEPS = 4


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="algorithm or algorithm:variant; default: all")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--variants", action="store_true", help="every variant of the methods too")
    parser.add_argument(
        "--compute", default="compile", choices=("compile", "bf16", "channels_last")
    )
    return parser.parse_args()


def methods(asked: list[str], variants: bool) -> Iterator[str]:
    for name in asked or ALGORITHMS.names():
        yield name
        if variants and ":" not in name:
            yield from (f"{name}:{variant}" for variant in ALGORITHMS.get(name).variants)


def terms(root: Path, method: str, compute: dict[str, Any]) -> list[dict[str, float]]:
    """The terms of each step.

    Raises:
        RuntimeError: a run did not end well.
    """
    folders = plan_runs(
        root,
        method,
        backbone="convnet:width=4",
        budget={"steps": STEPS, "evaluate_every": 1},
        selection=["last"],
        compute={**compute, "explanations": False},
    )
    for folder in folders:
        (folder / "attempts" / "1").mkdir(parents=True)
        torch.compiler.reset()
        if execute(folder, 1) != "done":
            raise RuntimeError(read_json(folder / "failure.json")["message"])
    log = (folders[-1] / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["terms"] for line in log]


def use_backend(backend: str) -> None:
    real = torch.nn.Module.compile

    def compile(network: torch.nn.Module, options: Any) -> None:
        real(network, backend=backend, options=options if backend == "inductor" else None)

    torch.nn.Module.compile = compile  # type: ignore[method-assign]


def rows(method: str, compute: dict[str, Any]) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            plain = terms(Path(folder) / "plain", method, {})
            other = terms(Path(folder) / "other", method, compute)
            rounded = []
            for seed in range(3):
                with rounding(seed):
                    rounded.append(terms(Path(folder) / str(seed), method, {}))
        except UserError as error:
            yield [method, f"cannot run: {error}", "", "", "", "", ""]
            return
        except RuntimeError as error:
            yield [method, f"FAILED: {error}", "", "", "", "", ""]
            return
    for term in dict.fromkeys(name for step in plain for name in step):
        shown = [f"{log[first(plain, term)][term]:.6g}" for log in (plain, other)]
        apart = differences(plain, other, term)
        of_rounding = max(max(differences(plain, log, term)) for log in rounded)
        yield [method, term, *shown, *(f"{v:.1e}" for v in (apart[0], max(apart), of_rounding))]


def first(log: list[dict[str, float]], term: str) -> int:
    return next(i for i, step in enumerate(log) if term in step)


def differences(
    plain: list[dict[str, float]], other: list[dict[str, float]], term: str
) -> list[float]:
    both = [(a[term], b[term]) for a, b in zip(plain, other, strict=True) if term in a]
    return [abs(a - b) / max(abs(a), 1e-12) for a, b in both]


@contextmanager
def rounding(seed: int) -> Iterator[None]:
    """Change the initial weights of every algorithm by one part in ten million in the block."""
    real = build.place

    def place(algorithm: Algorithm, device: torch.device, compute: Mapping[str, Any]) -> None:
        real(algorithm, device, compute)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in algorithm.parameters():
                parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape, generator=generator))

    build.place = place
    try:
        yield
    finally:
        build.place = real


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    compute = {
        "compile": {"compile": True},
        "bf16": {"precision": "bf16"},
        "channels_last": {"channels_last": True},
    }[options.compute]
    if options.compute == "compile":
        use_backend(options.backend)
    named = f"{options.compute} ({options.backend})" if "compile" in compute else options.compute
    print(f"torch {torch.__version__}, {STEPS} steps on tiny, convnet of width 4\n")
    print(f"| method | term | plain | {named} | difference | largest | of rounding |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    started = time.perf_counter()
    for method in methods(options.methods, options.variants):
        for row in rows(method, compute):
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
