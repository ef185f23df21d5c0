"""Read results of SubpopBench, with its selection methods and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report.external.foreign_results import (
    ForeignResults,
    NotANumberError,
    ParsedLine,
    Score,
    is_before_switch,
    read_lines,
    share,
    text,
    whole,
)

#: Test split of data sets where it is not ``te``.
_TEST = {"ImagenetBG": "mixed_rand", "Living17": "zs"}
#: Functions that read a metric from the test part of a record, by column.
METRICS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "Avg": lambda r: share(r["overall"]["accuracy"]),
    "Worst": lambda r: share(r["min_group"]["accuracy"]),
    "AvgPrec": lambda r: share(r["overall"]["macro_avg"]["precision"]),
    "WorstPrec": lambda r: _least(r, "precision"),
    "AvgF1": lambda r: share(r["overall"]["macro_avg"]["f1-score"]),
    "WorstF1": lambda r: _least(r, "f1-score"),
    "Adjusted": lambda r: share(r["adjusted_accuracy"]),
    "Balanced": lambda r: share(r["overall"]["balanced_acc"]),
    "AUROC": lambda r: share(r["overall"]["AUROC"]),
    "ECE": lambda r: share(r["overall"]["ECE"]),
}
#: Functions of the validation and the test part of a record that give the value to select by.
SELECTIONS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float]] = {
    "test set worst accuracy (oracle)": lambda va, te: share(te["min_group"]["accuracy"]),
    "validation set worst accuracy (with attributes)": lambda va, te: share(
        va["min_group"]["accuracy"]
    ),
    "validation set worst accuracy (without attributes)": lambda va, te: _least(va, "recall"),
}


def _least(part: Mapping[str, Any], name: str) -> float:
    """Return the smallest score of a class; every class must have a number."""
    return min(share(scores[name]) for scores in part["per_class"].values())


@dataclass(frozen=True, slots=True)
class SubpopBenchRecord:
    """One evaluation of one run.

    Attributes:
        dataset: Name of the data set.
        algorithm: Name of the algorithm.
        seed: Number of the trial.
        draw: Number of the draw of hyper-parameters.
        validation: Value to select by, for each selection that has one.
        test: Metrics that are numbers.
        early: Whether the method has not begun, as IRM without its full penalty.
    """

    dataset: str
    algorithm: str
    seed: int
    draw: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    early: bool


def read(folder: Path) -> ForeignResults:
    """Read a folder that SubpopBench's train.py wrote, with a ``results.json`` per run.

    Evaluations and then draws are selected by the same value; of equals, the earlier. SubpopBench
    selects MIMICNotes and CXRMultisite by AUROC instead, which a note says.

    Args:
        folder: The folder of the runs.

    Raises:
        UserError: If there is no such folder, or if it has no results.
    """
    results = ForeignResults("SubpopBench")
    runs: dict[tuple[str, str, int, int], list[SubpopBenchRecord]] = {}
    for record in read_lines(folder, "results.json", _parse, results):
        run = (record.dataset, record.algorithm, record.seed, record.draw)
        runs.setdefault(run, []).append(record)
    for selection in SELECTIONS:
        best: dict[tuple[str, str], dict[int, SubpopBenchRecord]] = {}
        without = 0
        for (dataset, algorithm, seed, _), records in sorted(runs.items()):
            candidates = [record for record in records if selection in record.validation]
            without += len(records) - len(candidates)
            if not candidates:
                continue
            selected = max(candidates, key=lambda r: r.validation[selection])
            seeds = best.setdefault((dataset, algorithm), {})
            other = seeds.get(seed)
            if other is None or selected.validation[selection] > other.validation[selection]:
                seeds[seed] = selected
        if without:
            results.notes.append(
                f"{without} evaluations have no number to be selected by ({selection}), "
                "left out there"
            )
        for (dataset, algorithm), seeds in best.items():
            for column in METRICS:
                trials = {seed: r.test[column] for seed, r in seeds.items() if column in r.test}
                if trials:
                    early = frozenset(seed for seed in trials if seeds[seed].early)
                    results.scores.append(
                        Score(dataset, selection, algorithm, column, trials, early)
                    )
    by_auroc = sorted({key[0] for key in runs} & {"MIMICNotes", "CXRMultisite"})
    if by_auroc:
        results.notes.append(
            f"SubpopBench selects {' and '.join(by_auroc)} by validation AUROC; "
            "here they are selected as the caption says"
        )
    return results


def _parse(value: Mapping[str, Any]) -> ParsedLine[SubpopBenchRecord]:
    args = value["args"]
    dataset = text(args["dataset"])
    validation = value["va"]
    test = value[_TEST.get(dataset, "te")]
    metrics = {}
    for column, metric in METRICS.items():
        # SubpopBench writes no AUROC if a class is absent, and null for some numbers.
        with suppress(KeyError, TypeError, ValueError):
            metrics[column] = metric(test)
    values = {}
    for name, selection in SELECTIONS.items():
        with suppress(NotANumberError):
            values[name] = selection(validation, test)
    record = SubpopBenchRecord(
        dataset=dataset,
        algorithm=text(args["algorithm"]),
        seed=whole(args["seed"]),
        draw=whole(args["hparams_seed"]),
        validation=values,
        test=metrics,
        early=is_before_switch(value),
    )
    step = whole(value["step"])
    return ParsedLine((dataset, record.algorithm, record.seed, record.draw, step), record)
