"""The command ``sweep work``."""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence

from benchmark.cli.options import data_dir
from benchmark.core.errors import UserError
from benchmark.core.layout import State, SweepFolder, state_of
from benchmark.core.record import read_record
from benchmark.core.terminal import say
from benchmark.launch.display import make_display
from benchmark.launch.events import TIME_IS_UP
from benchmark.launch.launcher import launch, make_executor
from benchmark.launch.run_queue import planned_nodes
from benchmark.launch.scheduler import WorkerShift
from benchmark.launch.slots import Placement
from benchmark.plan.sweep_folder import read_stored

#: The number of records from which the expected time of a run is estimated.
_MAX_RECORDS = 20
#: The number of runs that are looked at for this.
_MAX_LOOKS = 200


def work_on_sweep(given: argparse.Namespace) -> int:
    """Run what is missing of a sweep folder, as one of several workers.

    Args:
        given: Arguments of ``sweep work``.

    Returns:
        The exit code: 75 if the time was up before the sweep was done, 1 if a run has failed or is
        blocked, otherwise 0.
    """
    stored = read_stored(given.folder)
    executor = make_executor(Placement(given.device, given.workers, given.per_gpu))
    if executor.note:
        say(f"note: {executor.note}", error=True)
    keys = list(stored.runs)
    expected = 0.0
    if given.time is not None:
        expected = expected_seconds(SweepFolder(given.folder), keys)
    labels = {key: run.label for key, run in stored.runs.items()}
    with make_display(given.folder, labels) as on_event:
        summary = launch(
            given.folder,
            keys,
            executor,
            data_dir=data_dir(given),
            checkpoint_seconds=given.checkpoint_seconds,
            on_event=on_event,
            run_time_limit=given.run_time_limit,
            shift=WorkerShift(given.time, expected),
            nodes=planned_nodes(given.folder, stored.runs),
        )
    say(f"{len(summary.done)} runs done here")
    if summary.time_is_up:
        say("the time is up; the runs that are left wait for other workers, or for the next one.")
        return TIME_IS_UP
    return 1 if summary.failed or summary.blocked else 0


def expected_seconds(folder: SweepFolder, keys: Sequence[str]) -> float:
    """Return the median time of some finished runs, or 0 if none was found.

    Only some runs are looked at, since many workers may start at the same time.
    """
    seconds: list[float] = []
    for key in random.sample(keys, min(len(keys), _MAX_LOOKS)):
        if len(seconds) == _MAX_RECORDS:
            break
        run = folder.run(key)
        if state_of(run.path) is not State.DONE:
            continue
        try:
            seconds.append(read_record(run.path).seconds.total)
        except (OSError, UserError):  # the report mentions it
            continue
    return statistics.median(seconds) if seconds else 0.0
