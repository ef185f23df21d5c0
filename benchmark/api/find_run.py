"""Find a finished run by its folder, or by its sweep, method, data set and trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder, State, SweepFolder, find_sweep_folder, state_of
from benchmark.core.registry import did_you_mean
from benchmark.report.records.model_selection import Cell, cells_of, choose_criterion
from benchmark.report.records.sweep_records import load_sweep


def find_run(
    folder: Path,
    *,
    method: str | None = None,
    dataset: str | None = None,
    trial: int | None = None,
) -> RunFolder:
    """Return the folder of a finished run; the arguments are those of ``benchmark.load_run``.

    Raises:
        UserError: there is no such run, several runs are meant, or the run is not done.
    """
    run = RunFolder(folder)
    if run.record.exists() or run.spec.exists():
        return _finished(run, method, dataset, trial)
    path = find_sweep_folder(str(folder))
    sweep = load_sweep(path)
    cells = [cell for cell in cells_of(sweep, choose_criterion(sweep, None), own=True) if cell.runs]
    cells = _choose(cells, "method", method, path)
    cells = _choose(cells, "dataset", dataset, path)
    # Upstream runs of a method differ in data, network or budget from the requested ones.
    cell = next((cell for cell in cells if cell.requested), cells[0])
    if trial is not None and trial not in {run.trial for run in cell.runs}:
        known = sorted({run.trial for run in cell.runs if run.trial is not None})
        raise UserError(
            f"{cell.method} has no trial {trial} in {path}, expected one of "
            f"{', '.join(map(str, known))}."
        )
    selected = [s for s in cell.selected_runs if trial is None or s.trial == trial]
    if not selected:
        states = ", ".join(sorted({run.state for run in cell.runs}))
        raise UserError(
            f"no run of {cell.method}{'' if trial is None else f', trial {trial},'} in {path} is "
            f"done ({states}); launch the sweep again."
        )
    return selected[0].run.folder


def _finished(
    run: RunFolder, method: str | None, dataset: str | None, trial: int | None
) -> RunFolder:
    """Return the folder of a run after checking that it is done.

    Raises:
        UserError: it is not done, or the other arguments were given too.
    """
    if method is not None or dataset is not None or trial is not None:
        raise UserError(
            f"{run.path} is the folder of one run; leave out method, dataset and trial, or name "
            f"the folder of its sweep."
        )
    state = state_of(run.path)
    if state != State.DONE:
        raise UserError(
            f"the run {run.path} is {state}, expected a finished one; launch its sweep again."
        )
    return run


def _choose(cells: Sequence[Cell], field: str, wanted: str | None, path: Path) -> list[Cell]:
    """Return the cells of one method or data set.

    Raises:
        UserError: there is none of this name, or none was named and there are several.
    """
    names = list(dict.fromkeys(getattr(cell, field) for cell in cells))
    if not names:
        raise UserError(f"{SweepFolder(path).path} has no runs; launch the sweep first.")
    if wanted is None:
        requested = list(dict.fromkeys(getattr(c, field) for c in cells if c.requested)) or names
        if len(requested) > 1:
            raise UserError(
                f"{path} has several {field}s ({', '.join(requested)}); choose one with {field}=…"
            )
        wanted = requested[0]
    if wanted not in names:
        raise UserError(f"{path} has no {field} {wanted!r}{did_you_mean(wanted, names)}")
    return [cell for cell in cells if getattr(cell, field) == wanted]
