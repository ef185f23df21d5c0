"""False alarms and power of ``benchmark.data check --scan``.

``python tests/benchmarks/scan_error_rates.py [--repetitions 200] [--folder DIR] [--output FILE]``
scans data sets whose labels were permuted, where every finding is a false alarm, and data sets with
a planted shortcut of known strength. It prints two tables. Digits on photographs are used with a
background that tells nothing about the label (bias 0.1 of 10 classes), and the labels of the digits
are replaced by others. Results are kept in ``--folder``, and the next call continues there.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmark.core.registry import DATASETS  # noqa: E402
from benchmark.report.statistics.worst_group import clopper_pearson  # noqa: E402
from benchmark.scanning.properties import Family, pixel_families  # noqa: E402
from benchmark.scanning.scan import ALPHA, FamilyResult, compare_families  # noqa: E402
from datasets._sources.shortcuts import plant  # noqa: E402

BIASES = (0.6, 0.7, 0.8, 0.95)
SIZES = (100, 500)
SHORTCUTS = ("tag", "border", "colour")
#: Numbers of images and of classes of the data sets with permuted labels, and the part of the
#: repetitions that is made: five classes take five times as long.
PERMUTED = ((100, 2, 1.0), (500, 2, 1.0), (500, 5, 0.5))
#: The number of trials of the data from which images are drawn.
DATA_TRIALS = 4

Result = dict[str, list[str]]


@functools.cache
def trial_images(trial: int) -> np.ndarray:
    """Return the training images of a trial."""
    return np.asarray(
        DATASETS.get("digits_on_photos")(None, bias=0.1).load(trial).splits["train"].image
    )


@functools.cache
def trial_families(trial: int) -> list[Family]:
    """Return the properties of the training images of a trial."""
    return pixel_families(trial_images(trial))


def drawn_rows(count: int, seed: int) -> tuple[int, np.ndarray]:
    """Return a trial, and rows of its training images."""
    trial = seed % DATA_TRIALS
    rng = np.random.default_rng(seed)
    return trial, rng.permutation(len(trial_images(trial)))[:count]


def outcome(results: list[FamilyResult]) -> Result:
    """Return the families with a small p, those that predict, and the suspects."""
    return {
        "significant": [r.family.name for r in results if r.p_holm < ALPHA],
        "predicts": [r.family.name for r in results if r.predicts],
        "suspects": [r.family.name for r in results if r.is_suspect],
    }


def scan_permuted(count: int, classes: int, seed: int) -> Result:
    """Scan images with permuted labels."""
    trial, rows = drawn_rows(count, seed)
    families = [Family(f.name, f.tier, f.values[rows]) for f in trial_families(trial)]
    label = np.random.default_rng(1000 + seed).permutation(count) % classes
    tested = label[:, None] == np.arange(classes)
    tested = tested[:, 1:] if classes == 2 else tested
    return outcome(compare_families(families, tested, label, seed=seed)[0])


def scan_planted(shortcut: str, count: int, bias: float, seed: int) -> Result:
    """Scan images with a planted shortcut."""
    trial, rows = drawn_rows(count, seed)
    rng = np.random.default_rng(2000 + seed)
    label = np.arange(count) % 2
    mark = np.where(rng.random(count) < bias, label, 1 - label)
    families = pixel_families(plant(trial_images(trial)[rows], mark, shortcut, seed).image)
    return outcome(compare_families(families, (label == 1)[:, None], label, seed=seed)[0])


class Results:
    """Results of scans by key, one per line of a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known: dict[str, Result] = dict(json.loads(line) for line in lines)

    def get(self, scan: Callable[..., Result], *arguments: str | float) -> Result:
        """Return the result of a scan, which is computed if the file lacks it."""
        key = " ".join([scan.__name__.removeprefix("scan_"), *map(str, arguments)])
        if key not in self.known:
            self.known[key] = scan(*arguments)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]


def false_alarms(results: Results, repetitions: int) -> list[str]:
    """Return rows: images, classes, data sets with a small p, data sets with a finding."""
    rows = []
    for count, classes, part in PERMUTED:
        made = round(part * repetitions)
        found = [results.get(scan_permuted, count, classes, seed) for seed in range(made)]
        significant = sum(bool(result["significant"]) for result in found)
        reported = sum(bool(result["predicts"]) for result in found)
        low, high = interval(significant, made)
        rate = f"{significant / made:.1%} [{low:.1%}, {high:.1%}]"
        rows.append(
            f"| {count} | {classes} | {significant} of {made}: {rate} | {reported} of {made} |"
        )
        print(rows[-1], flush=True)
    return rows


def power(results: Results, repetitions: int) -> list[str]:
    """Return rows: shortcut, number of images, share of data sets with a suspect, by bias."""
    rows = []
    for shortcut, count in itertools.product(SHORTCUTS, SIZES):
        shares = []
        for bias in BIASES:
            found = [
                results.get(scan_planted, shortcut, count, bias, seed)
                for seed in range(repetitions)
            ]
            shares.append(sum(bool(result["suspects"]) for result in found) / repetitions)
        rows.append(f"| {shortcut} | {count} | {' | '.join(f'{s:.2f}' for s in shares)} |")
        print(rows[-1], flush=True)
    return rows


def interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of Clopper and Pearson for a share."""
    low, high = clopper_pearson(np.array([count]), np.array([total]), 0.025, 0.025)
    return float(low[0]), float(high[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--power-repetitions", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "scanned")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    started = time.process_time()
    results = Results(given.folder / "results.jsonl")
    alarms = false_alarms(results, given.repetitions)
    found = power(results, given.power_repetitions)
    lines = [
        "| images | classes | data sets with p < 5 % for a property | with a reported property |",
        "|---|---|---|---|",
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
