"""Read the folder of a sweep: its plan, and the state and the record of each run."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from benchmark.core.errors import DamagedError, UserError
from benchmark.core.failure import read_failure
from benchmark.core.files import read_json
from benchmark.core.layout import (
    RunFolder,
    State,
    SweepFolder,
    state_of,
)
from benchmark.core.named_options import NamedOptions, base_name
from benchmark.core.record import RunRecord
from benchmark.core.run_states import WITHOUT_RESULT, blocked_runs
from benchmark.core.spec import RunSpec, check_key, read_spec, read_upstream
from benchmark.core.summaries import DataSummary, SelectedStep
from benchmark.core.sweep_plan import PlannedEntry, ReadPlan, Refusal, SweepPlan, read_plan
from benchmark.core.titles import Titles

T = TypeVar("T")


@dataclass(slots=True)
class SweepRun:
    """One planned run.

    Attributes:
        key: Key of the run.
        dataset: Data set, as written in the sweep file.
        method: Method, as written in the sweep file.
        requested: Whether the sweep asked for the run; otherwise, only another run needs it.
        folder: Folder of the run.
        state: State of the run according to its files.
        reason: Why there is no result; empty if there is one.
        trial: Number of the trial; None if neither the plan nor spec.json has it.
        draw: Number of the draw of hyper-parameters; None if neither has it.
        spec: Spec of the run; None if it cannot be read.
        record: Record of the run; None unless the run is done.
        explainer: Explainer, as written in the sweep file, if the run measures the explanations of
            a model; else empty.
    """

    key: str
    dataset: str
    method: str
    requested: bool
    folder: RunFolder
    state: State = State.PENDING
    reason: str = ""
    trial: int | None = None
    draw: int | None = None
    spec: RunSpec | None = None
    record: RunRecord | None = None
    explainer: str = ""

    @property
    def label(self) -> str:
        """The method or, for a measurement, explainer and method."""
        return f"{self.explainer} of {self.method}" if self.explainer else self.method

    @property
    def selected(self) -> Mapping[str, SelectedStep]:
        """The selected step of each criterion; empty unless the run is done."""
        return self.record.selected if self.record is not None else {}


@dataclass
class Sweep:
    """Everything that the report is made from.

    Attributes:
        folder: Folder of the sweep.
        name: Name of the sweep.
        title: Title of the sweep.
        created: Seconds since 1970, or 0 if unknown.
        runs: Runs that train models, in the order of the plan.
        refused: Planned runs of models that cannot run.
        config: The resolved sweep file.
        notes: Problems of the folder that a reader must know, one sentence each.
        measurements: Runs that measure the explanations of these models.
        explainer_runs: Runs that train an explainer for a measurement only.
        refused_measurements: Planned measurements that cannot run.
        titles: Titles of methods, data sets and groups.
    """

    folder: Path
    name: str
    title: str
    created: float
    runs: list[SweepRun]
    refused: list[Refusal]
    config: Mapping[str, Any]
    notes: list[str]
    measurements: list[SweepRun] = field(default_factory=list)
    explainer_runs: list[SweepRun] = field(default_factory=list)
    refused_measurements: list[Refusal] = field(default_factory=list)
    titles: Titles = field(default_factory=Titles)

    @property
    def all_runs(self) -> list[SweepRun]:
        """Every planned run."""
        return [*self.runs, *self.explainer_runs, *self.measurements]

    def states(self) -> dict[str, int]:
        """Return the number of runs in each state, done first."""
        counted = Counter(str(run.state) for run in self.all_runs)
        return dict(sorted(counted.items(), key=lambda item: (item[0] != State.DONE, item[0])))


def load_sweep(folder: Path, keep: str | None = None) -> Sweep:
    """Read the folder of a sweep without changing it.

    Damaged files do not stop the others from being read. They are named in ``Sweep.notes`` or in
    the ``reason`` of their run.

    Args:
        folder: Folder of the sweep, ``results/<sweep>``.
        keep: The only criterion whose counts are kept in memory; None for all.

    Raises:
        UserError: If the folder is no sweep, or if its sweep.json has another schema version.
    """
    sweep = SweepFolder(folder)
    if not sweep.exists():
        raise UserError(sweep.missing())
    found, notes = _read_plan(sweep)
    plan = found.plan
    runs = [_planned(sweep, key, entry) for key, entry in plan.runs.items()]
    with _collector_paused():
        shared: dict[tuple[type, str], Any] = {}
        for run in runs:
            _read_run(run, keep, shared, found.damaged.get(run.key))
    _compare_data(runs)
    _mark_blocked(runs)
    notes += _unplanned_folders(sweep, set(plan.runs))
    title = plan.title or plan.name
    measurements = [run for run in runs if run.explainer]
    serving = _explainer_keys(run.spec for run in measurements)
    models = [run for run in runs if not run.explainer]
    return Sweep(
        folder,
        plan.name,
        title,
        plan.created,
        [run for run in models if run.requested or run.key not in serving],
        [refusal for refusal in plan.refused if not refusal.explainer],
        plan.config,
        notes,
        measurements,
        [run for run in models if not run.requested and run.key in serving],
        [refusal for refusal in plan.refused if refusal.explainer],
        plan.titles,
    )


def _explainer_keys(specs: Iterable[RunSpec | None]) -> set[str]:
    """Return the keys of the runs that train the explainers of measurements."""
    upstream = [spec.upstream for spec in specs if spec is not None and spec.measurement]
    return {found["explainer"] for found in upstream if "explainer" in found}


def _read_plan(sweep: SweepFolder) -> tuple[ReadPlan, list[str]]:
    """Return the plan and its problems; without sweep.json, a plan of the existing run folders."""
    try:
        found = read_plan(sweep)
    except FileNotFoundError:
        why = f"{sweep.plan.name} is missing"
    except DamagedError as error:
        why = _without_folder(str(error), sweep.plan)
    else:
        return found, list(found.problems)
    note = (
        f"{why}: runs are those found in {sweep.runs.name}/, and planned runs that never started "
        "are not counted."
    )
    name = sweep.path.absolute().name
    runs = _runs_from_folders(sweep)
    return ReadPlan(SweepPlan(name, "", 0.0, (), runs, ())), [note]


def _planned(sweep: SweepFolder, key: str, entry: PlannedEntry) -> SweepRun:
    return SweepRun(
        key,
        entry.dataset,
        entry.method,
        entry.requested,
        sweep.run(key),
        trial=entry.trial,
        draw=entry.draw,
        explainer=entry.explainer,
    )


def _runs_from_folders(sweep: SweepFolder) -> dict[str, PlannedEntry]:
    found: dict[str, PlannedEntry] = {}
    upstream: set[str] = set()
    for name in sweep.run_names():
        try:
            spec = read_spec(sweep.run(name).path)
        except (OSError, UserError):
            continue
        found[name] = PlannedEntry(
            _dataset(spec), spec.method, spec.trial, spec.draw, explainer=_explainer(spec)
        )
        if spec.measurement is None:
            upstream |= set(spec.upstream.values())
        else:
            upstream |= _explainer_keys([spec])
    return {name: replace(entry, requested=name not in upstream) for name, entry in found.items()}


def _dataset(spec: RunSpec) -> str:
    """Return the data set of a spec as a sweep file writes it, with every option."""
    options = {name: str(value) for name, value in sorted(spec.dataset_options.items())}
    return str(NamedOptions(spec.dataset, options))


def _explainer(spec: RunSpec) -> str:
    """Return the explainer of a measurement as a sweep file writes it, with every option."""
    if spec.measurement is None:
        return ""
    options = {name: str(value) for name, value in sorted(spec.measurement.options.items())}
    return str(NamedOptions(spec.measurement.explainer, options))


def _read_run(
    run: SweepRun, keep: str | None, shared: dict[tuple[type, str], Any], damaged: str | None
) -> None:
    """Read state, spec and record of a run; a run with a damaged file is unreadable.

    Args:
        run: The run, which is filled in.
        keep: As in ``load_sweep``.
        shared: Parts of records that several runs have in common.
        damaged: Why the run's entry in the plan cannot be used, or None.
    """
    problems = [] if damaged is None else [damaged]
    try:
        run.state = state_of(run.folder.path)
        if run.state == State.DONE:
            run.record = _read_record(run, keep, shared)
            run.spec = run.record.spec
    except (OSError, UserError) as error:
        problems.append(str(error))
    if run.spec is None:
        try:
            run.spec = read_spec(run.folder.path)
        except FileNotFoundError:  # a planner writes sweep.json first
            pass
        except (OSError, UserError) as error:
            problems.append(str(error))
    if run.spec is not None and (contradiction := _contradiction(run, run.spec)):
        problems.append(contradiction)
    if problems:
        run.state, run.record = State.UNREADABLE, None
        run.reason = _without_folder(problems[0], run.folder.record)
    elif run.state == State.FAILED:
        run.reason = _failure(run.folder)
    if run.spec is not None:
        run.trial, run.draw = run.spec.trial, run.spec.draw
        if run.method == "?":  # its entry in the plan is damaged
            run.dataset, run.method = _dataset(run.spec), run.spec.method


def _read_record(run: SweepRun, keep: str | None, shared: dict[tuple[type, str], Any]) -> RunRecord:
    folder = run.folder
    value = read_json(folder.record)
    if isinstance(value, dict) and not value.get("selected") and not run.explainer:
        raise DamagedError(f"{folder.record} is damaged: it holds no selected step.")
    _lighten(value, keep)
    record = RunRecord.from_json(value, str(folder.record))
    check_key(record.key, folder.record)
    with suppress(FileNotFoundError):  # the record has the same content
        read_upstream(folder.path)  # raises unless the key of the spec is the name of the folder
    return replace(  # hundreds of runs share these parts: keep one copy
        record,
        data=_one_copy(record.data, run.dataset, shared),
        method=_one_copy(record.method, run.method, shared),
        machine=_one_copy(record.machine, "", shared),
    )


def _one_copy(part: T, owner: str, shared: dict[tuple[type, str], Any]) -> T:
    known: T = shared.setdefault((type(part), owner), part)
    return known if known == part else part


def _lighten(value: Any, keep: str | None) -> None:
    """Drop the counts of other criteria and of upstream runs, which the report does not use."""
    if not isinstance(value, dict):
        return
    selected, upstream = value.get("selected"), value.get("upstream")
    if keep is not None and isinstance(selected, dict):
        value["selected"] = {name: step for name, step in selected.items() if name == keep}
    for entry in upstream.values() if isinstance(upstream, dict) else ():
        if isinstance(entry, dict):
            entry.pop("selected", None)


def _contradiction(run: SweepRun, spec: RunSpec) -> str | None:
    """Return how the entry of a run in the plan contradicts its spec; None if it does not."""
    planned = (base_name(run.dataset), run.method, run.trial, run.draw)
    actual = (spec.dataset, spec.method, spec.trial, spec.draw)
    if run.method == "?" or all(a in (None, b) for a, b in zip(planned, actual, strict=True)):
        return None
    return f"its spec is of {spec.label()}, which contradicts {run.folder.sweep.plan.name}."


def _failure(folder: RunFolder) -> str:
    """Return why a run failed, on one line."""
    try:
        failure = read_failure(folder.path)
    except (OSError, UserError) as error:
        return _without_folder(str(error), folder.failure)
    kind = f"{failure.kind.replace('_', ' ')}: " if failure.kind else ""
    return kind + " ".join(failure.message.split())


def _without_folder(message: str, path: Path) -> str:
    """Return a message without the folder of its file and without the final full stop."""
    return message.replace(f"{path.parent}{os.sep}", "").removesuffix(".")


def _compare_data(runs: list[SweepRun]) -> None:
    """Mark runs whose labels or splits differ from those of most runs on the same data set."""
    found: dict[tuple[str, bool], Counter[tuple[Any, ...]]] = {}
    for run in runs:
        if run.record is not None:
            place = run.dataset, run.record.data.stand_in
            found.setdefault(place, Counter())[_frame(run.record.data)] += 1
    for run in runs:
        if run.record is None:
            continue
        usual = found[run.dataset, run.record.data.stand_in].most_common(1)[0][0]
        if _frame(run.record.data) != usual:
            run.state, run.record = State.UNREADABLE, None
            run.reason = (
                f"{run.folder.record.name} names other labels or splits than the other runs "
                "on its data"
            )


def _frame(data: DataSummary) -> tuple[Any, ...]:
    """Return what determines the columns of a table."""
    return data.label_names, data.multi_label, tuple(data.test_splits), data.bias_splits


def _mark_blocked(runs: list[SweepRun]) -> None:
    """Mark unfinished runs that need a run without a result, directly or not."""
    by_key = {run.key: run for run in runs}
    upstream = {
        run.key: {key: role for role, key in run.spec.upstream.items()}
        for run in runs
        if run.spec is not None and run.state in (State.PENDING, State.LOST)
    }
    without_result = {run.key for run in runs if run.state in WITHOUT_RESULT}
    for key, needed in blocked_runs(upstream, upstream, without_result).items():
        run = by_key[key]
        other = by_key[needed]
        run.state = State.BLOCKED
        run.reason = f"its {upstream[key][needed]} {other.state} ({other.reason})"


def _unplanned_folders(sweep: SweepFolder, planned: set[str]) -> list[str]:
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
    """Pause the garbage collector: reading creates millions of small objects and no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
