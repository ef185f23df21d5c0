"""False alarms and power of ``benchmark.data check --scan``.

``python tests/benchmarks/scan_error_rates.py [--repetitions 200] [--output docs/scan.md]`` scans
data sets whose labels were permuted, where every finding is a false alarm, and data sets with a
planted shortcut of known strength. It prints two tables. Digits on photographs are used with a
background that tells nothing about the label (bias 0.1 of 10 classes, two of which are kept).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.core.registry import DATASETS  # noqa: E402
from benchmark.scanning.properties import pixel_families  # noqa: E402
from benchmark.scanning.scan import compare_families  # noqa: E402
from datasets._sources.shortcuts import plant  # noqa: E402

BIASES = (0.6, 0.7, 0.8, 0.95)
SIZES = (100, 500)
SHORTCUTS = ("tag", "border", "colour")


def images(count: int, seed: int) -> np.ndarray:
    """Return images of digits on photographs that are independent of each other's labels."""
    source = DATASETS.get("digits_on_photos")(None, bias=0.1)
    split = source.load(seed % 20).splits["train"]
    rows = np.random.default_rng(seed).permutation(len(split))[:count]
    return np.asarray(split.image[rows])


def false_alarms(repetitions: int) -> list[str]:
    """Return rows: number of images, classes, data sets with any false alarm."""
    rows = []
    for count, classes in ((100, 2), (500, 2), (500, 5)):
        alarms = 0
        for seed in range(repetitions):
            families = pixel_families(images(count, seed))
            label = np.random.default_rng(1000 + seed).permutation(count) % classes
            tested = label[:, None] == np.arange(classes)
            tested = tested[:, 1:] if classes == 2 else tested
            results, _ = compare_families(families, tested, label, seed=seed)
            alarms += any(result.p_holm < 0.05 for result in results)
        rows.append(f"| {count} | {classes} | {alarms} of {repetitions} |")
        print(rows[-1], flush=True)
    return rows


def power(repetitions: int) -> list[str]:
    """Return rows: shortcut, number of images, share of data sets with a suspect, by bias."""
    rows = []
    for shortcut in SHORTCUTS:
        for count in SIZES:
            shares = []
            for bias in BIASES:
                found = 0
                for seed in range(repetitions):
                    rng = np.random.default_rng(2000 + seed)
                    label = np.arange(count) % 2
                    mark = np.where(rng.random(count) < bias, label, 1 - label)
                    marked = plant(images(count, seed), mark, shortcut, seed).image
                    results, _ = compare_families(
                        pixel_families(marked), (label == 1)[:, None], label, seed=seed
                    )
                    found += any(result.is_suspect for result in results)
                shares.append(found / repetitions)
            rows.append(f"| {shortcut} | {count} | {' | '.join(f'{s:.2f}' for s in shares)} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--power-repetitions", type=int, default=20)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    started = time.process_time()
    alarms = false_alarms(given.repetitions)
    found = power(given.power_repetitions)
    lines = [
        "| images | classes | data sets with a false alarm |",
        "|---|---|---|",
        *alarms,
        "",
        f"| shortcut | images | {' | '.join(f'bias {bias:g}' for bias in BIASES)} |",
        "|---|---|---|---|---|---|",
        *found,
        "",
        f"({given.repetitions} and {given.power_repetitions} repetitions, "
        f"{time.process_time() - started:.0f} CPU-s)",
    ]
    text = "\n".join(lines)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
