"""A plan on disk: sweep.json and one spec.json per run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark.core.errors import DamagedError, UserError
from benchmark.core.files import (
    check_folder,
    commit_once,
    remove_abandoned,
    to_json,
    write_atomic,
)
from benchmark.core.layout import ABANDONED_SECONDS, RunFolder, SweepFolder
from benchmark.core.spec import RunSpec, read_spec
from benchmark.core.sweep_plan import PlannedEntry, Refusal, SweepPlan, read_plan
from benchmark.plan.planner import Plan


@dataclass(frozen=True)
class StoredSweep:
    """A sweep folder's plan as ``launch`` wrote it.

    Attributes:
        folder: of the sweep.
        plan: its runs are in an order in which upstream runs come first.
        damaged: by key, why the plan's entry of a run cannot be used.
        problems: what else is damaged in sweep.json, one sentence each.
    """

    folder: Path
    plan: SweepPlan
    damaged: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def title(self) -> str:
        return self.plan.title

    @property
    def runs(self) -> Mapping[str, PlannedEntry]:
        return self.plan.runs

    @property
    def refused(self) -> tuple[Refusal, ...]:
        return self.plan.refused

    def run_folder(self, key: str) -> Path:
        return SweepFolder(self.folder).run(key).path


def read_stored(folder: Path) -> StoredSweep:
    """The plan of a sweep folder; damaged parts of it are named.

    Raises:
        UserError: there is none, it is of another schema version, or so damaged that no run can be told.
    """
    sweep = SweepFolder(folder)
    try:
        found = read_plan(sweep)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no sweep (no {sweep.plan.name}); expected a folder that "
            "`python -m benchmark.sweep launch` made."
        ) from None
    except DamagedError as error:
        raise DamagedError(
            f"{str(error).removesuffix('.')}; delete it and launch the sweep again, which writes it."
        ) from None
    return StoredSweep(folder, found.plan, found.damaged, found.problems)


def write_plan(plan: Plan, folder: Path) -> list[str]:
    """Store a plan, keeping what an earlier launch of the same sweep planned.

    A run that the new plan replaces (same data, method, trial and draw, other settings) leaves the sweep's list;
    its folder stays.

    Returns:
        The keys of this plan's runs, upstream first.

    Raises:
        UserError: the folder holds another sweep, or something that is no sweep at all; nothing was written.
        OSError: it cannot be written.
    """
    check_folder(folder)
    content, sweep = plan.to_plan(), SweepFolder(folder)
    for path in (sweep.runs, *(sweep.run(key).path for key in plan.runs)):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is not a folder; move it away, and launch again.")
    missing = [
        key for key, run in plan.runs.items() if not _spec_is_whole(sweep.run(key), run.spec)
    ]
    if sweep.plan.exists():
        old = read_stored(folder)
        if old.name != plan.config.name:
            raise UserError(
                f"{folder} holds the sweep {old.name!r}, not {plan.config.name!r}; choose another folder with --output."
            )
        if damaged := [*old.problems, *old.damaged.values()]:
            raise DamagedError(
                f"{sweep.plan} was edited or damaged ({damaged[0].removesuffix('.')}); delete it and launch the sweep "
                "again, which writes it."
            )
        content = _merge(sweep, old.plan, content)
    elif folder.is_dir() and not _only_ours(sweep):
        raise UserError(
            f"{folder} is not empty and holds no sweep; choose another folder with --output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, ABANDONED_SECONDS)
    write_atomic(sweep.plan, to_json(content.to_json()))
    for key in missing:
        run = sweep.run(key)
        run.path.mkdir(parents=True, exist_ok=True)
        commit_once(run.spec, to_json(plan.runs[key].spec.to_json()))
    return list(plan.runs)


def _only_ours(sweep: SweepFolder) -> bool:
    """Whether a folder holds nothing, or the runs of a sweep whose sweep.json was deleted."""
    names = {name for name in os.listdir(sweep.path) if not name.startswith(".")}
    inside = sweep.runs.iterdir() if sweep.runs.is_dir() else ()
    return names <= {sweep.runs.name} and all(RunFolder(path).spec.exists() for path in inside)


def _spec_is_whole(run: RunFolder, spec: RunSpec) -> bool:
    """Whether spec.json is there and says what the plan says."""
    try:
        found = read_spec(run.path)
    except FileNotFoundError:
        return False
    if found != spec:  # two specs with one key: values that JSON writes alike, such as 1.0 and 1
        raise DamagedError(
            f"{run.spec} does not belong to its folder; it was edited: delete that run folder and launch again."
        )
    return True


def _merge(sweep: SweepFolder, old: SweepPlan, new: SweepPlan) -> SweepPlan:
    """The new plan and what it leaves of the old one: rows that it does not replace, and the runs that those need."""
    settled = {run.row for run in new.runs.values() if run.requested}
    settled |= {refusal.row for refusal in new.refused}
    kept: dict[str, PlannedEntry] = {}

    def keep(key: str) -> None:
        if key not in new.runs and key in old.runs and key not in kept:
            for needed in _upstream(sweep.run(key)):
                keep(needed)
            kept[key] = old.runs[key]

    rows = {key: run for key, run in old.runs.items() if run.requested and run.row not in settled}
    for key in rows:
        keep(key)
    return replace(
        new,
        created=old.created or new.created,
        runs={**new.runs, **kept, **{key: run for key, run in rows.items() if key in new.runs}},
        refused=(*new.refused, *(r for r in old.refused if r.row not in settled)),
    )


def _upstream(run: RunFolder) -> list[str]:
    """The keys of the runs that must come before the one in ``run``; none if its spec cannot be read."""
    try:
        return list(read_spec(run.path).upstream.values())
    except (OSError, UserError):
        return []
