"""The commands ``sweep remove`` and ``sweep new``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import to_json, write_atomic
from benchmark.core.layout import State, SweepFolder, state_of
from benchmark.core.registry import did_you_mean
from benchmark.core.spec import read_spec
from benchmark.core.terminal import say
from benchmark.plan.sweep_folder import read_stored

#: The folder of a sweep where removed runs are kept.
REMOVED = "removed"

_TEMPLATE = """\
# A sweep: every algorithm on every data set, in several trials.
#   python -m benchmark.sweep launch {path} --dry-run     what would run, and how long it takes
#   python -m benchmark.sweep launch {path}
#   python -m benchmark.collect_results
# docs/sweep_files.md explains every entry.

title = "{title}"

# `python -m benchmark.data list` and `python -m benchmark.sweep list algorithms` have all names.
datasets = ["digits_on_photos:bias=0.95"]
algorithms = ["erm", "group_dro", "reweight"]
backbone = "convnet"

trials = 3          # seeds 0, 1, 2; the same weights and batches for all methods
draws = 0           # 0: the default hyper-parameters; 5: five random draws of each method

# Criteria of model selection, on validation data only; tables use the first one.
selection = ["val_worst_group", "val_accuracy", "last"]

[budget]
steps = 500
evaluate_every = 50

[compute]
channels_last = "auto"    # the faster memory format on each machine, by a short measurement

# Hyper-parameters of all methods that have them.
[fixed]
batch_size = 64

# Hyper-parameters of one method.
# [override.group_dro]
# eta = 0.01
"""


def write_template(name: str) -> Path:
    """Write a commented sweep file.

    Args:
        name: Name of the sweep, or path of the file.

    Raises:
        UserError: If the file exists, or its folder does not.
    """
    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}; create it first.")
    title = path.stem.replace("_", " ").replace('"', "'").replace("\\", "/")
    text = _TEMPLATE.format(path=path, title=title)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path} exists; choose another name.") from None
    return path


def remove_runs(
    folder: Path, algorithm: str | None, dataset: str | None, *, ask: bool = True
) -> int:
    """Take runs out of a sweep and move their folders to ``removed/``.

    Upstream runs stay if a remaining run needs them.

    Args:
        folder: Folder of the sweep.
        algorithm: Method of the runs; None for every method.
        dataset: Data set of the runs; None for every data set.
        ask: True to ask on the terminal first.

    Returns:
        The exit code: 0, or 1 if the user declined.

    Raises:
        UserError: If neither is given, the sweep has no such runs, or one of them is running.
    """
    if algorithm is None and dataset is None:
        raise UserError("name the runs to remove with --algorithm or --dataset.")
    stored = read_stored(folder)
    sweep = SweepFolder(folder)
    for option, wanted, known in (
        ("algorithm", algorithm, {run.method for run in stored.runs.values()}),
        ("dataset", dataset, {run.dataset for run in stored.runs.values()}),
    ):
        if wanted is not None and wanted not in known:
            raise UserError(f"{folder} has no {option} {wanted!r}{did_you_mean(wanted, known)}")
    chosen = {
        key
        for key, run in stored.runs.items()
        if run.requested and algorithm in (None, run.method) and dataset in (None, run.dataset)
    }
    needed = _needed(
        sweep, [key for key in stored.runs if key not in chosen and stored.runs[key].requested]
    )
    leaving = [
        key
        for key, run in stored.runs.items()
        if key not in needed and (key in chosen or not run.requested)
    ]
    if not leaving:
        raise UserError("all of these runs are needed by others; remove those first.")
    running = [key for key in leaving if state_of(sweep.run(key).path) is State.RUNNING]
    if running:
        raise UserError(f"{len(running)} of these runs are running; stop the sweep first.")
    if ask and not _confirmed(f"Move {len(leaving)} runs to {folder / REMOVED}?"):
        say("nothing was removed.")
        return 1
    remaining = {key: run for key, run in stored.runs.items() if key not in leaving}
    refused = tuple(
        refusal
        for refusal in stored.plan.refused
        if not (algorithm in (None, refusal.method) and dataset in (None, refusal.dataset))
    )
    # The plan comes first: a run without an entry is ignored, an entry without a run is not.
    config = dict(stored.plan.config)
    rows = [run.row for run in remaining.values() if run.requested]
    rows += [refusal.row for refusal in refused]
    for entry, removed, left in (
        ("algorithms", algorithm, {method for _, method, *_ in rows}),
        ("datasets", dataset, {data for data, *_ in rows}),
    ):
        if removed not in left and isinstance(names := config.get(entry), list | tuple):
            config[entry] = [name for name in names if name != removed]
    plan = replace(stored.plan, runs=remaining, refused=refused, config=config)
    write_atomic(sweep.plan, to_json(plan.to_json()))
    (folder / REMOVED).mkdir(exist_ok=True)
    for key in leaving:
        path = sweep.run(key).path
        if path.is_dir():
            os.replace(path, _free_name(folder / REMOVED / key))
    say(f"{len(leaving)} runs moved to {folder / REMOVED}; {len(remaining)} remain.")
    return 0


def _needed(sweep: SweepFolder, keys: list[str]) -> set[str]:
    """Return runs and everything that they need."""
    needed: set[str] = set()
    left = list(keys)
    while left:
        key = left.pop()
        if key in needed:
            continue
        needed.add(key)
        try:
            left += read_spec(sweep.run(key).path).upstream.values()
        except (OSError, UserError):  # a damaged run needs nothing
            continue
    return needed


def _free_name(path: Path) -> Path:
    free = path
    number = 2
    while os.path.lexists(free):
        free = path.with_name(f"{path.name}.{number}")
        number += 1
    return free


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(f"{question} Confirm with --yes, since there is no terminal to ask on.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
