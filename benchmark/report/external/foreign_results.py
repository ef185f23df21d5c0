"""Results of other benchmarks: what their folders have in common, and the tables made of them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmark.core.errors import DamagedError, UserError, shown
from benchmark.core.files import JSON_BYTES, parse_json, read_bytes
from benchmark.core.spec import before_switch
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.results_table import BEFORE_SWITCH
from benchmark.report.tables.sheet import Sheet

R = TypeVar("R")

#: Characters that the name of a data set or method may have.
_NAME = 1000
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
    return before_switch(whole(value["step"]) + 1, max(begins, default=0))


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


class NotANumberError(ValueError):
    """A value that a record cannot do without is NaN, infinite, or no share from 0 to 1."""


def whole(value: Any) -> int:
    """A whole number of a record.

    Raises:
        TypeError: it is anything else, such as a bool, a float or a text.
    """
    if type(value) is not int:
        raise TypeError(f"{shown(value)} is no whole number")
    return value


def text(value: Any) -> str:
    """A name in a record.

    Raises:
        TypeError: it is no text.
        ValueError: it is no text that a table could show.
    """
    if type(value) is not str:
        raise TypeError(f"{shown(value)} is no text")
    if not 0 < len(value) <= _NAME or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{shown(value)} is no name")
    return value


def share(value: Any) -> float:
    """An accuracy, a precision or the like.

    Raises:
        TypeError: it is no number; a bool is none.
        NotANumberError: it is NaN, infinite, or not from 0 to 1.
    """
    if type(value) not in (int, float):
        raise TypeError(f"{shown(value)} is no number")
    if not 0.0 <= value <= 1.0:  # false for NaN
        raise NotANumberError(f"{shown(value)} is not from 0 to 1")
    return float(value)


@dataclass(frozen=True)
class Picked(Generic[R]):
    """What is taken of a line.

    Attributes:
        identity: the run and the step; no two lines have the same.
        record: what is needed.
    """

    identity: Hashable
    record: R


def read_lines(
    folder: Path, name: str, pick: Callable[[Mapping[str, Any]], Picked[R]], found: Import
) -> Iterator[R]:
    """What ``pick`` takes of every line of ``<folder>/*/<name>``; what cannot be used is counted and noted.

    Args:
        folder: holds a folder per run.
        name: of the file in each.
        pick: takes what is needed of a record and lets the rest go; raises NotANumberError where a number cannot be
            used, and KeyError, TypeError or ValueError where something is missing or of the wrong type.
        found: gets the number of records and the notes.

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
    left: Counter[str] = Counter()
    empty = len([entry for entry in folder.iterdir() if entry.is_dir()]) - len(files)
    if empty:
        left[f"folders without {name}"] = empty
    known: dict[Hashable, R] = {}
    for path in files:
        try:
            lines = read_bytes(path, JSON_BYTES).split(b"\n")
        except (OSError, DamagedError):
            left[f"files {name} that cannot be read"] += 1
            continue
        for line in filter(bytes.strip, lines):
            try:
                picked = pick(parse_json(line))
            except DamagedError:
                left["torn lines"] += 1
            except NotANumberError:
                left["records with values that are no numbers from 0 to 1"] += 1
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                left["records without what is needed"] += 1
            else:
                if picked.identity not in known:
                    known[picked.identity] = picked.record
                    found.records += 1
                    yield picked.record
                elif known[picked.identity] == picked.record:
                    left["records that repeat another"] += 1
                else:
                    left["records that contradict an earlier one of the same run and step"] += 1
    found.notes += [f"{count} {what}, left out" for what, count in left.items()]


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
