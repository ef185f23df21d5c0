"""Time and memory of collecting a sweep.

    python -m tests.benchmarks.collecting_speed [RUNS] [--classes K] [--predictions]

Builds a synthetic sweep of RUNS runs × 51 evaluations (20 draws, 3 trials) in a temporary folder
and collects it in a fresh process; prints CPU seconds, wall seconds and peak memory. Run by hand:
timings are no assertions.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support import fake_sweep
from tests.support.fake_sweep import FakeSweep, Method, World, log_lines, rename

EVALUATIONS, DRAWS, TRIALS = 51, 20, 3


def build(root: Path, runs: int, classes: int, predictions: bool) -> Path:
    """A sweep of at least ``runs`` runs, eight methods to a data set."""
    fake_sweep.log_lines = lambda answers: log_lines(answers, range(10, 10 * EVALUATIONS + 10, 10))  # type: ignore[assignment]
    fake = FakeSweep(root, "many", predictions=predictions)
    world, made, number = World(size=400, classes=classes), 0, 0
    while made < runs:
        for method in range(8):
            if made < runs:
                draws = range(min(DRAWS, -(-(runs - made) // TRIALS)))
                made += len(
                    fake.add(
                        rename(world, f"data{number}:bias=0.95"),
                        Method(f"method_{method}"),
                        draws=draws,
                    )
                )
        number += 1
    return fake.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="?", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument(
        "--predictions", action="store_true", help="write predictions.npz too: intervals and stars"
    )
    parser.add_argument("--whole", action="store_true", help="also figures and the HTML page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = build(Path(root), options.runs, options.classes, options.predictions)
        command = [sys.executable, "-m", "benchmark.collect_results", str(folder)]
        started = time.perf_counter()
        subprocess.run(
            command + ([] if options.whole else ["--tables-only"]),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(
        f"{options.runs:,} runs: {cpu:.2f} CPU s, {wall:.2f} s, peak {used.ru_maxrss / 1024:.0f} MB"
    )


if __name__ == "__main__":
    main()
