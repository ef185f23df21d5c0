"""The plan of a sweep on disk: sweep.json and one spec.json per run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import DamagedError, UserError
from benchmark.core.files import (
    check_folder,
    commit_once,
    remove_abandoned,
    to_json,
    write_atomic,
)
from benchmark.core.layout import ABANDONED_SECONDS, RunFolder, SweepFolder
from benchmark.core.spec import RunSpec, read_spec, spec_bytes
from benchmark.core.sweep_plan import PlannedEntry, Refusal, SweepPlan, read_plan

if TYPE_CHECKING:
    from benchmark.plan.planner import Plan


@dataclass(frozen=True)
class StoredSweep:
    """The plan of a sweep folder, as ``launch`` wrote it.

    Attributes:
        folder: Folder of the sweep.
        plan: The plan. Its upstream runs stand before those that need them.
        damaged: Why the entry of a run cannot be used, by key.
        problems: What else is damaged in sweep.json, one sentence each.
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
    """Read the plan of a sweep folder. Damaged parts are reported.

    Raises:
        UserError: If there is no plan, if it has another schema version, or if it is too damaged to
            list runs.
    """
    sweep = SweepFolder(folder)
    try:
        found = read_plan(sweep)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no sweep (no {sweep.plan.name}), expected a folder made by "
            "`python -m benchmark.sweep launch`."
        ) from None
    except DamagedError as error:
        raise DamagedError(
            f"{str(error).removesuffix('.')}; delete it and launch the sweep again."
        ) from None
    return StoredSweep(folder, found.plan, found.damaged, found.problems)


def write_plan(plan: Plan, folder: Path) -> list[str]:
    """Store a plan and keep what an earlier launch of the same sweep planned.

    A run that the new plan replaces (same data, method, trial and draw, but other settings) is
    removed from the plan; its folder is kept.

    Args:
        plan: The plan.
        folder: Folder of the sweep.

    Returns:
        The keys of the runs of this plan, upstream runs first.

    Raises:
        UserError: If the folder holds another sweep, or other files. Nothing is then written.
        OSError: If the plan cannot be written.
    """
    check_folder(folder)
    content = plan.to_plan()
    sweep = SweepFolder(folder)
    for path in (sweep.runs, *(sweep.run(key).path for key in plan.runs)):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is not a folder; move it away, and launch again.")
    missing = [key for key, run in plan.runs.items() if not _has_spec(sweep.run(key), run.spec)]
    if sweep.plan.exists():
        old = read_stored(folder)
        if old.name != plan.config.name:
            raise UserError(
                f"{folder} holds the sweep {old.name!r}, not {plan.config.name!r}; "
                "choose another folder with --output."
            )
        if damaged := [*old.problems, *old.damaged.values()]:
            raise DamagedError(
                f"{sweep.plan} was edited or damaged ({damaged[0].removesuffix('.')}); "
                "delete it and launch the sweep again."
            )
        content = _merge(sweep, old.plan, content)
    elif folder.is_dir() and not _is_empty_or_runs(sweep):
        raise UserError(
            f"{folder} is not empty and holds no sweep; choose another folder with --output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, ABANDONED_SECONDS)
    write_atomic(sweep.plan, to_json(content.to_json()))
    for key in missing:
        run = sweep.run(key)
        run.path.mkdir(parents=True, exist_ok=True)
        commit_once(run.spec, spec_bytes(plan.runs[key].spec))
    return list(plan.runs)


def _is_empty_or_runs(sweep: SweepFolder) -> bool:
    """Return True if a folder is empty or holds only the runs of a sweep without sweep.json.

    Workers of the sweep may have left their files, too.
    """
    names = {name for name in os.listdir(sweep.path) if not name.startswith(".")}
    folders = sweep.runs.iterdir() if sweep.runs.is_dir() else ()
    known = {sweep.runs.name, sweep.done.name, sweep.workers.name}
    return names <= known and all(RunFolder(path).spec.exists() for path in folders)


def _has_spec(run: RunFolder, spec: RunSpec) -> bool:
    """Return True if the folder of a run has the planned spec."""
    try:
        found = read_spec(run.path)
    except FileNotFoundError:
        return False
    if found != spec:  # Values that differ although JSON writes them alike, such as 1.0 and 1.
        raise DamagedError(
            f"{run.spec} does not belong to its folder; it was edited. "
            "Delete that run folder and launch again."
        )
    return True


def _merge(sweep: SweepFolder, old: SweepPlan, new: SweepPlan) -> SweepPlan:
    """Return the new plan with the rows of the old one that it does not replace.

    The runs that these rows need are kept as well.
    """
    replaced = {run.row for run in new.runs.values() if run.requested}
    replaced |= {refusal.row for refusal in new.refused}

    def is_replaced(key: str, run: PlannedEntry) -> bool:
        if run.row in replaced:
            return True
        # A measurement is of a model. Of one with other settings it is no longer of interest.
        return (
            bool(run.explainer)
            and run.model_row in replaced
            and not any(needed in new.runs for needed in _upstream(sweep.run(key)))
        )

    kept: dict[str, PlannedEntry] = {}

    def keep(key: str) -> None:
        if key not in new.runs and key in old.runs and key not in kept:
            for needed in _upstream(sweep.run(key)):
                keep(needed)
            kept[key] = old.runs[key]

    old_rows = {
        key: run for key, run in old.runs.items() if run.requested and not is_replaced(key, run)
    }
    for key in old_rows:
        keep(key)
    still_requested = {key: run for key, run in old_rows.items() if key in new.runs}
    old_refused = tuple(refusal for refusal in old.refused if refusal.row not in replaced)
    return replace(
        new,
        created=old.created or new.created,
        runs={**new.runs, **kept, **still_requested},
        refused=new.refused + old_refused,
        config=_merged_config(old.config, new.config) if old_rows else new.config,
        titles=new.titles.merged(old.titles),
    )


def _merged_config(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a launch that added to a sweep, with what was there before."""
    merged = dict(new)
    for name in ("datasets", "algorithms", "trials", "draws"):
        before = old.get(name)
        after = new.get(name)
        if isinstance(before, list | tuple) and isinstance(after, list | tuple):
            together = list(dict.fromkeys([*before, *after]))
            is_numbers = all(isinstance(value, int) for value in together)
            merged[name] = sorted(together) if is_numbers else together
    return merged


def _upstream(run: RunFolder) -> list[str]:
    """Return the keys of the upstream runs of a run; none if its spec cannot be read."""
    try:
        return list(read_spec(run.path).upstream.values())
    except (OSError, UserError):
        return []
