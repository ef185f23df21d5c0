"""Read results of other benchmarks, and make tables of them."""

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

#: Most characters of the name of a data set or method.
_MAX_NAME = 1000
#: Hyper-parameters of DomainBed and SubpopBench that hold the first update of a method.
_FIRST_UPDATE = {
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
    """Return whether a model precedes the first update of its method, such as IRM's full penalty.

    Updates are counted from 0, and the record of step s is written after update s.
    SubpopBench's JTT begins after a share of the steps. A record without hyper-parameters counts as
    trained.
    """
    method = value["args"]["algorithm"]
    given = value.get("hparams")
    hparams = {
        name: number
        for name, number in (given.items() if isinstance(given, dict) else ())
        if isinstance(number, int | float) and math.isfinite(number)
    }
    begins = [math.ceil(hparams[name]) for name in _FIRST_UPDATE.get(method, ()) if name in hparams]
    if method == "JTT" and {"first_stage_step_frac", "steps"} <= hparams.keys():
        begins.append(int(hparams["first_stage_step_frac"] * hparams["steps"]))
    return before_switch(whole(value["step"]) + 1, max(begins, default=0))


@dataclass(frozen=True)
class Score:
    """A number of a table.

    Attributes:
        dataset: Data set.
        selection: Selection method.
        method: Method.
        column: Column of the table.
        trials: Value of each trial, a fraction.
        early: Trials whose model was selected before its method began.
    """

    dataset: str
    selection: str
    method: str
    column: str
    trials: Mapping[int, float]
    early: frozenset[int] = frozenset()

    @property
    def mean(self) -> float:
        """Mean over trials."""
        return statistics.fmean(self.trials.values())

    @property
    def error(self) -> float:
        """Standard error as DomainBed prints it: sd with divisor n, over √n; 0 for one trial."""
        return statistics.pstdev(self.trials.values()) / math.sqrt(len(self.trials))


@dataclass
class ForeignResults:
    """Results that were read.

    Attributes:
        source: Name of the benchmark.
        scores: Scores in the order of the tables.
        records: Number of records.
        notes: What could not be used, one sentence each.
    """

    source: str
    scores: list[Score] = field(default_factory=list)
    records: int = 0
    notes: list[str] = field(default_factory=list)


class NotANumberError(ValueError):
    """A required value is NaN, infinite, or not from 0 to 1."""


def whole(value: Any) -> int:
    """Return a whole number of a record.

    Raises:
        TypeError: If it is something else, such as a bool, a float or a string.
    """
    if type(value) is not int:
        raise TypeError(f"{shown(value)} is no whole number")
    return value


def text(value: Any) -> str:
    """Return a name in a record.

    Raises:
        TypeError: If it is no string.
        ValueError: If it is empty, too long, or cannot be encoded.
    """
    if type(value) is not str:
        raise TypeError(f"{shown(value)} is no text")
    if not 0 < len(value) <= _MAX_NAME or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{shown(value)} is no name")
    return value


def share(value: Any) -> float:
    """Return a value such as an accuracy or a precision.

    Raises:
        TypeError: If it is no number, or a bool.
        NotANumberError: If it is NaN, infinite, or not from 0 to 1.
    """
    if type(value) not in (int, float):
        raise TypeError(f"{shown(value)} is no number")
    if not 0.0 <= value <= 1.0:  # also if it is NaN
        raise NotANumberError(f"{shown(value)} is not from 0 to 1")
    return float(value)


@dataclass(frozen=True)
class ParsedLine(Generic[R]):
    """A parsed line of a file of results.

    Attributes:
        identity: Run and step; each line has its own.
        record: The required content.
    """

    identity: Hashable
    record: R


def read_lines(
    folder: Path,
    name: str,
    parse: Callable[[Mapping[str, Any]], ParsedLine[R]],
    results: ForeignResults,
) -> Iterator[R]:
    """Yield the parsed lines of ``<folder>/*/<name>``; lines that cannot be used are counted.

    Args:
        folder: Folder that holds a folder per run.
        name: Name of the file in each of them.
        parse: Parses a line. It raises NotANumberError if a number cannot be used, and KeyError,
            TypeError or ValueError if something is missing or of the wrong type.
        results: Gets the number of records and the notes.

    Raises:
        UserError: If there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; expected one that holds a folder with {name} per run."
        )
    files = sorted(folder.glob(f"*/{name}"))
    if not files:
        raise UserError(
            f"no folder in {folder} holds {name}, "
            f"expected one per run, as {results.source} writes them."
        )
    unused: Counter[str] = Counter()
    empty = sum(entry.is_dir() for entry in folder.iterdir()) - len(files)
    if empty:
        unused[f"folders without {name}"] = empty
    known: dict[Hashable, R] = {}
    for path in files:
        try:
            lines = read_bytes(path, JSON_BYTES).split(b"\n")
        except (OSError, DamagedError):
            unused[f"files {name} that cannot be read"] += 1
            continue
        for line in filter(bytes.strip, lines):
            try:
                parsed = parse(parse_json(line))
            except DamagedError:
                unused["torn lines"] += 1
            except NotANumberError:
                unused["records with values that are no numbers from 0 to 1"] += 1
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                unused["records without what is needed"] += 1
            else:
                if parsed.identity not in known:
                    known[parsed.identity] = parsed.record
                    results.records += 1
                    yield parsed.record
                elif known[parsed.identity] == parsed.record:
                    unused["records that repeat another"] += 1
                else:
                    unused["records that contradict an earlier one of the same run and step"] += 1
    results.notes += [f"{count} {kind}, left out" for kind, count in unused.items()]


def sheets(results: ForeignResults) -> list[Sheet]:
    """Return one sheet per selection method and data set.

    Raises:
        UserError: If there are no scores.
    """
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in results.scores:
        groups.setdefault((score.selection, score.dataset), []).append(score)
    made = [
        _sheet(results, selection, dataset, scores)
        for (selection, dataset), scores in groups.items()
    ]
    if not made:
        raise UserError(
            f"nothing in these {results.source} results can be selected: "
            f"{'; '.join(results.notes) or 'no run'}."
        )
    made[-1].notes += results.notes
    return made


def _sheet(results: ForeignResults, selection: str, dataset: str, scores: Sequence[Score]) -> Sheet:
    columns = list(dict.fromkeys(score.column for score in scores))
    methods = list(dict.fromkeys(score.method for score in scores))
    by_place = {(score.method, score.column): score for score in scores}
    counts = sorted({len(score.trials) for score in scores})
    trials = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    rows = [
        [method, *(_cell(by_place.get((method, column))) for column in columns)]
        for method in methods
    ]
    caption = [
        f"Read from {results.source} ({results.records:,} records). In per cent, mean ± standard "
        f"error over {trials} trials; selection: {selection}."
    ]
    notes = []
    for method in methods:
        early = sorted({trial for s in scores if s.method == method for trial in s.early})
        if early:
            notes.append(
                f"{BEFORE_SWITCH} {method}: selected before the method's own training begins "
                f"(trial{'s' if len(early) > 1 else ''} {', '.join(map(str, early))})"
            )
    heads = [("method",), *((column,) for column in columns)]
    return Sheet(dataset, caption, heads, rows, notes=notes)


def _cell(score: Score | None) -> str:
    if score is None:
        return DASH
    mark = BEFORE_SWITCH if score.early else ""
    return f"{percent(score.mean, 1)} ± {percent(score.error, 1)}{mark}"


def flat_records(results: ForeignResults) -> list[dict[str, Any]]:
    """Return one record per score; values are fractions."""
    return [
        {
            "source": results.source,
            "dataset": s.dataset,
            "selection": s.selection,
            "method": s.method,
            "column": s.column,
            "value": s.mean,
            "standard_error": s.error,
            "trials": len(s.trials),
            "before_switch": sorted(s.early),
        }
        for s in results.scores
    ]
