"""Model selection: the step and the draw of each trial, chosen on validation data only."""

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

#: Most reasons that a footnote lists for a state.
MAX_REASONS = 3
#: Most unreadable runs that a footnote names.
MAX_UNREADABLE = 10


@dataclass(frozen=True)
class SelectedRun:
    """The best draw of one trial at its selected step.

    Attributes:
        trial: Number of the trial.
        run: The best draw.
        at: The step that the criterion selected.
        draw_count: Number of finished draws that were compared.
        criterion: Selection criterion of step and draw.
    """

    trial: int
    run: SweepRun
    at: SelectedStep
    draw_count: int
    criterion: str

    @property
    def is_before_switch(self) -> bool:
        """True if the step precedes the method's own training (see ``Algorithm.active_from``)."""
        return chosen_before_switch(self.run, self.at)


@dataclass
class Cell:
    """The runs of one method on one data set.

    Attributes:
        dataset: The data set.
        method: The method.
        requested: Whether the sweep asked for the runs; otherwise, only other runs need them.
        runs: All planned runs, finished or not.
        selected_runs: The selected run of each trial.
        refusals: Reasons of planned runs that cannot run.
        notes: What the selection could not use, one sentence each.
        serves: Methods that have these runs upstream, in order.
        criterion: Criterion of the selection.
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
    """Return the selection criterion of the tables.

    Args:
        sweep: The sweep.
        asked: The criterion that the user asks for; None for the first criterion of most of the
            requested runs.

    Raises:
        UserError: If there is no such criterion, or if no run of the sweep recorded it.
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
            f"no run of {sweep.name} was selected by {asked} ({CRITERIA[asked]}); "
            f"recorded are: {', '.join(recorded)}. "
            "Add it to `selection` in the sweep file and launch again."
        )
    return asked


def _first_criterion(runs: Iterable[SweepRun], otherwise: str) -> str:
    """Return the criterion that most runs name first; of equals, the one that is met first."""
    counted: dict[str, int] = {}
    for run in runs:
        for name in run.spec.selection[:1] if run.spec else ():
            counted[name] = counted.get(name, 0) + 1
    return max(counted, key=lambda name: counted[name], default=otherwise)


def cells_of(sweep: Sweep, criterion: str, *, own: bool = False) -> list[Cell]:
    """Return the selected runs of every data set and method.

    Runs that only serve others are not mixed with requested runs of the same method, since a
    teacher sees other data and a warm-up is shorter. Upstream runs that differ in data, network or
    budget are cells of their own.

    Args:
        sweep: The sweep.
        criterion: Criterion that selects the step and the draw.
        own: Whether each cell is selected by the first criterion of its own runs instead, if they
            name one.

    Returns:
        The cells in the order of the sweep, those that were not requested last.
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
        cell = cells.setdefault(
            (entry.dataset, entry.method, ""),
            Cell(entry.dataset, entry.method, requested=True),
        )
        if entry.reason not in cell.refusals:
            cell.refusals.append(entry.reason)
    for cell in cells.values():
        cell.criterion = _first_criterion(cell.runs, criterion) if own else criterion
        _select(cell)
    return sorted(cells.values(), key=lambda cell: not cell.requested)


def _setting(run: SweepRun) -> str:
    """Return a text that differs between upstream runs of different data, network or budget."""
    if run.spec is None:
        return ""
    parts = [run.spec.dataset_options, run.spec.backbone, run.spec.budget]
    return json.dumps(parts, sort_keys=True)


def _select(cell: Cell) -> None:
    """Select the best draw of each trial, and note the runs that could not be compared."""
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
            f"{without} finished run{'s' if without > 1 else ''} not selected by {criterion}, "
            "left out"
        )
    for trial, runs in sorted(trials.items()):
        best = max(runs, key=lambda run: (*rank(run, criterion), -(run.draw or 0)))
        cell.selected_runs.append(
            SelectedRun(trial, best, best.selected[criterion], len(runs), criterion)
        )
    cell.notes += _missing_runs(cell.runs)


def rank(run: SweepRun, criterion: str) -> tuple[bool, float]:
    """Return the rank of a draw: first whether the method had begun, then ``quality``."""
    has_begun = not chosen_before_switch(run, run.selected[criterion])
    return has_begun, quality(run, criterion)


def quality(run: SweepRun, criterion: str) -> float:
    """Return the value of a criterion, or validation accuracy if it measures no quality."""
    at = run.selected[criterion]
    if criterion not in CRITERIA or CRITERIA[criterion].is_quality:
        return float("-inf") if at.value is None else at.value
    counts = at.counts.get("val")
    value = math.nan if counts is None else accuracy(counts)
    return -math.inf if math.isnan(value) else value


def _missing_runs(runs: Iterable[SweepRun]) -> list[str]:
    """Return a note per state other than done, with the number of runs, trials and reasons."""
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
        most = MAX_REASONS
        reasons = [run.reason for run in mine if run.reason]
        if state == State.UNREADABLE:  # name each of them
            reasons = [f"{run.key} ({run.reason})" for run in mine]
            most = MAX_UNREADABLE
        reasons = list(dict.fromkeys(reasons))
        why = ": " + "; ".join(reasons[:most]) if reasons else ""
        more = f"; and {len(reasons) - most} more" if len(reasons) > most else ""
        notes.append(f"{len(mine)} of {len(runs)} runs {state}{where}{why}{more}")
    return notes
