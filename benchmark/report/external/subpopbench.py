"""SubpopBench's result folders: its selection methods and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report.external.foreign_results import (
    Import,
    NotANumberError,
    Picked,
    Score,
    is_before_switch,
    read_lines,
    share,
    text,
    whole,
)

#: Test split where it is not ``te``.
_TEST = {"ImagenetBG": "mixed_rand", "Living17": "zs"}
#: Column -> where a record has it.
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
#: Selection -> the validation value of a record, given its validation and its test part.
SELECTIONS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], float]] = {
    "test set worst accuracy (oracle)": lambda va, te: share(te["min_group"]["accuracy"]),
    "validation set worst accuracy (with attributes)": lambda va, te: share(
        va["min_group"]["accuracy"]
    ),
    "validation set worst accuracy (without attributes)": lambda va, te: _least(va, "recall"),
}


def _least(part: Mapping[str, Any], name: str) -> float:
    """The smallest score of a class; every class must have one, since NaN is neither smaller nor larger."""
    return min(share(scores[name]) for scores in part["per_class"].values())


@dataclass(frozen=True, slots=True)
class SubpopBenchRecord:
    """One evaluation of one run.

    Attributes:
        dataset: its name.
        algorithm: its name.
        seed: the trial.
        draw: of the hyper-parameters.
        validation: the value of every selection for which there is a number.
        test: the metrics that are numbers.
        early: whether the method had not begun, as IRM while its penalty waits.
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
    runs: dict[tuple[str, str, int, int], list[SubpopBenchRecord]] = {}
    for record in read_lines(folder, "results.json", _record, found):
        runs.setdefault((record.dataset, record.algorithm, record.seed, record.draw), []).append(
            record
        )
    for selection in SELECTIONS:
        best: dict[tuple[str, str], dict[int, SubpopBenchRecord]] = {}
        without = 0
        for (dataset, algorithm, seed, _), records in sorted(runs.items()):
            able = [record for record in records if selection in record.validation]
            without += len(records) - len(able)
            if not able:
                continue
            selected_run = max(able, key=lambda r: r.validation[selection])
            seeds = best.setdefault((dataset, algorithm), {})
            if (
                seed not in seeds
                or selected_run.validation[selection] > seeds[seed].validation[selection]
            ):
                seeds[seed] = selected_run
        if without:
            found.notes.append(
                f"{without} evaluations have no number to be selected by ({selection}), left out there"
            )
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


def _record(value: Mapping[str, Any]) -> Picked[SubpopBenchRecord]:
    args = value["args"]
    dataset, algorithm = text(args["dataset"]), text(args["algorithm"])
    validation, test = value["va"], value[_TEST.get(dataset, "te")]
    metrics = {}
    for column, take in METRICS.items():
        # SubpopBench writes no AUROC where a class is absent, and calls some numbers null
        with suppress(KeyError, TypeError, ValueError):
            metrics[column] = take(test)
    values = {}
    for name, choose in SELECTIONS.items():
        with suppress(NotANumberError):  # such a value never wins
            values[name] = choose(validation, test)
    seed, draw = whole(args["seed"]), whole(args["hparams_seed"])
    early = is_before_switch(value)
    record = SubpopBenchRecord(dataset, algorithm, seed, draw, values, metrics, early)
    return Picked((dataset, algorithm, seed, draw, whole(value["step"])), record)
