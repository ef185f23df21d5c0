"""A sweep's folder, read: what was planned, what each run's state is, and what the finished ones found."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.layout import RunFolder, State, SweepFolder, newest_sweep, state_of
from benchmark.core.record import RunRecord
from benchmark.core.spec import RunSpec, check_schema

#: A record.json that exists but cannot be used: torn, edited, or of another schema version.
UNREADABLE = "unreadable"


@dataclass(slots=True)
class Selected:
    """A run at the step that one criterion chose: ``counts`` per split, unsigned [confounder, label, predicted]."""

    step: int
    value: float | None
    counts: dict[str, np.ndarray]


@dataclass(slots=True)
class Run:
    """One planned run. ``state`` is a ``State`` or ``unreadable``; ``reason`` says why there is no result.

    ``record`` is None unless the run is done; its ``selected`` is empty, because the counts live in ``selected`` here.
    ``trial`` and ``draw`` are None where no spec.json tells them.
    """

    key: str
    dataset: str
    method: str
    requested: bool
    folder: RunFolder
    state: str = State.PENDING
    reason: str = ""
    trial: int | None = None
    draw: int | None = None
    spec: RunSpec | None = None
    record: RunRecord | None = None
    selected: dict[str, Selected] = field(default_factory=dict)


@dataclass
class Sweep:
    """Everything that the report is made from.

    Attributes:
        refused: planned cells that cannot run, ``{"dataset", "method", "trial", "draw", "reason"}``.
        notes: what a reader must know of the folder itself, one sentence each.
    """

    folder: Path
    name: str
    title: str
    created: float
    runs: list[Run]
    refused: list[Mapping[str, Any]]
    config: Mapping[str, Any]
    notes: list[str]

    def states(self) -> dict[str, int]:
        """How many runs are in each state, done first."""
        counted: dict[str, int] = {}
        for run in self.runs:
            counted[run.state] = counted.get(run.state, 0) + 1
        return dict(sorted(counted.items(), key=lambda item: (item[0] != State.DONE, item[0])))

    def criteria(self) -> list[str]:
        """The criteria that finished runs were selected by, in the order in which the specs name them."""
        found: dict[str, None] = {}
        for run in self.runs:
            for name in run.selected:
                found.setdefault(name)
        return list(found)


def find_sweep(given: str | None, root: Path = Path("results")) -> Path:
    """The sweep folder that a command line means: a path, a name under ``root``, or without either the newest one.

    Raises:
        UserError: there is none.
    """
    if given is None:
        newest = newest_sweep(root)
        if newest is None:
            raise UserError(
                f"there is no sweep under {root}/; run `python -m benchmark.sweep launch` or name a folder."
            )
        return newest.path
    for folder in (Path(given), root / given):
        if SweepFolder(folder).exists():
            return folder
    folder = Path(given)
    run = RunFolder(folder.absolute())  # `resolve` fails on links in a circle
    if run.record.exists() or run.spec.exists():
        raise UserError(
            f"{folder} is the folder of one run, expected the folder of its sweep: {run.sweep.path}."
        )
    if folder.is_dir():
        newest = newest_sweep(folder)
        if newest is not None:
            return newest.path
        raise UserError(_no_sweep(SweepFolder(folder)))
    raise UserError(f"there is no folder {given} and no sweep {root / given}; see `ls {root}`.")


def load_sweep(folder: Path, keep: str | None = None) -> Sweep:
    """Read a sweep's folder without changing it.

    Args:
        folder: ``results/<sweep>``.
        keep: the one criterion whose counts are kept in memory; None keeps all that the runs have.

    A damaged piece never stops the rest: it is named in ``Sweep.notes`` or in its run's ``reason``.

    Raises:
        UserError: no sweep here, or its sweep.json is of another schema version.
    """
    stored = SweepFolder(folder)
    if not stored.exists():
        raise UserError(_no_sweep(stored))
    plan, notes = _read_plan(stored)
    runs = [_planned(stored, key, entry) for key, entry in plan["runs"].items()]
    with _collector_paused():
        shared: dict[tuple[str, str], Any] = {}
        for run in runs:
            _read_run(run, keep, shared)
    _block(runs)
    notes += _strangers(stored, {run.key for run in runs})
    return Sweep(
        folder,
        str(plan.get("name", folder.name)),
        str(plan.get("title") or plan.get("name", folder.name)),
        float(plan.get("created") or 0.0),
        runs,
        list(plan.get("refused", [])),
        plan.get("config", {}),
        notes,
    )


def _no_sweep(sweep: SweepFolder) -> str:
    return (
        f"{sweep.path} holds neither {sweep.plan.name} nor {sweep.runs.name}/, "
        "expected the folder of a sweep."
    )


def _read_plan(sweep: SweepFolder) -> tuple[dict[str, Any], list[str]]:
    """sweep.json, or what the run folders let us conclude where it is missing or torn."""
    try:
        plan = read_json(sweep.plan)
    except FileNotFoundError:
        why = "is missing"
    except ValueError as error:
        why = f"is damaged ({error})"
    else:
        check_schema(plan, str(sweep.plan))
        if isinstance(plan.get("runs"), dict) and all(
            isinstance(entry, dict) for entry in plan["runs"].values()
        ):
            return plan, []
        why = "has no table of runs"
    note = (
        f"{sweep.plan.name} {why}: runs are those found in {sweep.runs.name}/, "
        "and planned runs that never started are not counted."
    )
    return {"runs": _runs_from_folders(sweep)}, [note]


def _planned(sweep: SweepFolder, key: str, entry: Mapping[str, Any]) -> Run:
    trial, draw = entry.get("trial"), entry.get("draw")
    return Run(
        key,
        str(entry.get("dataset", "?")),
        str(entry.get("method", "?")),
        bool(entry.get("requested", True)),
        sweep.run(key),
        trial=trial if isinstance(trial, int) else None,
        draw=draw if isinstance(draw, int) else None,
    )


def _runs_from_folders(sweep: SweepFolder) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    upstream: set[str] = set()
    for name in sweep.run_names():
        try:
            spec = RunSpec.from_json(read_json(sweep.run(name).spec))
        except (OSError, ValueError, UserError):
            continue
        options = ",".join(
            f"{option}={value}" for option, value in sorted(spec.dataset_options.items())
        )
        found[name] = {
            "dataset": f"{spec.dataset}:{options}" if options else spec.dataset,
            "method": spec.method,
        }
        upstream |= set(spec.upstream.values())
    return {name: {**entry, "requested": name not in upstream} for name, entry in found.items()}


def _read_run(run: Run, keep: str | None, shared: dict[tuple[str, str], Any]) -> None:
    run.state = state_of(run.folder.path)
    if run.state == State.DONE:
        try:
            run.record, run.selected = _read_record(run, keep, shared)
            run.spec = run.record.spec
        except UserError as error:
            run.state, run.reason = UNREADABLE, str(error)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            run.state, run.reason = (
                UNREADABLE,
                f"{run.folder.record.name} is damaged ({type(error).__name__}: {error})",
            )
    elif run.state == State.FAILED:
        run.reason = _failure(run.folder)
    if run.spec is None:
        try:
            run.spec = RunSpec.from_json(read_json(run.folder.spec))
        except (OSError, ValueError, TypeError, UserError):
            return
    run.trial, run.draw = run.spec.trial, run.spec.draw


def _read_record(
    run: Run, keep: str | None, shared: dict[tuple[str, str], Any]
) -> tuple[RunRecord, dict[str, Selected]]:
    value = read_json(run.folder.record)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON table")
    selected = value.get("selected")
    value["selected"] = {}
    for name in ("data", "method", "machine"):  # the same for hundreds of runs: hold one copy
        known = shared.setdefault(
            (name, run.dataset if name == "data" else run.method), value.get(name)
        )
        if known == value.get(name):
            value[name] = known
    for entry in value["upstream"].values():  # their counts are in their own records
        entry.pop("selected", None)
    record = RunRecord.from_json(value)
    if not isinstance(selected, dict) or not selected:
        raise ValueError("it holds no selected step")
    classes = len(record.data["label_names"])
    shape = (classes, -1, 2, 2) if record.data.get("multi_label") else (-1, classes, classes)
    chosen = (
        selected
        if keep is None
        else {name: entry for name, entry in selected.items() if name == keep}
    )
    return record, {name: _selected(entry, shape) for name, entry in chosen.items()}


def _selected(entry: Mapping[str, Any], shape: tuple[int, ...]) -> Selected:
    value = entry["value"]
    finite = isinstance(value, int | float) and math.isfinite(value)
    counts = {
        split: _counts(content["counts"], split, shape)
        for split, content in entry["splits"].items()
    }
    return Selected(int(entry["step"]), float(value) if finite else None, counts)


def _counts(nested: Any, split: str, shape: tuple[int, ...]) -> np.ndarray:
    """Confusion counts as the smallest unsigned type that holds them: a sweep has thousands of these tables.

    Args:
        shape: what is expected; -1 stands for the number of confounders.
    """
    array = np.asarray(nested)
    fits = array.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "i":
        found = f"{array.dtype}{list(array.shape)}"
        wanted = ", ".join("confounder" if n < 0 else str(n) for n in shape)
        raise ValueError(f"counts of {split} are {found}, expected whole numbers [{wanted}]")
    if array.size and array.min() < 0:
        raise ValueError(f"counts of {split} hold a negative number")
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))


def _failure(folder: RunFolder) -> str:
    """Why a run failed, in one line."""
    try:
        failure = read_json(folder.failure)
        message = " ".join(str(failure["message"]).split())
        return f"{failure['kind'].replace('_', ' ')}: {message}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{folder.failure.name} is damaged"


def _block(runs: list[Run]) -> None:
    """Unfinished runs whose upstream failed, or is itself blocked, will never start."""
    by_key = {run.key: run for run in runs}
    changed = True
    while changed:
        changed = False
        for run in runs:
            if run.spec is None or run.state not in (State.PENDING, State.LOST):
                continue
            for role, key in run.spec.upstream.items():
                before = by_key.get(key)
                if before is not None and before.state in (State.FAILED, State.BLOCKED, UNREADABLE):
                    run.state, run.reason = (
                        State.BLOCKED,
                        f"its {role} {before.state} ({before.reason})",
                    )
                    changed = True
                    break


def _strangers(sweep: SweepFolder, planned: set[str]) -> list[str]:
    if not sweep.runs.is_dir():
        return [f"{sweep.runs.name}/ is missing or cannot be read: no run has started."]
    left = len(set(sweep.run_names()) - planned)
    if not left:
        return []
    folders = f"{left} folder{'s' if left > 1 else ''}"
    return [
        f"{folders} in {sweep.runs.name}/ not in {sweep.plan.name}, left out "
        "(an earlier version of the sweep)."
    ]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Reading makes millions of small objects and no cycles: the garbage collector would only re-count them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
