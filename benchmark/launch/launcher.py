"""Launch a sweep: claim its runs, execute each in a process, and retry what was killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.core.hparam import parse_values
from benchmark.core.layout import LEASE_SECONDS
from benchmark.core.named_options import NamedOptions
from benchmark.core.registry import LAUNCHERS
from benchmark.launch.events import Event, Summary
from benchmark.launch.executor import Executor
from benchmark.launch.main_module import hidden_main, modules_to_import
from benchmark.launch.run_queue import Node, RunQueue, read_nodes
from benchmark.launch.scheduler import Scheduler, SchedulerOptions, WorkerShift
from benchmark.launch.slots import Placement
from benchmark.launch.stop_signals import handle_stop_signals

#: The default launcher.
LOCAL = NamedOptions("local")


def make_executor(
    placement: Placement, launcher: NamedOptions = LOCAL, *, available: bool = False
) -> Executor:
    """Return the executor of a launcher.

    Args:
        placement: the devices that the user wants, and how many runs at a time.
        launcher: the launcher and its options, such as ``local``.
        available: True to skip the check that this system can use the launcher.

    Raises:
        UserError: the launcher is unknown or cannot be used on this system, it does not have one of
            the options, or there is no device to run on.
    """
    kind = LAUNCHERS.get(launcher.name)
    if not available:
        kind.check_available()
    options = parse_values(kind.options, launcher.options, f"launcher {launcher.name}")
    executor: Executor = kind(placement, **options)
    return executor


def launch(
    folder: Path,
    keys: Sequence[str],
    executor: Executor,
    *,
    data_dir: Path | None = None,
    checkpoint_seconds: float = 60.0,
    on_event: Callable[[Event], None] = lambda event: None,
    lease_seconds: float = LEASE_SECONDS,
    run_time_limit: float | None = None,
    engine: str = "benchmark.engine.execute",
    shift: WorkerShift | None = None,
    nodes: dict[str, Node] | None = None,
) -> Summary:
    """Run what is missing of a sweep.

    Returns when every run is done, failed or blocked, no matter which launcher ran it. The
    processes of the runs do not import the main module of this program, so that a script or a
    notebook may call this function anywhere.

    Args:
        folder: the sweep folder; it holds ``runs/<key>/spec.json`` for every key and for every run
            that these need.
        keys: the runs, in the order in which they should be tried.
        executor: starts the processes.
        data_dir: the folder of downloaded data sets.
        checkpoint_seconds: the work that a kill may cost, in seconds.
        on_event: called for everything that happens, in this thread.
        lease_seconds: how long a run whose owner fell silent stays claimed; the same for all
            launchers of a folder.
        run_time_limit: the number of seconds after which an attempt is killed, or None.
        engine: the module whose ``execute`` executes a run.
        shift: for a worker that is one of several. It takes the runs in a random order, starts no
            run that would not end in time, saves its runs when its time is up, and does not wait
            for runs of others unless a run needs them or their owners may be dead.
        nodes: the runs by key, if they are known from the plan. By default, every spec.json is
            read.

    Raises:
        KeyboardInterrupt: a signal asked to stop, and the runs have saved; a second signal kills
            them.
        UserError: the main module itself defines a class that a run uses, or no run can be
            executed.
        OSError: the disk is full, the folder cannot be written, or something else concerns all
            runs.
    """
    nodes = read_nodes(folder, keys) if nodes is None else nodes
    options = SchedulerOptions(
        on_event=on_event,
        data_dir=data_dir,
        checkpoint_seconds=checkpoint_seconds,
        lease_seconds=lease_seconds,
        run_time_limit=run_time_limit,
        engine=engine,
        modules=modules_to_import(node.components for node in nodes.values()),
        shift=shift,
    )
    scheduler = Scheduler(RunQueue(nodes), options, executor)
    with hidden_main(), handle_stop_signals(scheduler.interrupt):
        scheduler.run()
    if scheduler.interrupts:
        raise KeyboardInterrupt
    return scheduler.summary()
