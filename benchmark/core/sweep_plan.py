"""sweep.json: what a sweep planned, and what it refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeAlias

from benchmark.core.decode import Count, Json, Matching, Name, Text, Time, decode, field_types
from benchmark.core.errors import DamagedError
from benchmark.core.files import read_json
from benchmark.core.layout import SweepFolder
from benchmark.core.spec import SCHEMA, check_schema
from benchmark.core.text import one_line

#: A name that can also be the name of a file.
FileName: TypeAlias = Annotated[
    Name, Matching(r"(?!\.{1,2}$)[^/\x00]{1,255}", "a name that a file could have")
]
_KEY = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class PlannedEntry:
    """One run of a plan, as the tables name it.

    Attributes:
        dataset: as the sweep file writes it.
        method: as the sweep file writes it.
        trial: its number; None where the plan does not tell.
        draw: of the hyper-parameters; None where the plan does not tell.
        requested: whether the sweep asked for it; otherwise only another run needs it.
    """

    dataset: Name
    method: Name
    trial: Count | None = None
    draw: Count | None = None
    requested: bool = True

    @property
    def row(self) -> tuple[str, str, int | None, int | None]:
        """Every requested run of a plan has another one."""
        return self.dataset, self.method, self.trial, self.draw


@dataclass(frozen=True)
class Refusal:
    """A run that a plan refused.

    Attributes:
        dataset: as the sweep file writes it.
        method: as the sweep file writes it.
        trial: its number.
        draw: of the hyper-parameters.
        reason: why it cannot run, in a sentence.
    """

    dataset: Name
    method: Name
    trial: Count | None = None
    draw: Count | None = None
    reason: Text = "no reason given"

    @property
    def row(self) -> tuple[str, str, int | None, int | None]:
        return self.dataset, self.method, self.trial, self.draw


@dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep.

    Attributes:
        name: of the sweep; a file could have it.
        title: for people; may be empty.
        created: seconds since 1970 of the first launch.
        selection: criteria; the first one is that of the tables.
        runs: by key, upstream runs before those that need them.
        refused: what cannot run.
        config: the sweep file, resolved.
    """

    name: FileName
    title: Text
    created: Time
    selection: tuple[Name, ...]
    runs: Mapping[str, PlannedEntry]
    refused: tuple[Refusal, ...]
    config: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of sweep.json."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "title": self.title,
            "created": self.created,
            "selection": list(self.selection),
            "runs": {key: asdict(entry) for key, entry in self.runs.items()},
            "refused": [asdict(refusal) for refusal in self.refused],
            "config": dict(self.config),
        }


@dataclass(frozen=True)
class ReadPlan:
    """A plan as it could be read.

    Attributes:
        plan: what is sound of it.
        damaged: by key, why the entry of a run cannot be used.
        problems: what else is damaged and was replaced by a default, one sentence each.
    """

    plan: SweepPlan
    damaged: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_plan(sweep: SweepFolder) -> ReadPlan:
    """The plan of a sweep; what is damaged of it is left out and named.

    Raises:
        FileNotFoundError: the folder has none.
        UserError: it is of another schema version.
        DamagedError: it is no JSON, or has no table of runs.
    """
    where = sweep.plan.name
    value = read_json(sweep.plan)
    check_schema(value, str(sweep.plan))
    if not isinstance(value.get("runs"), dict):
        raise DamagedError(f"{sweep.plan} was edited or damaged: it has no table of runs.")
    problems: list[str] = []
    found: dict[str, Any] = {
        "name": one_line(sweep.path.name), "title": "", "created": 0.0, "selection": (), "refused": (), "config": {},
    }  # fmt: skip
    types = field_types(SweepPlan)
    for name in found:
        if name in value:
            try:
                found[name] = decode(types[name], value[name], where, name)
            except DamagedError as error:
                problems.append(str(error))
    runs, damaged = _runs(value["runs"], where, problems)
    return ReadPlan(SweepPlan(runs=runs, **found), damaged, tuple(problems))


def _runs(
    table: dict[str, Any], where: str, problems: list[str]
) -> tuple[dict[str, PlannedEntry], dict[str, str]]:
    """The entries of runs, and by key what is wrong with those that cannot be used."""
    runs: dict[str, PlannedEntry] = {}
    damaged: dict[str, str] = {}
    rows: dict[tuple[str, str, int | None, int | None], str] = {}
    strange = [name for name in table if _KEY.fullmatch(name) is None]
    if strange:
        shown = ", ".join(one_line(name)[:40] for name in strange[:3])
        problems.append(
            f"{where} lists {len(strange)} runs under names that are no keys ({shown})."
        )
    for key in [name for name in table if _KEY.fullmatch(name)]:
        try:
            entry = decode(PlannedEntry, table[key], where, f"runs.{key}")
        except DamagedError as error:
            runs[key], damaged[key] = PlannedEntry("?", "?"), str(error)
            continue
        runs[key] = entry
        first = rows.setdefault(entry.row, key) if entry.requested else key
        if first != key and entry.trial is not None:
            damaged[key] = f"{where} lists this run twice, also as {first}."
    return runs, damaged
