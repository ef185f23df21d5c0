"""Accuracy with and without channels last, beside the effects of rounding and of the seed.

    python tests/benchmarks/format_noise.py --trials 3 --steps 200

ERM is trained on digits_on_photos in each trial: in the default memory format, with channels last,
and in the default format from initial weights that differ by one part in ten million. The table in
Markdown has the accuracy at the last step on each test split. Its last lines compare the mean
absolute difference to the first column within a trial with the standard deviation over trials.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from tabulate import tabulate

from benchmark.core.counts import accuracy
from benchmark.core.record import read_record
from benchmark.engine.execute import execute
from tests.benchmarks.compile_terms import rounding
from tests.support.runs import plan_run

COLUMNS = ("default", "channels last", "rounding")


def accuracies(root: Path, column: str, trial: int, given: argparse.Namespace) -> dict[str, float]:
    """Return the accuracy of a new run on each test split, in per cent.

    Raises:
        RuntimeError: the run failed.
    """
    folder = plan_run(
        root / column.replace(" ", "_") / str(trial),
        datasets=[given.dataset],
        backbone=given.backbone,
        hparams={"batch_size": given.batch},
        trials=[trial],
        selection=["last"],
        budget={"steps": given.steps, "evaluate_every": given.steps},
        compute={"channels_last": column == "channels last", "explanations": False},
    )
    (folder / "attempts" / "1").mkdir(parents=True)
    with rounding(trial) if column == "rounding" else nullcontext():
        outcome = execute(folder, 1)
    if outcome != "done":
        raise RuntimeError(f"{folder}: {outcome}")
    record = read_record(folder)
    counts = record.selected["last"].counts
    return {split: 100 * accuracy(counts[split]) for split in counts if split != "val"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits_on_photos:places=2,bias=0.95")
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--trials", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            (column, trial): accuracies(Path(folder), column, trial, given)
            for trial in range(given.trials)
            for column in COLUMNS
        }
    splits = list(found[COLUMNS[0], 0])
    rows: list[list[object]] = [
        [split, trial, *(found[column, trial][split] for column in COLUMNS)]
        for split in splits
        for trial in range(given.trials)
    ]
    for split in splits:
        values = {c: [found[c, t][split] for t in range(given.trials)] for c in COLUMNS}
        default = values[COLUMNS[0]]
        apart = [
            statistics.mean(abs(a - b) for a, b in zip(values[c], default, strict=True))
            for c in COLUMNS[1:]
        ]
        spread = statistics.stdev(default) if given.trials > 1 else float("nan")
        rows.append([split, "sd over trials, mean differences", spread, *apart])
    print(
        f"ERM, {given.backbone}, {given.dataset}, {given.steps} steps, torch {torch.__version__}\n"
    )
    print(tabulate(rows, ["split", "trial", *COLUMNS], tablefmt="github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
