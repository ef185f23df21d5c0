"""Read results of DomainBed, with its three selection methods."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.report.external.foreign_results import (
    ForeignResults,
    ParsedLine,
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
    """One evaluation of one run.

    Attributes:
        dataset: Name of the data set.
        algorithm: Name of the algorithm.
        trial: Number of the trial.
        draw: Number of the draw of hyper-parameters.
        test: Hidden environments.
        step: Step of the evaluation.
        inside: Accuracy on the training part of each environment.
        outside: Accuracy on the held-out fifth of each environment.
        early: Whether the method has not begun, as IRM without its full penalty.
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
class SelectedModel:
    """A selected model.

    Attributes:
        validation: Validation accuracy that it was selected by.
        test: Test accuracy.
        early: Whether its method has not begun.
    """

    validation: float
    test: float
    early: bool


def read(folder: Path) -> ForeignResults:
    """Read a sweep that DomainBed wrote, with a ``results.jsonl`` per run.

    Args:
        folder: The folder of the runs.

    Raises:
        UserError: If there is no such folder, or if it has no results.
    """
    results = ForeignResults("DomainBed")
    records = list(read_lines(folder, "results.jsonl", _parse, results))
    size = _sizes(records)
    usual = [record for record in records if len(record.outside) == size[record.dataset]]
    if len(usual) < len(records):
        unusual = len(records) - len(usual)
        results.notes.append(f"{unusual} records with another number of environments, left out")
    groups: dict[tuple[str, str, int], dict[int, dict[int, list[DomainBedRecord]]]] = {}
    for record in usual:
        for environment in record.test:
            trials = groups.setdefault((record.dataset, record.algorithm, environment), {})
            trials.setdefault(record.trial, {}).setdefault(record.draw, []).append(record)
    for selection, select in SELECTIONS.items():
        for dataset, algorithm in sorted({key[:2] for key in groups}):
            by_environment = {
                e: _per_trial(groups.get((dataset, algorithm, e), {}), e, select)
                for e in range(size[dataset])
            }
            results.scores += _scores(dataset, selection, algorithm, by_environment)
    return results


def _sizes(records: Sequence[DomainBedRecord]) -> dict[str, int]:
    """Return the number of environments of each data set: the most common one, then the largest."""
    counted: dict[str, Counter[int]] = {}
    for record in records:
        counted.setdefault(record.dataset, Counter())[len(record.outside)] += 1
    return {
        dataset: max(sizes, key=lambda size: (sizes[size], size))
        for dataset, sizes in counted.items()
    }


def _parse(value: Mapping[str, Any]) -> ParsedLine[DomainBedRecord]:
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
        dataset=text(args["dataset"]),
        algorithm=text(args["algorithm"]),
        trial=whole(args["trial_seed"]),
        draw=whole(args["hparams_seed"]),
        test=test,
        step=whole(value["step"]),
        inside=tuple(inside),
        outside=tuple(outside),
        early=is_before_switch(value),
    )
    return ParsedLine(
        (record.dataset, record.algorithm, record.trial, record.draw, test, record.step), record
    )


#: Selects a step of the runs of one draw, given the test environment.
Selection = Callable[[Sequence[DomainBedRecord], int], SelectedModel | None]


def _per_trial(
    trials: Mapping[int, Mapping[int, list[DomainBedRecord]]], environment: int, select: Selection
) -> dict[int, SelectedModel]:
    """Return the model of the best draw of each trial; of equals, the smallest draw."""
    best = {}
    for trial, draws in trials.items():
        models = [select(records, environment) for _, records in sorted(draws.items())]
        known = [model for model in models if model is not None]
        if known:
            best[trial] = max(known, key=lambda model: model.validation)
    return best


def _training_domains(records: Sequence[DomainBedRecord], environment: int) -> SelectedModel | None:
    """Select a step of the run that hides the environment, on held-out parts of the others."""
    models = [
        SelectedModel(
            statistics.fmean(a for i, a in enumerate(r.outside) if i != environment),
            r.inside[environment],
            r.early,
        )
        for r in records
        if r.test == (environment,) and len(r.outside) > 1
    ]
    return max(models, key=lambda model: model.validation, default=None)


def _leave_one_out(records: Sequence[DomainBedRecord], environment: int) -> SelectedModel | None:
    """Select a step on the second environment of all runs that hide the environment and another."""
    by_step: dict[int, list[DomainBedRecord]] = {}
    for record in records:
        by_step.setdefault(record.step, []).append(record)
    models = []
    for _, group in sorted(by_step.items()):
        alone = [r for r in group if r.test == (environment,)]
        others = {
            next(e for e in r.test if e != environment): r
            for r in group
            if len(r.test) == 2 and environment in r.test
        }
        if others and len(alone) == 1 and len(others) == len(alone[0].outside) - 1:
            validation = statistics.fmean(r.inside[e] for e, r in others.items())
            models.append(SelectedModel(validation, alone[0].inside[environment], alone[0].early))
    return max(models, key=lambda model: model.validation, default=None)


def _oracle(records: Sequence[DomainBedRecord], environment: int) -> SelectedModel | None:
    """Take the last step; draws are compared on the held-out part of the test environment."""
    alone = [r for r in records if r.test == (environment,)]
    last = max(alone, key=lambda r: r.step, default=None)
    if last is None:
        return None
    return SelectedModel(last.outside[environment], last.inside[environment], last.early)


SELECTIONS: Mapping[str, Selection] = {
    "training-domain validation set": _training_domains,
    "leave-one-domain-out cross-validation": _leave_one_out,
    "test-domain validation set (oracle)": _oracle,
}


def _scores(
    dataset: str,
    selection: str,
    algorithm: str,
    by_environment: Mapping[int, Mapping[int, SelectedModel]],
) -> list[Score]:
    """Return a score per environment, and their average if every environment has one."""
    names = ENVIRONMENTS.get(dataset, ())
    scores = [
        Score(
            dataset,
            selection,
            algorithm,
            names[e] if e < len(names) else f"env{e}",
            {trial: model.test for trial, model in trials.items()},
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


def _early(trials: Mapping[int, SelectedModel]) -> frozenset[int]:
    return frozenset(trial for trial, model in trials.items() if model.early)
