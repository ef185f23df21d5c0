"""DomainBed's result folders: its three ways to select a model, its numbers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report.external.foreign_results import (
    Import,
    Picked,
    Score,
    is_before_switch,
    read_lines,
    share,
    text,
    whole,
)

#: Names of the environments, as DomainBed's tables print them.
ENVIRONMENTS = {
    "ColoredMNIST": ("+90%", "+80%", "-90%"),
    "RotatedMNIST": ("0", "15", "30", "45", "60", "75"),
    "VLCS": ("C", "L", "S", "V"),
    "PACS": ("A", "C", "P", "S"),
    "OfficeHome": ("A", "C", "P", "R"),
    "TerraIncognita": ("L100", "L38", "L43", "L46"),
    "DomainNet": ("clip", "info", "paint", "quick", "real", "sketch"),
    "SVIRO": ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
}


@dataclass(frozen=True, slots=True)
class DomainBedRecord:
    """One evaluation: accuracies of every environment on its training part (``inside``) and its held-out fifth.

    ``early``: the method had not begun, as IRM while its penalty waits.
    """

    dataset: str
    algorithm: str
    trial: int
    draw: int
    test: tuple[int, ...]
    step: int
    inside: tuple[float, ...]
    outside: tuple[float, ...]
    early: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model: by which validation accuracy it was chosen, and its test accuracy."""

    validation: float
    test: float
    early: bool


def read(folder: Path) -> Import:
    """A sweep's folder as DomainBed writes it (``*/results.jsonl``).

    Raises:
        UserError: no such folder, or no results in it.
    """
    found = Import("DomainBed")
    records = list(read_lines(folder, "results.jsonl", _record, found))
    size = _sizes(records)
    usual = [record for record in records if len(record.outside) == size[record.dataset]]
    if len(usual) < len(records):
        odd = len(records) - len(usual)
        found.notes.append(f"{odd} records with another number of environments, left out")
    groups: dict[tuple[str, str, int], dict[int, dict[int, list[DomainBedRecord]]]] = {}
    for record in usual:
        for environment in record.test:
            trials = groups.setdefault((record.dataset, record.algorithm, environment), {})
            trials.setdefault(record.trial, {}).setdefault(record.draw, []).append(record)
    for selection, choose in SELECTIONS.items():
        for dataset, algorithm in sorted({key[:2] for key in groups}):
            by_environment = {
                e: _per_trial(groups.get((dataset, algorithm, e), {}), e, choose)
                for e in range(size[dataset])
            }
            found.scores += _scores(dataset, selection, algorithm, by_environment)
    return found


def _sizes(records: Sequence[DomainBedRecord]) -> dict[str, int]:
    """How many environments each data set has: what most of its records say, of equals the larger number."""
    counted: dict[str, Counter[int]] = {}
    for record in records:
        counted.setdefault(record.dataset, Counter())[len(record.outside)] += 1
    return {
        dataset: max(sizes, key=lambda size: (sizes[size], size))
        for dataset, sizes in counted.items()
    }


def _record(value: Mapping[str, Any]) -> Picked[DomainBedRecord]:
    args = value["args"]
    inside: list[float] = []
    outside: list[float] = []
    while f"env{len(outside)}_out_acc" in value:
        outside.append(share(value[f"env{len(outside)}_out_acc"]))
        inside.append(share(value[f"env{len(inside)}_in_acc"]))
    test = tuple(whole(e) for e in args["test_envs"])
    if not test or len(set(test)) < len(test) or not set(test) <= set(range(len(outside))):
        raise ValueError("test_envs are not environments")
    record = DomainBedRecord(
        text(args["dataset"]), text(args["algorithm"]), whole(args["trial_seed"]), whole(args["hparams_seed"]),
        test, whole(value["step"]), tuple(inside), tuple(outside), is_before_switch(value),
    )  # fmt: skip
    return Picked(
        (record.dataset, record.algorithm, record.trial, record.draw, test, record.step), record
    )


Choose = Callable[[Sequence[DomainBedRecord], int], Chosen | None]


def _per_trial(
    trials: Mapping[int, Mapping[int, list[DomainBedRecord]]], environment: int, choose: Choose
) -> dict[int, Chosen]:
    """The draw with the best validation score, by trial (ties: the smallest draw)."""
    found = {}
    for trial, draws in trials.items():
        chosen = [
            best
            for _, records in sorted(draws.items())
            if (best := choose(records, environment)) is not None
        ]
        if chosen:
            found[trial] = max(chosen, key=lambda best: best.validation)
    return found


def _training_domains(records: Sequence[DomainBedRecord], environment: int) -> Chosen | None:
    """Every step of the run that hides ``environment`` alone; validation: held-out parts of the others."""
    found = [
        Chosen(
            statistics.fmean(a for i, a in enumerate(r.outside) if i != environment),
            r.inside[environment],
            r.early,
        )
        for r in records
        if r.test == (environment,) and len(r.outside) > 1
    ]
    return max(found, key=lambda one: one.validation, default=None)


def _leave_one_out(records: Sequence[DomainBedRecord], environment: int) -> Chosen | None:
    """Validation: runs of the same step that hide a second environment too, on that one; all of them must exist."""
    by_step: dict[int, list[DomainBedRecord]] = {}
    for record in records:
        by_step.setdefault(record.step, []).append(record)
    found = []
    for _, group in sorted(by_step.items()):
        alone = [r for r in group if r.test == (environment,)]
        others = {
            next(e for e in r.test if e != environment): r
            for r in group
            if len(r.test) == 2 and environment in r.test
        }
        if others and len(alone) == 1 and len(others) == len(alone[0].outside) - 1:
            validation = statistics.fmean(r.inside[e] for e, r in others.items())
            found.append(Chosen(validation, alone[0].inside[environment], alone[0].early))
    return max(found, key=lambda one: one.validation, default=None)


def _oracle(records: Sequence[DomainBedRecord], environment: int) -> Chosen | None:
    """The last step; validation: the held-out part of the test environment itself."""
    alone = [r for r in records if r.test == (environment,)]
    last = max(alone, key=lambda r: r.step, default=None)
    if last is None:
        return None
    return Chosen(last.outside[environment], last.inside[environment], last.early)


SELECTIONS: Mapping[str, Choose] = {
    "training-domain validation set": _training_domains,
    "leave-one-domain-out cross-validation": _leave_one_out,
    "test-domain validation set (oracle)": _oracle,
}


def _scores(
    dataset: str, selection: str, algorithm: str, by_environment: Mapping[int, Mapping[int, Chosen]]
) -> list[Score]:
    """One score per environment, and their average where every environment has one."""
    names = ENVIRONMENTS.get(dataset, ())
    scores = [
        Score(
            dataset,
            selection,
            algorithm,
            names[e] if e < len(names) else f"env{e}",
            {t: chosen.test for t, chosen in trials.items()},
            _early(trials),
        )
        for e, trials in by_environment.items()
        if trials
    ]
    if len(scores) == len(by_environment):
        shared = sorted(set.union(*(set(trials) for trials in by_environment.values())))
        average = {
            t: statistics.fmean(trials[t].test for trials in by_environment.values() if t in trials)
            for t in shared
        }
        early = frozenset().union(*map(_early, by_environment.values()))
        scores.append(Score(dataset, selection, algorithm, "Avg", average, early))
    return scores


def _early(trials: Mapping[int, Chosen]) -> frozenset[int]:
    return frozenset(trial for trial, chosen in trials.items() if chosen.early)
