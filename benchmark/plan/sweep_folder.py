"""A plan on disk: sweep.json and one spec.json per run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import (
    check_folder,
    commit_once,
    read_json,
    remove_abandoned,
    to_json,
    write_atomic,
)
from benchmark.core.layout import ABANDONED_SECONDS, RunFolder, SweepFolder
from benchmark.core.spec import RunSpec, check_schema
from benchmark.plan.planner import Plan


@dataclass(frozen=True)
class StoredSweep:
    """A sweep folder's plan as ``launch`` wrote it; ``runs`` in an order in which upstream runs come first."""

    folder: Path
    name: str
    title: str
    runs: dict[str, dict[str, Any]]
    refused: list[dict[str, Any]]

    def run_folder(self, key: str) -> Path:
        return SweepFolder(self.folder).run(key).path


def read_stored(folder: Path) -> StoredSweep:
    """The plan of a sweep folder.

    Raises:
        UserError: there is none, it is damaged, or of another schema version.
    """
    path = SweepFolder(folder).plan
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no sweep (no {path.name}); expected a folder that `python -m benchmark.sweep launch` made."
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); delete it and launch the sweep again to write it anew."
        ) from None
    check_schema(value, str(path))
    wanted = {"name": str, "title": str, "runs": dict, "refused": list}
    if not all(isinstance(value.get(name), kind) for name, kind in wanted.items()):
        raise UserError(
            f"{path} was edited or damaged; delete it and launch the sweep again to write it anew."
        )
    return StoredSweep(folder, value["name"], value["title"], value["runs"], value["refused"])


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
    content, sweep = plan.to_json(), SweepFolder(folder)
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
        content = _merge(sweep, read_json(sweep.plan), content)
    elif folder.is_dir() and not _only_ours(sweep):
        raise UserError(
            f"{folder} is not empty and holds no sweep; choose another folder with --output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder, ABANDONED_SECONDS)
    write_atomic(sweep.plan, to_json(content))
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
    path = run.spec
    try:
        found = RunSpec.from_json(read_json(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}); delete that run folder and launch again."
        ) from None
    if found.key != run.key or found != spec:
        raise UserError(
            f"{path} does not belong to its folder; it was edited: delete that run folder and launch again."
        )
    return True


def _merge(sweep: SweepFolder, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new plan and what it leaves of the old one: rows that it does not replace, and the runs that those need."""

    def row(run: dict[str, Any]) -> tuple[Any, ...]:
        return run["dataset"], run["method"], run["trial"], run["draw"]

    settled = {row(run) for run in new["runs"].values() if run["requested"]} | {
        row(r) for r in new["refused"]
    }
    kept: dict[str, dict[str, Any]] = {}

    def keep(key: str) -> None:
        if key not in new["runs"] and key in old["runs"] and key not in kept:
            for needed in _upstream(sweep.run(key)):
                keep(needed)
            kept[key] = old["runs"][key]

    rows = {
        key: run for key, run in old["runs"].items() if run["requested"] and row(run) not in settled
    }
    for key in rows:
        keep(key)
    runs = {**new["runs"], **kept, **{key: run for key, run in rows.items() if key in new["runs"]}}
    refused = [r for r in old["refused"] if row(r) not in settled]
    return {
        **new,
        "created": old.get("created", time.time()),
        "runs": runs,
        "refused": [*new["refused"], *refused],
    }


def _upstream(run: RunFolder) -> list[str]:
    """The keys of the runs that must come before the one in ``run``; none if its spec cannot be read."""
    try:
        return list(RunSpec.from_json(read_json(run.spec)).upstream.values())
    except (OSError, ValueError, UserError):
        return []
