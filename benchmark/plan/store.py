"""A plan on disk: sweep.json and one spec.json per run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import commit_once, read_json, to_json, write_atomic
from benchmark.core.record import SPEC
from benchmark.core.spec import RunSpec, check_schema
from benchmark.plan.graph import Plan

SWEEP, RUNS = "sweep.json", "runs"


@dataclass(frozen=True)
class StoredSweep:
    """A sweep folder's plan as ``launch`` wrote it; ``runs`` in an order in which upstream runs come first."""

    folder: Path
    name: str
    title: str
    runs: dict[str, dict[str, Any]]
    refused: list[dict[str, Any]]

    def run_folder(self, key: str) -> Path:
        return self.folder / RUNS / key


def read_stored(folder: Path) -> StoredSweep:
    """The plan of a sweep folder.

    Raises:
        UserError: there is none, it is damaged, or of another schema version.
    """
    path = folder / SWEEP
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no sweep (no {SWEEP}); expected a folder that `python -m benchmark.sweep launch` made."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); launch the sweep again to write it anew.") from None
    check_schema(value, str(path))
    return StoredSweep(folder, value["name"], value["title"], value["runs"], value["refused"])


def write_plan(plan: Plan, folder: Path) -> list[str]:
    """Store a plan, keeping what an earlier launch of the same sweep planned.

    A run that the new plan replaces (same data, method, trial and draw, other settings) leaves the sweep's list;
    its folder stays.

    Returns:
        The keys of this plan's runs, upstream first.

    Raises:
        UserError: the folder holds another sweep, or something that is no sweep at all.
        OSError: it cannot be written.
    """
    content = plan.to_json()
    if (folder / SWEEP).exists():
        old = read_stored(folder)
        if old.name != plan.config.name:
            raise UserError(
                f"{folder} holds the sweep {old.name!r}, not {plan.config.name!r}; choose another folder with --output."
            )
        content = _merge(read_json(folder / SWEEP), content)
    elif folder.is_dir() and any(not name.startswith(".") for name in os.listdir(folder)):
        raise UserError(f"{folder} is not empty and holds no sweep; choose another folder with --output.")
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder with --output.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SWEEP, to_json(content))
    for key, run in plan.runs.items():
        run_folder = folder / RUNS / key
        run_folder.mkdir(parents=True, exist_ok=True)
        if not _spec_is_whole(run_folder, run.spec):
            commit_once(run_folder / SPEC, to_json(run.spec.to_json()))
    return list(plan.runs)


def _spec_is_whole(folder: Path, spec: RunSpec) -> bool:
    """Whether spec.json is there and says what the plan says."""
    path = folder / SPEC
    try:
        found = RunSpec.from_json(read_json(path), str(path))
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete that run folder and launch again.") from None
    if found.key != folder.name or found != spec:
        raise UserError(
            f"{path} does not belong to its folder; it was edited: delete that run folder and launch again."
        )
    return True


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    def slot(run: dict[str, Any]) -> tuple[Any, ...]:
        return run["dataset"], run["method"], run["trial"], run["draw"], run["requested"]

    taken = {slot(run) for run in new["runs"].values()}
    kept = {key: run for key, run in old["runs"].items() if key not in new["runs"] and slot(run) not in taken}
    kept = {key: run for key, run in kept.items() if run["requested"]} | {
        key: run for key, run in kept.items() if not run["requested"]
    }
    settled = {(r["dataset"], r["method"], r["trial"], r["draw"]) for r in [*new["refused"], *new["runs"].values()]}
    refused = [r for r in old["refused"] if (r["dataset"], r["method"], r["trial"], r["draw"]) not in settled]
    runs = {**new["runs"], **kept}
    return {**new, "created": old.get("created", time.time()), "runs": runs, "refused": [*new["refused"], *refused]}
