"""What happens in the process of a run: it is pinned to its slot, takes the lease, and calls the engine."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.failure import failure_json
from benchmark.core.files import write_json
from benchmark.core.layout import RunFolder, State, state_of
from benchmark.core.spec import LEASE_LOST
from benchmark.launch import attempts
from benchmark.launch.events import Outcome
from benchmark.launch.lease import Claim
from benchmark.launch.slots import Slot
from benchmark.launch.stop_signals import STOP_SIGNALS, StopRequest

STOPPED = "stopped"

#: What the machine, not the run, is to blame for: it ends the launch and fails no run.
_MACHINE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM")
    if hasattr(errno, name)  # not every system has quotas
}

_held: Claim | None = None  # what to give back if the launcher dies


@dataclass(frozen=True)
class Job:
    """One run for one process.

    Args:
        folder: the run folder.
        alone: whether the run has its device to itself, because it ran out of memory before.
        slot: where it runs.
        data_dir, checkpoint_seconds: for the engine.
        lease_seconds: how long a silent owner keeps its lease.
        engine: the module whose ``execute`` is called.
        modules: modules that register classes, to be imported before.
    """

    folder: Path
    alone: bool
    slot: Slot
    data_dir: Path | None
    checkpoint_seconds: float
    lease_seconds: float
    engine: str
    modules: tuple[str, ...] = ()


def prepare(slot: Slot, launcher: int, started: str | None) -> None:
    """Pin a fresh process to its slot and tie it to its launcher; runs before anything touches CUDA."""
    threading.Thread(
        target=_end_with, args=(launcher, started), name="launcher-watch", daemon=True
    ).start()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C and a closed terminal are the launcher's to handle
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the fork server blocks them
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu or ""
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    with suppress(OSError, AttributeError):  # a core that went offline, a system without affinities
        os.sched_setaffinity(0, slot.cores)
    with suppress(OSError, ValueError):  # when memory runs out, a run goes before its launcher
        score = Path("/proc/self/oom_score_adj")
        raised = max(int(score.read_text(encoding="utf-8")), 500)
        score.write_text(str(raised), encoding="utf-8")
    if "torch" in sys.modules:  # else OMP_NUM_THREADS is read when the engine imports it
        import torch

        torch.set_num_threads(slot.threads)


def work(job: Job) -> Outcome:
    """Take the lease of a run, run it, and give the lease back.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is lost.
        UserError: the lease is held under another lease time.
    """
    global _held
    stop = _Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.ask(STOPPED))
    claim = Claim(job.folder, job.lease_seconds, stop.lose)
    if not claim.take():
        return Outcome("busy")
    stop.watch(claim)
    _held = claim
    try:
        # another launcher may have ended it between this launcher's look and the lease
        if state_of(job.folder) in (State.DONE, State.FAILED):
            return Outcome("settled")
        return _attempt(job, stop)
    finally:
        claim.release()
        _held = None


class _Stop(StopRequest):
    """Why the run should end, if it should; ``reason`` is all that a training step asks.

    The heartbeat tells when the lease is lost. A process that was suspended and goes on may ask
    before its heartbeat has noticed anything; it is told to look for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._claim: Claim | None = None
        self._asked = 0.0

    def watch(self, claim: Claim) -> None:
        """The lease that the run is under, from now on."""
        self._claim, self._asked = claim, time.monotonic()

    def reason(self) -> str | None:
        before, self._asked = self._asked, time.monotonic()
        claim = self._claim
        if claim is not None and self._asked - before > claim.seconds / 2 and not claim.is_ours():
            self.lose()
        return self._reason


def _attempt(job: Job, stop: _Stop) -> Outcome:
    number = attempts.begin(job.folder)
    started = time.monotonic()
    with _output(RunFolder(job.folder).attempt(number).output):
        kind = _execute(job, number, stop)
    reason = (stop.reason() or "") if kind == "interrupted" else ""
    if kind == "interrupted":
        attempts.end(job.folder, number, reason or STOPPED)
    elif kind == "out_of_memory":
        attempts.end(job.folder, number, kind, alone=job.alone)
    return Outcome(kind, number, round(time.monotonic() - started, 3), reason)


def _execute(job: Job, number: int, stop: _Stop) -> str:
    try:
        _limit_memory(job)
        for module in job.modules:
            importlib.import_module(module)
        execute = importlib.import_module(job.engine).execute
        return str(
            execute(
                job.folder,
                number,
                device=job.slot.device,
                data_dir=job.data_dir,
                checkpoint_seconds=job.checkpoint_seconds,
                stop=stop.reason,
                at_once=stop.at_once,
            )
        )
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _MACHINE:
            with suppress(OSError):
                attempts.end(job.folder, number, "interrupted", error=str(error))
            raise
        if stop.reason() == LEASE_LOST:
            return "interrupted"
        _write_failure(job.folder, number, error)
        return "failed"


def _write_failure(folder: Path, number: int, error: Exception) -> None:
    """For what the engine did not catch itself."""
    known = isinstance(error, UserError)
    run = RunFolder(folder)
    more = {} if known else {"traceback": "".join(traceback.format_exception(error))}
    message = str(error) if known else f"{type(error).__name__}: {error}"
    kind = "user_error" if known else "exception"
    write_json(run.failure, failure_json(run.key, number, kind, message, **more))


def _limit_memory(job: Job) -> None:
    """Of a GPU that several slots share, a run may use its share, so that none starves the others."""
    if job.slot.device == "cuda" and job.slot.share > 1 and not job.alone:
        import torch

        torch.cuda.set_per_process_memory_fraction(1.0 / job.slot.share)


@contextmanager
def _output(path: Path) -> Iterator[None]:
    """Send what this process prints, from Python or from C, to a file, which is UTF-8 in every locale."""
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
    faulthandler.enable(2)  # where a segmentation fault was
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        faulthandler.disable()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)


def _end_with(launcher: int, started: str | None) -> None:
    """Wait for the launcher to die, then end this process at once, giving its lease back."""
    try:
        handle = os.pidfd_open(launcher)
    except ProcessLookupError:
        handle = None
    except (
        OSError,
        AttributeError,
    ):  # no pidfd on this system: the pipe that the launcher holds tells as much
        parent = multiprocessing.parent_process()
        handle = None if parent is None else parent.sentinel
    if handle is not None and started == start_time(launcher):
        multiprocessing.connection.wait([handle])
    # a file system that hangs must not keep us, a busy machine must not cost the release
    threading.Timer(5.0, os._exit, [1]).start()
    with suppress(Exception):
        if _held is not None:
            _held.release()
    os._exit(1)


def start_time(process: int) -> str | None:
    """When a process started, in the kernel's ticks: with its number, this names it for good."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat[stat.rindex(")") + 2 :].split()[19]
