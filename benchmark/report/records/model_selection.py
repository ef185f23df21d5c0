"""Model selection: which step, which draw. Validation data decide; a test split is never looked at here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmark.core.counts import accuracy
from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import UserError
from benchmark.core.layout import State
from benchmark.core.registry import did_you_mean
from benchmark.core.summaries import SelectedStep
from benchmark.report.records.sweep_records import Sweep, SweepRun
from benchmark.report.records.switches import chosen_before_switch

#: Reasons that a footnote gives for each state, and unreadable runs that it names.
REASONS, UNREADABLE_RUNS = 3, 10


@dataclass(frozen=True)
class SelectedRun:
    """The best draw of one trial, at the step that ``criterion`` chose. ``of`` counts the draws it was best of."""

    trial: int
    run: SweepRun
    at: SelectedStep
    draw_count: int
    criterion: str

    @property
    def is_before_switch(self) -> bool:
        """Whether the chosen model had not yet made a step of its method (see ``Algorithm.active_from``)."""
        return chosen_before_switch(self.run, self.at)


@dataclass
class Cell:
    """One method on one data set: its winners by trial, and every planned run of it, done or not.

    ``criterion`` chose the selected runs. ``serves`` names, in order, the methods that have these runs upstream.
    """

    dataset: str
    method: str
    requested: bool
    runs: list[SweepRun] = field(default_factory=list)
    selected_runs: list[SelectedRun] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    serves: dict[str, None] = field(default_factory=dict)
    criterion: str = ""


def choose_criterion(sweep: Sweep, asked: str | None) -> str:
    """The criterion of the tables: what was asked for, else the first criterion of most of the requested runs.

    Raises:
        UserError: no such criterion, or no run of the sweep recorded it.
    """
    if asked is not None and asked not in CRITERIA:
        raise UserError(f"unknown criterion {asked!r}{did_you_mean(asked, CRITERIA)}")
    planned: dict[str, None] = {}
    for run in sweep.runs:
        for name in run.spec.selection if run.spec else ():
            planned.setdefault(name)
    recorded = list(planned)
    if asked is None:
        requested = [run for run in sweep.runs if run.requested]
        return _first_criterion(requested or sweep.runs, next(iter(CRITERIA)))
    if recorded and asked not in recorded:
        raise UserError(
            f"no run of {sweep.name} was selected by {asked} ({CRITERIA[asked]}); recorded are: {', '.join(recorded)}. "
            "Add it to `selection` in the sweep file and launch again."
        )
    return asked


def _first_criterion(runs: Iterable[SweepRun], otherwise: str) -> str:
    """The criterion that most of the runs name first; of equals the one that is met first."""
    counted: dict[str, int] = {}
    for run in runs:
        for name in run.spec.selection[:1] if run.spec else ():
            counted[name] = counted.get(name, 0) + 1
    return max(counted, key=lambda name: counted[name], default=otherwise)


def cells_of(sweep: Sweep, criterion: str, *, own: bool = False) -> list[Cell]:
    """Every (data set, method) of the sweep in its order, upstream-only ones last, with the winner of each trial.

    Args:
        criterion: what chooses the step and the draw.
        own: each cell is chosen by the first criterion of its own runs instead, where they name one.

    A run that only serves others is never mixed with requested ones of the same method: a teacher saw other data, a
    warm-up is shorter. Upstream runs that differ in data, network or budget are cells of their own.
    """
    serves: dict[str, dict[str, None]] = {}
    for run in sweep.runs:
        for key in run.spec.upstream.values() if run.spec else ():
            serves.setdefault(key, {})[run.method] = None
    cells: dict[tuple[str, str, str], Cell] = {}
    for run in sweep.runs:
        kind = "" if run.requested else f"upstream {_setting(run)}"
        cell = cells.setdefault(
            (run.dataset, run.method, kind), Cell(run.dataset, run.method, run.requested)
        )
        cell.runs.append(run)
        cell.serves |= serves.get(run.key, {})
    for entry in sweep.refused:
        where = entry.dataset, entry.method
        cell = cells.setdefault((*where, ""), Cell(*where, True))
        if entry.reason not in cell.refusals:
            cell.refusals.append(entry.reason)
    for cell in cells.values():
        cell.criterion = _first_criterion(cell.runs, criterion) if own else criterion
        _select(cell)
    return sorted(cells.values(), key=lambda cell: not cell.requested)


def _setting(run: SweepRun) -> str:
    """What tells upstream runs of one method apart."""
    spec = run.spec
    return (
        ""
        if spec is None
        else json.dumps([spec.dataset_options, spec.backbone, spec.budget], sort_keys=True)
    )


def _select(cell: Cell) -> None:
    """Choose the best draw of each trial, and say what the choice could not see."""
    criterion = cell.criterion
    trials: dict[int, list[SweepRun]] = {}
    without = 0
    for run in cell.runs:
        if run.trial is not None and run.state == State.DONE:
            if criterion in run.selected:
                trials.setdefault(run.trial, []).append(run)
            else:
                without += 1
    if without:
        cell.notes.append(
            f"{without} finished run{'s' if without > 1 else ''} not selected by {criterion}, left out"
        )
    for trial, runs in sorted(trials.items()):
        best = max(runs, key=lambda run: (*rank(run, criterion), -(run.draw or 0)))
        cell.selected_runs.append(
            SelectedRun(trial, best, best.selected[criterion], len(runs), criterion)
        )
    cell.notes += _what_is_missing(cell.runs)


def rank(run: SweepRun, criterion: str) -> tuple[bool, float]:
    """What draws are compared by: first whether the method had begun, then ``quality``."""
    return not chosen_before_switch(run, run.selected[criterion]), quality(run, criterion)


def quality(run: SweepRun, criterion: str) -> float:
    """The criterion's value, and validation accuracy where that is only a step number."""
    at = run.selected[criterion]
    if criterion not in CRITERIA or CRITERIA[criterion].is_quality:
        return float("-inf") if at.value is None else at.value
    counts = at.counts.get("val")
    value = math.nan if counts is None else accuracy(counts)
    return -math.inf if math.isnan(value) else value


def _what_is_missing(runs: Iterable[SweepRun]) -> list[str]:
    """One sentence per state other than done: how many runs, which trials, and the reasons."""
    runs = list(runs)
    notes = []
    for state in dict.fromkeys(run.state for run in runs if run.state != State.DONE):
        mine = [run for run in runs if run.state == state]
        trials = sorted({run.trial for run in mine if run.trial is not None})
        where = (
            f" (trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))})"
            if trials
            else ""
        )
        most = REASONS
        reasons = [run.reason for run in mine if run.reason]
        if state == State.UNREADABLE:  # each is named, so that it can be found
            reasons = [f"{run.key} ({run.reason})" for run in mine]
            most = UNREADABLE_RUNS
        reasons = list(dict.fromkeys(reasons))
        why = ": " + "; ".join(reasons[:most]) if reasons else ""
        more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
        notes.append(f"{len(mine)} of {len(runs)} runs {state}{where}{why}{more}")
    return notes
