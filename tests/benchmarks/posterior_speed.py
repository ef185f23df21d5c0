"""Compare results and speed of the exact posterior engine with NUTS, and time DeLong's interval.

    python tests/benchmarks/posterior_speed.py              # minutes, nearly all of them for NUTS
    python tests/benchmarks/posterior_speed.py --no-nuts    # seconds

It prints Markdown and replaces that section of docs/coverage.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.report.statistics.delong import auc_interval
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS
from benchmark.report.statistics.posterior import (
    ConfusionPosterior,
    PosteriorEstimate,
    confusion_posterior,
)

HEADING = "## Speed"


def matrices() -> dict[str, np.ndarray]:
    """Return matrices of the TEA paper's sizes; the first has the scores of its X-ray student."""
    ten = np.random.default_rng(0).multinomial(1000, 0.9 * np.eye(10) + 0.01 * np.ones((10, 10)))
    return {
        "3×3, 3,216 images": np.array([[280, 60, 66], [200, 907, 188], [56, 156, 1303]]),
        "10×10, 10,000 images": ten,
        "2×2, 101 images": np.array([[41, 10], [8, 42]]),
    }


def scores(posterior: ConfusionPosterior) -> list[PosteriorEstimate]:
    overall = [getattr(posterior, name) for name in OVERALL]
    return overall + [score for name in PER_CLASS for score in getattr(posterior, name)]


def best_of(times: int, call: Callable[[], object]) -> tuple[float, float]:
    """Return the shortest wall-clock and processor times in seconds."""
    wall = []
    processor = []
    for _ in range(times):
        begin = time.perf_counter()
        begin_processor = time.process_time()
        call()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
    return min(wall), min(processor)


def compared(
    exact: ConfusionPosterior, nuts: ConfusionPosterior
) -> tuple[float, float, float, float]:
    """Return the largest difference of posterior means and of sds.

    Each is given in absolute terms and in units of the combined Monte Carlo error.
    """
    pairs = list(zip(scores(exact), scores(nuts), strict=True))
    means = np.array([abs((a.posterior_mean or 0) - (b.posterior_mean or 0)) for a, b in pairs])
    sds = np.array([abs((a.sd or 0) - (b.sd or 0)) for a, b in pairs])
    mean_errors = np.array(
        [np.hypot(a.monte_carlo_error or 0, b.monte_carlo_error or 0) for a, b in pairs]
    )
    sd_errors = np.array([np.hypot(a.sd_error or 0, b.sd_error or 0) for a, b in pairs])
    return means.max(), (means / mean_errors).max(), sds.max(), (sds / sd_errors).max()


def load_line() -> str:
    """Return the load of the machine; wall-clock times mean little if it is high."""
    load = os.getloadavg()[0]
    return f"Load of the machine at the start: {load:.0f} on {os.cpu_count()} processors."


def posterior_rows(with_nuts: bool) -> list[str]:
    rows = [
        "| matrix | exact, s | CPU s | draws | its error | NUTS, s | its error | divergent "
        "| faster "
        "| largest difference of means (in errors) | of sds (in errors) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in matrices().items():
        exact = confusion_posterior(table)
        seconds, processor = best_of(15, partial(confusion_posterior, table))
        error = exact.monte_carlo_error
        row = f"| {name} | {seconds:.3f} | {processor:.3f} | {exact.draws:,} | {error:.1e} "
        if with_nuts:
            begin = time.perf_counter()
            nuts = confusion_posterior(table, engine="nuts")
            long = time.perf_counter() - begin
            mean, mean_errors, sd, sd_errors = compared(exact, nuts)
            row += f"| {long:.0f} | {nuts.monte_carlo_error:.1e} | {nuts.divergences} "
            row += f"| {long / seconds:,.0f}× "
            row += f"| {mean:.1e} ({mean_errors:.1f}) | {sd:.1e} ({sd_errors:.1f}) |"
        else:
            row += "| – | – | – | – | – | – |"
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


def delong_rows() -> list[str]:
    random = np.random.default_rng(0)
    label = random.random(1_000_000) < 0.3
    smooth = random.normal(size=len(label)) + label
    rows = ["| DeLong, 1,000,000 images | s | CPU s |", "|---|---|---|"]
    for name, given in (
        ("float64", smooth),
        ("float32", smooth.astype(np.float32)),
        ("1,000 values", smooth.round(2)),
    ):
        wall, processor = best_of(15, partial(auc_interval, label, given))
        rows.append(f"| {name} | {wall:.3f} | {processor:.3f} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--no-nuts", action="store_true", help="time the exact engine and DeLong only"
    )
    parser.add_argument(
        "--out", default="docs/coverage.md", help="file whose speed section is replaced; - for none"
    )
    arguments = parser.parse_args()
    lines = [
        HEADING,
        "",
        "Each time is the best of fifteen with one thread. NUTS runs once, with 4 chains of",
        "1,000 tuning draws and 10,000 draws, and compilation is included. The differences are the",
        "largest over all scores of the matrix; brackets give them in units of the two engines'",
        "combined Monte Carlo error. Made by `python tests/benchmarks/posterior_speed.py`.",
        load_line(),
        "",
        *posterior_rows(not arguments.no_nuts),
        "",
        *delong_rows(),
    ]
    print("\n".join(lines))
    if arguments.out != "-":
        path = Path(arguments.out)
        before = path.read_text(encoding="utf-8").partition(HEADING)[0] if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
