"""The exact posterior engine against NUTS: the same numbers? how much faster? And DeLong on a million scores.

    python tests/benchmarks/posterior_speed.py              # some minutes, nearly all of them NUTS
    python tests/benchmarks/posterior_speed.py --no-nuts    # seconds

Prints Markdown and replaces that section of docs/coverage.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmark.report.statistics.intervals import (
    ConfusionPosterior,
    PosteriorEstimate,
    confusion_posterior,
    delong,
)
from benchmark.report.statistics.posterior import OVERALL, PER_CLASS

HEADING = "## Speed"


def matrices() -> dict[str, np.ndarray]:
    """The three shapes of the TEA paper's tables; the first agrees with every score of its X-ray student."""
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
    """The shortest wall-clock and processor times in seconds: what the work takes when nothing else disturbs it."""
    wall, processor = [], []
    for _ in range(times):
        begin, begin_processor = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
    return min(wall), min(processor)


def compared(
    exact: ConfusionPosterior, nuts: ConfusionPosterior
) -> tuple[float, float, float, float]:
    """Largest |difference| of posterior means and of sds, each absolute and in combined Monte Carlo errors."""
    pairs = list(zip(scores(exact), scores(nuts), strict=True))
    means = np.array([abs((a.posterior_mean or 0) - (b.posterior_mean or 0)) for a, b in pairs])
    sds = np.array([abs((a.sd or 0) - (b.sd or 0)) for a, b in pairs])
    mean_errors = np.array(
        [np.hypot(a.monte_carlo_error or 0, b.monte_carlo_error or 0) for a, b in pairs]
    )
    sd_errors = np.array([np.hypot(a.sd_error or 0, b.sd_error or 0) for a, b in pairs])
    return means.max(), (means / mean_errors).max(), sds.max(), (sds / sd_errors).max()


def load_line() -> str:
    """How busy the machine was: with more running than it has processors, wall-clock times say little."""
    return f"Load of the machine at the start: {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors."


def posterior_rows(with_nuts: bool) -> list[str]:
    rows = [
        "| matrix | exact, s | CPU s | draws | its error | NUTS, s | its error | divergent | faster "
        "| largest difference of means (in errors) | of sds (in errors) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, table in matrices().items():
        exact = confusion_posterior(table)
        seconds, processor = best_of(15, lambda table=table: confusion_posterior(table))  # type: ignore[misc]
        row = f"| {name} | {seconds:.3f} | {processor:.3f} | {exact.draws:,} | {exact.monte_carlo_error:.1e} "
        if with_nuts:
            begin = time.perf_counter()
            nuts = confusion_posterior(table, engine="nuts")
            long = time.perf_counter() - begin
            mean, mean_errors, sd, sd_errors = compared(exact, nuts)
            row += f"| {long:.0f} | {nuts.monte_carlo_error:.1e} | {nuts.divergences} | {long / seconds:,.0f}× "
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
        wall, processor = best_of(15, lambda given=given: delong(label, given))  # type: ignore[misc]
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
        "Best of fifteen, one thread; NUTS once, 4 chains × (1,000 tuning + 10,000) draws, with compilation.",
        "Differences are the largest over all scores of the matrix, and in brackets in units of the two engines'",
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
