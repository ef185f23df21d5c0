"""SubpopBench's result folders: its selection methods and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report.external.foreign_results import (
    Import,
    Score,
    is_before_switch,
    read_lines,
)

#: Test split where it is not ``te``.
_TEST = {"ImagenetBG": "mixed_rand", "Living17": "zs"}
#: Column -> where a record has it.
METRICS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "Avg": lambda r: r["overall"]["accuracy"],
    "Worst": lambda r: r["min_group"]["accuracy"],
    "AvgPrec": lambda r: r["overall"]["macro_avg"]["precision"],
    "WorstPrec": lambda r: min(c["precision"] for c in r["per_class"].values()),
    "AvgF1": lambda r: r["overall"]["macro_avg"]["f1-score"],
    "WorstF1": lambda r: min(c["f1-score"] for c in r["per_class"].values()),
    "Adjusted": lambda r: r["adjusted_accuracy"],
    "Balanced": lambda r: r["overall"]["balanced_acc"],
    "AUROC": lambda r: r["overall"]["AUROC"],
    "ECE": lambda r: r["overall"]["ECE"],
}
#: Selection -> the validation value of a record, given its validation and its test part.
SELECTIONS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float]] = {
    "test set worst accuracy (oracle)": lambda va, te: float(te["min_group"]["accuracy"]),
    "validation set worst accuracy (with attributes)": lambda va, te: float(
        va["min_group"]["accuracy"]
    ),
    "validation set worst accuracy (without attributes)": lambda va, te: min(
        float(c["recall"]) for c in va["per_class"].values()
    ),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluation of one run: the value of every selection, and the test metrics that are numbers.

    ``early``: the method had not begun, as IRM while its penalty waits.
    """

    dataset: str
    algorithm: str
    seed: int
    draw: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    early: bool


def read(folder: Path) -> Import:
    """A folder as SubpopBench's train.py fills it (``*/results.json``, one record per line).

    Selection is over evaluations, then over draws, by the same value; ties go to the earlier. Two of its data sets
    (MIMICNotes, CXRMultisite) it selects by AUROC instead; here every data set is selected alike, which a note says.

    Raises:
        UserError: no such folder, or no results in it.
    """
    found = Import("SubpopBench")
    runs: dict[tuple[str, str, int, int], list[Record]] = {}
    for _, record in read_lines(folder, "results.json", _record, found):
        runs.setdefault((record.dataset, record.algorithm, record.seed, record.draw), []).append(
            record
        )
    for selection in SELECTIONS:
        best: dict[tuple[str, str], dict[int, Record]] = {}
        for (dataset, algorithm, seed, _), records in sorted(runs.items()):
            winner = max(records, key=lambda r: r.validation[selection])
            seeds = best.setdefault((dataset, algorithm), {})
            if (
                seed not in seeds
                or winner.validation[selection] > seeds[seed].validation[selection]
            ):
                seeds[seed] = winner
        for (dataset, algorithm), seeds in best.items():
            for column in METRICS:
                trials = {seed: r.test[column] for seed, r in seeds.items() if column in r.test}
                if trials:
                    early = frozenset(seed for seed in trials if seeds[seed].early)
                    found.scores.append(Score(dataset, selection, algorithm, column, trials, early))
    odd = sorted({key[0] for key in runs} & {"MIMICNotes", "CXRMultisite"})
    if odd:
        found.notes.append(
            f"SubpopBench selects {' and '.join(odd)} by validation AUROC; here they are selected as said"
        )
    return found


def _record(value: Mapping[str, Any]) -> Record:
    args = value["args"]
    dataset = str(args["dataset"])
    validation, test = value["va"], value[_TEST.get(dataset, "te")]
    metrics = {}
    for column, take in METRICS.items():
        try:
            number = float(take(test))
        except (KeyError, TypeError, ValueError):
            continue  # SubpopBench writes no AUROC where a class is absent, and calls some numbers null
        if math.isfinite(number):
            metrics[column] = number
    return Record(
        dataset, str(args["algorithm"]), int(args["seed"]), int(args["hparams_seed"]),
        {name: choose(validation, test) for name, choose in SELECTIONS.items()}, metrics,
        is_before_switch(value),
    )  # fmt: skip
