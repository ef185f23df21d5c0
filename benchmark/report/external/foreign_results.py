"""Results of other benchmarks: what their folders have in common, and the tables made of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import parse_json
from benchmark.core.spec import before_switch
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.results_table import BEFORE_SWITCH
from benchmark.report.tables.sheet import Sheet

#: Hyper-parameters of DomainBed and SubpopBench that hold the update with which a method begins, by its name there.
_BEGINS = {
    "IRM": ("irm_penalty_anneal_iters",),
    "RDM": ("rdm_penalty_anneal_iters",),
    "VREx": ("vrex_penalty_anneal_iters",),
    "Fishr": ("penalty_anneal_iters",),
    "TRM": ("iters",),
    "IB_ERM": ("ib_penalty_anneal_iters",),
    "IB_IRM": ("irm_penalty_anneal_iters", "ib_penalty_anneal_iters"),
    "EQRM": ("eqrm_burnin_iters",),
}


def is_before_switch(value: Mapping[str, Any]) -> bool:
    """Whether a record's model had not yet made an update of its method, such as one with IRM's whole penalty.

    Updates are counted from 0, and the record of step s is written after update s. SubpopBench's JTT begins after a
    share of the steps. A record that does not hold its hyper-parameters tells nothing.
    """
    method, given = value["args"]["algorithm"], value.get("hparams")
    hparams = {
        name: number
        for name, number in (given.items() if isinstance(given, dict) else ())
        if isinstance(number, int | float) and math.isfinite(number)
    }
    begins = [math.ceil(hparams[name]) for name in _BEGINS.get(method, ()) if name in hparams]
    if method == "JTT" and {"first_stage_step_frac", "steps"} <= hparams.keys():
        begins.append(int(hparams["first_stage_step_frac"] * hparams["steps"]))
    return before_switch(int(value["step"]) + 1, max(begins, default=0))


@dataclass(frozen=True)
class Score:
    """One number of a foreign table: its value in every trial that has it, as a fraction.

    ``early`` holds the trials whose model was chosen before its method began.
    """

    dataset: str
    selection: str
    method: str
    column: str
    trials: Mapping[int, float]
    early: frozenset[int] = frozenset()

    @property
    def mean(self) -> float:
        return statistics.fmean(self.trials.values())

    @property
    def error(self) -> float:
        """Standard error as DomainBed and its descendants print it: sd (divisor n) / √n; 0 for one trial."""
        return statistics.pstdev(self.trials.values()) / math.sqrt(len(self.trials))


@dataclass
class Import:
    """What was read: scores in table order, how many records, and what could not be used."""

    source: str
    scores: list[Score] = field(default_factory=list)
    records: int = 0
    notes: list[str] = field(default_factory=list)


def read_lines(
    folder: Path, name: str, pick: Callable[[Mapping[str, Any]], Any], found: Import
) -> Iterator[tuple[str, Any]]:
    """(run folder, what ``pick`` takes of a line) for every line of ``<folder>/*/<name>``; damage is noted.

    Args:
        pick: takes what is needed of a record and lets the rest go; raises KeyError, TypeError or ValueError where the
            record lacks it.

    Raises:
        UserError: no folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; expected one that holds a folder with {name} per run."
        )
    files = sorted(folder.glob(f"*/{name}"))
    if not files:
        raise UserError(
            f"no folder in {folder} holds {name}, expected one per run, as {found.source} writes them."
        )
    empty = len([entry for entry in folder.iterdir() if entry.is_dir()]) - len(files)
    torn = odd = 0
    for path in files:
        for line in path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            try:
                value = parse_json(line)
            except ValueError:
                torn += 1
                continue
            try:
                picked = pick(value)
            except (KeyError, TypeError, ValueError, AttributeError):
                odd += 1
                continue
            found.records += 1
            yield path.parent.name, picked
    for count, what in (
        (empty, f"folders without {name}"),
        (torn, "torn lines"),
        (odd, "records without what is needed"),
    ):
        if count:
            found.notes.append(f"{count} {what}, left out")


def sheets(found: Import) -> list[Sheet]:
    """One sheet per selection method and data set, and one over the data sets where there are several."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in found.scores:
        groups.setdefault((score.selection, score.dataset), []).append(score)
    made = [
        _sheet(found, selection, dataset, scores) for (selection, dataset), scores in groups.items()
    ]
    if not made:
        raise UserError(
            f"nothing in these {found.source} results can be selected: {'; '.join(found.notes) or 'no run'}."
        )
    made[-1].notes += found.notes
    return made


def _sheet(found: Import, selection: str, dataset: str, scores: Sequence[Score]) -> Sheet:
    columns = list(dict.fromkeys(score.column for score in scores))
    methods = list(dict.fromkeys(score.method for score in scores))
    by_place = {(score.method, score.column): score for score in scores}
    trials = sorted({len(score.trials) for score in scores})
    many = str(trials[0]) if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
    rows = [
        [method, *(_cell(by_place.get((method, column))) for column in columns)]
        for method in methods
    ]
    caption = [
        f"Read from {found.source} ({found.records:,} records). In per cent, mean ± standard error over {many} trials; "
        f"selection: {selection}."
    ]
    early = [
        f"{BEFORE_SWITCH} {method}: chosen before the first update at which the method is what its name says "
        f"(trial{'s' if len(found_in) > 1 else ''} {', '.join(map(str, sorted(found_in)))})"
        for method in methods
        if (found_in := {t for score in scores if score.method == method for t in score.early})
    ]
    heads = [("method",), *((column,) for column in columns)]
    return Sheet(dataset, caption, heads, rows, notes=early)


def _cell(score: Score | None) -> str:
    if score is None:
        return DASH
    mark = BEFORE_SWITCH if score.early else ""
    return f"{percent(score.mean, 1)} ± {percent(score.error, 1)}{mark}"


def flat(found: Import) -> list[dict[str, Any]]:
    """Flat records for CSV and JSON; values are fractions."""
    return [
        {
            "source": found.source,
            "dataset": s.dataset,
            "selection": s.selection,
            "method": s.method,
            "column": s.column,
            "value": s.mean,
            "standard_error": s.error,
            "trials": len(s.trials),
            "before_switch": sorted(s.early),
        }
        for s in found.scores
    ]
