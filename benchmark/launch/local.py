"""Run a sweep on this machine: claim, run each in a process of its own, try again what was killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.core.layout import LEASE_SECONDS
from benchmark.launch import pool
from benchmark.launch.events import Event, Summary
from benchmark.launch.main_module import hidden_main, modules_to_import
from benchmark.launch.run_queue import Graph, read_nodes
from benchmark.launch.scheduler import SchedulerOptions, Session
from benchmark.launch.slots import slots
from benchmark.launch.start_method import require_fork_server
from benchmark.launch.stop_signals import on_request_to_stop


def launch(
    folder: Path,
    keys: Sequence[str],
    *,
    workers: int | None = None,
    devices: str = "auto",
    per_gpu: int = 1,
    data_dir: Path | None = None,
    checkpoint_seconds: float = 60.0,
    on_event: Callable[[Event], None] = lambda event: None,
    lease_seconds: float = LEASE_SECONDS,
    time_limit: float | None = None,
    engine: str = "benchmark.engine.execute",
    preload: Sequence[str] = ("benchmark.launch.preload",),
) -> Summary:
    """Do what is missing of a sweep and return when every run is done, failed or blocked, by whichever launcher.

    Args:
        folder: the sweep folder; ``runs/<key>/spec.json`` is there for every key and for what it needs.
        keys: the runs, in the order in which they should be tried.
        workers, devices, per_gpu: see ``slots``.
        data_dir, checkpoint_seconds: for the engine.
        on_event: told of everything that happens, in this thread.
        lease_seconds: how long a run whose owner fell silent stays claimed; the same for all launchers of a folder.
        time_limit: seconds after which a try is killed, or None.
        engine: the module whose ``execute`` runs a run.
        preload: modules that the fork server imports.

    No process of a run imports the main module of this program, so that a script or a notebook may call this anywhere.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came and the runs saved themselves; a second one kills them.
        UserError: a class of the main module itself is to be run, or something concerns every run.
        OSError: something that concerns every run: the disk is full, the folder cannot be written.
    """
    require_fork_server()
    nodes = read_nodes(folder, keys)
    modules = modules_to_import(node.spec for node in nodes.values())
    settings = SchedulerOptions(
        on_event,
        data_dir,
        checkpoint_seconds,
        lease_seconds,
        time_limit,
        engine,
        modules,
    )
    places = slots(devices, workers, per_gpu)
    with hidden_main():
        session = Session(Graph(nodes), settings, [pool.Worker(slot) for slot in places])
        _run(session, preload)
    if session.interrupts:
        raise KeyboardInterrupt
    return session.summary()


def _run(session: Session, preload: Sequence[str]) -> None:
    with on_request_to_stop(session.interrupt):
        session.inspect_foreign_runs()
        if session.anything_left:
            pool.start_fork_server(preload)
        try:
            session.run()
        finally:
            session.shut_down()
