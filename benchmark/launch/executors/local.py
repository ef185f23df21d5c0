"""The launcher for this machine: a fresh process for each run, forked from a fork server.

The fork server has PyTorch imported, so that a run starts within milliseconds. Each slot has a
process pool of its own: a process that is killed while it holds the lock of its pool stops only
that pool, which is then replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import site
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import UserError
from benchmark.core.registry import LAUNCHERS
from benchmark.launch.executor import Executor
from benchmark.launch.gpus import find_gpus
from benchmark.launch.job import Job, JobResult, ProcessDied
from benchmark.launch.lease import Claim
from benchmark.launch.slots import Placement, Slot
from benchmark.launch.start_method import require_fork_server
from benchmark.launch.stop_signals import STOP_SIGNALS
from benchmark.launch.worker import prepare_process, start_time, work

_ROOT = Path(__file__).resolve().parents[3]
#: How often to try to start a process.
_START_TRIES = 5
#: A process that has not begun its job after this many seconds is replaced.
BEGIN_SECONDS = 120.0


@LAUNCHERS.register
class LocalExecutor(Executor):
    """Runs jobs on this machine.

    Args:
        placement: see ``Executor``.
        preload: the modules that the fork server imports.
        begin_seconds: a process that has not begun its job after so many seconds is replaced. A
            process that is killed just after it was given a job takes the job with it, without a
            word to its pool.
    """

    name = "local"
    title = "this machine, one process per run"

    def __init__(
        self,
        placement: Placement,
        preload: Sequence[str] = ("benchmark.launch.preload",),
        *,
        begin_seconds: float = BEGIN_SECONDS,
    ) -> None:
        super().__init__(placement)
        self.preload = tuple(preload)
        self.begin_seconds = begin_seconds
        self.slots = placement.local_slots()
        if placement.device != "cpu":
            self.note = find_gpus().note
        self._pools: dict[int, ProcessPool] = {}
        #: The last job of each slot, and when it was given to its pool.
        self._given: dict[int, tuple[Future[JobResult], Slot, float]] = {}

    @classmethod
    def check_available(cls) -> None:
        require_fork_server()

    def start(self) -> None:
        require_fork_server()
        for slot in self.slots:
            self._pools[slot.index] = self.make_pool(slot)
        start_fork_server(self.preload)

    def make_pool(self, slot: Slot) -> ProcessPool:
        """Return a new pool of processes for a slot."""
        launcher = os.getpid()
        # Two processes: while one works the next one is forked, so that a run starts as soon as the
        # slot is free.
        return ProcessPool(
            max_workers=2,
            max_tasks=1,
            initializer=prepare_process,
            initargs=(slot, launcher, start_time(launcher)),
            context=multiprocessing.get_context("forkserver"),
        )

    def submit(self, job: Job) -> Future[JobResult]:
        for i in range(_START_TRIES):
            try:
                future = self._pools[job.slot.index].schedule(work, args=(job,))
            except (RuntimeError, BrokenProcessPool, OSError, EOFError) as error:
                reason = error
            else:
                self._given[job.slot.index] = (future, job.slot, time.monotonic())
                return _with_own_errors(future)
            time.sleep(0.2 * i)
            self.renew(job.slot)
        raise UserError(
            f"no process could be started ({reason}); fewer --workers would need less memory."
        )

    def renew(self, slot: Slot) -> None:
        """Replace the pool of a slot: its process may have died while it held a lock."""
        pool = self._pools[slot.index]
        pool.stop()
        pool.join()
        self._pools[slot.index] = self.make_pool(slot)

    def replace_stuck(self) -> None:
        for future, slot, given in list(self._given.values()):
            if future.running() or future.done():
                continue
            # A pool that breaks while a job is given to it forgets the job: it has already told
            # the jobs that it knew of.
            broken = not self._pools[slot.index].active
            if broken or time.monotonic() - given > self.begin_seconds:
                del self._given[slot.index]
                self.renew(slot)
                future.cancel()

    def signal(self, number: int) -> None:
        for process in _pool_processes():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self, job: Job) -> bool:
        owner = Claim(job.folder, job.lease_seconds).owner()
        if owner is None or owner not in _pool_processes():
            return False
        with suppress(ProcessLookupError):
            os.kill(owner, signal.SIGKILL)
        return True

    def close(self) -> None:
        for pool in self._pools.values():
            pool.stop()
        for pool in self._pools.values():
            pool.join()


def start_fork_server(preload: Sequence[str]) -> None:
    """Start the process that every run is forked from; it imports ``preload`` in the background."""
    from multiprocessing import forkserver, resource_tracker  # not on every system

    multiprocessing.set_forkserver_preload(["benchmark.launch.forkserver_hook", *preload])
    prepare_openmp()  # the server imports torch
    path = os.environ.get("PYTHONPATH")
    # Python 3.11's fork server ignores the import path that it is given, and silently skips modules
    # that it cannot import.
    if not _is_installed():
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([path] if path else [])])
    # The server inherits the blocked signals: a signal to the whole process group (Ctrl-C, SIGTERM
    # from a batch system) must not end it before its children. The resource tracker comes first,
    # since starting it unblocks them again.
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


def _is_installed() -> bool:
    """Return True if every Python process finds ShortcutBed.

    Its folder must then not come before the standard library on the import path.
    """
    folders = (*site.getsitepackages(), site.getusersitepackages())
    return any(Path(folder).resolve() == _ROOT for folder in folders)


def _with_own_errors(inner: Future[JobResult]) -> Future[JobResult]:
    """Return a future in which the errors of pebble for dead processes are a ``ProcessDied``."""
    outer: Future[JobResult] = Future()

    def copy(done: Future[JobResult]) -> None:
        error = ProcessDied(None) if done.cancelled() else done.exception()
        if isinstance(error, ProcessExpired):
            error = ProcessDied(error.exitcode)
        elif isinstance(error, BrokenProcessPool):
            error = ProcessDied(None)
        if error is None:
            outer.set_result(done.result())
        else:
            outer.set_exception(error)

    inner.add_done_callback(copy)
    return outer


def _pool_processes() -> set[int]:
    """Return the ids of the processes of all slots, including idle ones."""
    return {
        child.pid
        for child in multiprocessing.active_children()
        if child.name == "pebble_pool_worker" and child.pid is not None
    }
