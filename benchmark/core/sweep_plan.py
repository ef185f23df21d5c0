"""The plan of a sweep: sweep.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeAlias

from benchmark.core.decode import Count, Json, Key, Matching, Name, Text, Time, decode, field_types
from benchmark.core.errors import DamagedError
from benchmark.core.files import read_json
from benchmark.core.layout import SweepFolder
from benchmark.core.spec import SCHEMA, check_schema
from benchmark.core.text import one_line
from benchmark.core.titles import Titles

#: A name that can also be the name of a file.
FileName: TypeAlias = Annotated[Name, Matching(r"(?!\.{1,2}$)[^/\x00]{1,255}", "a valid file name")]
#: The ``spec_digest`` of a spec.json.
Digest: TypeAlias = Annotated[str, Matching("[0-9a-f]{16}", "16 hexadecimal digits")]
#: Data set, method, trial, draw and explainer of a run.
Row: TypeAlias = tuple[str, str, int | None, int | None, str]
_KEY = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class PlannedEntry:
    """One run of a plan.

    Attributes:
        dataset: Data set as the sweep file writes it.
        method: Method as the sweep file writes it.
        trial: Number of the trial; None if the plan does not contain it.
        draw: Number of the hyper-parameter draw; None if the plan does not contain it.
        requested: True if the sweep asks for the run; False if only another run needs it.
        explainer: Explainer as the sweep file writes it, if the run measures the explanations of a
            model; empty for a run that trains, and then not written to JSON.
        upstream: Keys of the runs that must be done first. A worker thus knows the order of all
            runs from one file. None if the plan does not contain them, as in plans of earlier
            versions; they then stand in spec.json only.
        spec_digest: The ``spec_digest`` of spec.json as planning wrote it, by which ``status``
            sees that the file is unchanged without parsing it. None if the plan does not contain
            it, as in plans of earlier versions.
    """

    dataset: Name
    method: Name
    trial: Count | None = None
    draw: Count | None = None
    requested: bool = True
    explainer: Text = ""
    upstream: tuple[Key, ...] | None = None
    spec_digest: Digest | None = None

    @property
    def label(self) -> str:
        """The method and its data or, for a measurement, also the explainer."""
        model = f"{self.method} on {self.dataset}"
        return f"{self.explainer} of {model}" if self.explainer else model

    @property
    def model_row(self) -> Row:
        """The row of the model itself or, for a measurement, of the model that it explains."""
        return self.dataset, self.method, self.trial, self.draw, ""

    @property
    def row(self) -> Row:
        """What is unique among the requested runs of a plan."""
        return (*self.model_row[:4], self.explainer)


@dataclass(frozen=True)
class Refusal:
    """A run that cannot run.

    Attributes:
        dataset: Data set as the sweep file writes it.
        method: Method as the sweep file writes it.
        trial: Number of the trial.
        draw: Number of the hyper-parameter draw.
        reason: Why it cannot run, in one sentence.
        explainer: As in ``PlannedEntry``.
    """

    dataset: Name
    method: Name
    trial: Count | None = None
    draw: Count | None = None
    reason: Text = "no reason given"
    explainer: Text = ""

    @property
    def row(self) -> Row:
        """Data set, method, trial, draw and explainer."""
        return self.dataset, self.method, self.trial, self.draw, self.explainer


@dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep.

    Attributes:
        name: Name of the sweep, a valid file name.
        title: Title for tables; may be empty.
        created: Time of the first launch, in seconds since 1970.
        selection: Criteria; tables use the first one.
        runs: Runs by key, upstream runs before those that need them.
        refused: Runs that cannot run.
        config: The resolved sweep file.
        titles: Titles of methods, data sets and groups, for tables and figures.
    """

    name: FileName
    title: Text
    created: Time
    selection: tuple[Name, ...]
    runs: Mapping[str, PlannedEntry]
    refused: tuple[Refusal, ...]
    config: Mapping[str, Json] = field(default_factory=dict)
    titles: Titles = field(default_factory=Titles)

    def to_json(self) -> dict[str, Any]:
        """Return the content of sweep.json."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "title": self.title,
            "created": self.created,
            "selection": list(self.selection),
            "runs": {key: _entry_json(entry) for key, entry in self.runs.items()},
            "refused": [_entry_json(refusal) for refusal in self.refused],
            "config": dict(self.config),
            "titles": self.titles.to_json(),
        }


def _entry_json(entry: PlannedEntry | Refusal) -> dict[str, Any]:
    content = asdict(entry)
    if not entry.explainer:
        del content["explainer"]
    for name in ("upstream", "spec_digest"):
        if name in content and content[name] is None:
            del content[name]
    return content


@dataclass(frozen=True)
class ReadPlan:
    """A plan as far as it could be read.

    Attributes:
        plan: The valid parts of the plan.
        damaged: Why the entry of a run cannot be used, by key.
        problems: What else is damaged and was replaced by a default, one sentence each.
    """

    plan: SweepPlan
    damaged: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_plan(sweep: SweepFolder) -> ReadPlan:
    """Read the plan of a sweep. Damaged parts are left out and reported.

    Raises:
        FileNotFoundError: If the folder has no plan.
        UserError: If it has another schema version.
        DamagedError: If it is not JSON or has no table of runs.
    """
    where = sweep.plan.name
    value = read_json(sweep.plan)
    check_schema(value, str(sweep.plan))
    if not isinstance(value.get("runs"), dict):
        raise DamagedError(f"{sweep.plan} was edited or damaged: it has no table of runs.")
    problems: list[str] = []
    content: dict[str, Any] = {
        "name": one_line(sweep.path.name),
        "title": "",
        "created": 0.0,
        "selection": (),
        "refused": (),
        "config": {},
        "titles": Titles(),
    }
    types = field_types(SweepPlan)
    for name in content:
        if name in value:
            try:
                content[name] = decode(types[name], value[name], where, name)
            except DamagedError as error:
                problems.append(str(error))
    runs, damaged = _read_runs(value["runs"], where, problems)
    return ReadPlan(SweepPlan(runs=runs, **content), damaged, tuple(problems))


def _read_runs(
    table: dict[str, Any], where: str, problems: list[str]
) -> tuple[dict[str, PlannedEntry], dict[str, str]]:
    """Return the entries of runs, and why some of them cannot be used, by key."""
    runs: dict[str, PlannedEntry] = {}
    damaged: dict[str, str] = {}
    rows: dict[Row, str] = {}
    invalid = [name for name in table if _KEY.fullmatch(name) is None]
    if invalid:
        shown = ", ".join(one_line(name)[:40] for name in invalid[:3])
        problems.append(f"{where} has {len(invalid)} runs with invalid keys ({shown}).")
    for key in [name for name in table if _KEY.fullmatch(name)]:
        try:
            entry = decode(PlannedEntry, table[key], where, f"runs.{key}")
        except DamagedError as error:
            runs[key] = PlannedEntry("?", "?")
            damaged[key] = str(error)
            continue
        runs[key] = entry
        first = rows.setdefault(entry.row, key) if entry.requested else key
        if first != key and entry.trial is not None:
            damaged[key] = f"{where} lists this run twice, also as {first}."
    return runs, damaged
