"""A process for each run: one pebble pool per slot, behind a fork server that has the imports done.

One pool per slot rather than one for all: a process killed while it held the pool's lock stops that pool alone, and
is answered by a new pool.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import site
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from pebble import ProcessPool

from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import UserError
from benchmark.launch.slots import Slot
from benchmark.launch.stop_signals import STOP_SIGNALS
from benchmark.launch.worker import prepare, start_time

_ROOT = Path(__file__).resolve().parents[2]
_BREAKS = 5


def start_fork_server(preload: Sequence[str]) -> None:
    """Start the process that every run is forked from; it imports ``preload`` while the launcher goes on."""
    multiprocessing.set_forkserver_preload(["benchmark.launch.forkserver_hook", *preload])
    prepare_openmp()  # the server loads torch
    path = os.environ.get("PYTHONPATH")
    # Python 3.11's fork server ignores the import path it is given, and silently skips what it cannot import
    if not _installed():
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([path] if path else [])])
    # inherited: a signal to the whole group (Ctrl-C, a scheduler's SIGTERM) must not take the server from its children;
    # the resource tracker comes first, since starting it unblocks them again
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if path is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = path


def _installed() -> bool:
    """Whether every Python process finds ShortcutBed; its folder then must not come before the standard library."""
    folders = (*site.getsitepackages(), site.getusersitepackages())
    return any(Path(folder).resolve() == _ROOT for folder in folders)


class Worker:
    """The processes of one slot, one at a time, a fresh one for every run."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._pool = self._new()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function in a fresh process of this slot.

        Raises:
            UserError: the machine starts no processes.
        """
        for pause in range(_BREAKS):
            try:
                return self._pool.schedule(function, args=args)
            except (RuntimeError, BrokenProcessPool, OSError, EOFError) as error:
                why = error
            time.sleep(0.2 * pause)
            self.renew()
        raise UserError(
            f"no process could be started ({why}); fewer --workers would need less memory."
        )

    def renew(self) -> None:
        """Replace the pool after one of its processes was killed: it may have died holding a lock."""
        self.ask_to_end()
        self.join()
        self._pool = self._new()

    def ask_to_end(self) -> None:
        self._pool.stop()

    def join(self) -> None:
        self._pool.join()

    def _new(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        launcher = os.getpid()
        arguments = (self.slot, launcher, start_time(launcher))
        # two: while one is at work the next is forked, so that a run starts as soon as its slot is free
        return ProcessPool(2, max_tasks=1, initializer=prepare, initargs=arguments, context=context)


def end(workers: Sequence[Worker]) -> None:
    """End all pools; idle processes go at once."""
    for worker in workers:
        worker.ask_to_end()
    for worker in workers:
        worker.join()


def processes() -> set[int]:
    """The processes of every slot, idle ones included."""
    children = multiprocessing.active_children()
    return {
        child.pid
        for child in children
        if child.name == "pebble_pool_worker" and child.pid is not None
    }


def signal_processes(number: int) -> None:
    """Send a signal to every process of every slot."""
    for process in processes():
        with suppress(ProcessLookupError):
            os.kill(process, number)
