"""The process of a run: it is pinned to its slot, takes the lease, and trains."""

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
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.files import write_json
from benchmark.core.layout import RunFolder, end_of
from benchmark.core.outcome import RunOutcome
from benchmark.core.run_states import AttemptEnd
from benchmark.launch import attempts
from benchmark.launch.job import Job, JobResult
from benchmark.launch.lease import Claim
from benchmark.launch.slots import Slot
from benchmark.launch.stop_signals import STOP_SIGNALS, StopRequest, set_stop_handler

#: Errors of the machine rather than of the run: they end the launch and fail no run.
_MACHINE_ERRORS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM")
    if hasattr(errno, name)  # not every system has quotas
}
#: Seconds that the release of a lease may take after the launcher has died.
_RELEASE_SECONDS = 5.0

#: Memory of a GPU that the context of a process takes, with the kernels that are loaded: 0.5 GiB
#: with PyTorch 2 on recent GPUs, rounded up.
_CONTEXT_BYTES = 3 << 28

_held: Claim | None = None  # the lease to release if the launcher dies


def prepare_process(slot: Slot, launcher: int, started: str | None) -> None:
    """Pin a fresh process to its slot and end it when its launcher dies.

    Must be called before anything uses CUDA.

    Args:
        slot: where the process runs.
        launcher: the process that must stay alive.
        started: the ``start_time`` of that process.
    """
    threading.Thread(
        target=_end_with, args=(launcher, started), name="launcher-watch", daemon=True
    ).start()
    # Ctrl-C and a closed terminal concern the launcher, which asks its runs to stop by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # the fork server blocks them
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu or ""
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    with suppress(OSError, AttributeError):  # a core that went offline, a system without affinities
        os.sched_setaffinity(0, slot.cores)
    with suppress(OSError, ValueError):  # when memory runs out, the kernel kills the run first
        file = Path("/proc/self/oom_score_adj")
        score = max(int(file.read_text(encoding="utf-8")), 500)
        file.write_text(str(score), encoding="utf-8")
    if "torch" in sys.modules:  # otherwise torch reads OMP_NUM_THREADS when it is imported
        import torch

        torch.set_num_threads(slot.threads)


def work(job: Job) -> JobResult:
    """Take the lease of a run, execute the run, and release the lease.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is lost.
        UserError: the lease is held with a different lease time.
    """
    global _held
    stop = LeasedStopRequest()
    set_stop_handler(lambda: stop.ask(AttemptEnd.STOPPED))
    claim = Claim(job.folder, job.lease_seconds, stop.lose_lease)
    if not claim.take():
        return JobResult(RunOutcome.BUSY)
    stop.watch(claim)
    _held = claim
    try:
        # Another launcher may have ended the run since this launcher looked at it, in a listing
        # that may have been old even then. That a run is executed once rests on this look.
        end = end_of(job.folder)
        if end is not None:
            return JobResult(RunOutcome.SETTLED, end=end)
        return _attempt(job, stop)
    finally:
        claim.release()
        _held = None


class LeasedStopRequest(StopRequest):
    """A request to stop that also notices a lost lease when a suspended process goes on.

    Such a process may ask for the reason before its heartbeat has noticed anything. If much time
    has passed since the last question, the lease is therefore checked here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._claim: Claim | None = None
        self._last_asked = 0.0

    def watch(self, claim: Claim) -> None:
        """Watch the lease that the run holds."""
        self._claim = claim
        self._last_asked = time.monotonic()

    def reason(self) -> str | None:
        now = time.monotonic()
        passed = now - self._last_asked
        self._last_asked = now
        claim = self._claim
        if claim is not None and passed > claim.seconds / 2 and not claim.is_ours():
            self.lose_lease()
        return self._reason


def _attempt(job: Job, stop: StopRequest) -> JobResult:
    number = attempts.begin(job.folder)
    started = time.monotonic()
    with redirect_output(RunFolder(job.folder).attempt(number).output):
        outcome = _execute(job, number, stop)
    stop_reason = ""
    end = None
    if outcome is RunOutcome.INTERRUPTED:
        stop_reason = stop.reason() or ""
        attempts.end(job.folder, number, AttemptEnd(stop_reason or AttemptEnd.STOPPED))
    elif outcome in (RunOutcome.OUT_OF_MEMORY, RunOutcome.DEVICE_ERROR):
        attempts.end(job.folder, number, AttemptEnd(outcome.value), alone=job.alone)
    else:
        end = end_of(job.folder)
    return JobResult(outcome, number, round(time.monotonic() - started, 3), stop_reason, end)


def _execute(job: Job, number: int, stop: StopRequest) -> RunOutcome:
    try:
        _limit_gpu_memory(job)
        for module in job.modules:
            importlib.import_module(module)
        execute = importlib.import_module(job.engine).execute
        return RunOutcome(
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
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            with suppress(OSError):
                attempts.end(job.folder, number, AttemptEnd.INTERRUPTED, error=str(error))
            raise
        if stop.reason() == AttemptEnd.LEASE_LOST:
            return RunOutcome.INTERRUPTED
        _write_failure(job.folder, number, error)
        return RunOutcome.FAILED


def _write_failure(folder: Path, number: int, error: Exception) -> None:
    """Write the failure of a run for an error that the engine did not catch."""
    run = RunFolder(folder)
    if isinstance(error, UserError):
        failure = failure_json(run.key, number, FailureKind.USER_ERROR, str(error))
    else:
        message = f"{type(error).__name__}: {error}"
        details = "".join(traceback.format_exception(error))
        failure = failure_json(run.key, number, FailureKind.EXCEPTION, message, traceback=details)
    write_json(run.failure, failure)


def _limit_gpu_memory(job: Job) -> None:
    """Limit a run to its share of a GPU that several slots use."""
    if job.slot.device == "cuda" and job.slot.share > 1 and not job.alone:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(memory_fraction(total, job.slot.share))


def memory_fraction(total: int, share: int) -> float:
    """Return the fraction of the memory of a GPU that the tensors of a run may use.

    The context of CUDA in each process needs memory as well, which PyTorch does not count.

    Args:
        total: the memory of the GPU, in bytes.
        share: the number of slots on the GPU.
    """
    return max(1 / share - _CONTEXT_BYTES / total, 0.5 / share)


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """Send the output of this process, from Python or from C, to a file in UTF-8."""
    saved = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
    faulthandler.enable(2)  # prints where a segmentation fault was
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        faulthandler.disable()
        for number, old in zip((1, 2), saved, strict=True):
            os.dup2(old, number)
            os.close(old)


def _end_with(launcher: int, started: str | None) -> None:
    """Wait for the launcher to die, then release the lease and end this process at once."""
    try:
        handle = os.pidfd_open(launcher)
    except ProcessLookupError:
        handle = None
    except (OSError, AttributeError):  # no pidfd on this system: wait for the launcher's pipe
        parent = multiprocessing.parent_process()
        handle = None if parent is None else parent.sentinel
    if handle is not None and started == start_time(launcher):
        multiprocessing.connection.wait([handle])
    # The timer covers a file system that hangs, and leaves a busy machine the time to release.
    threading.Timer(_RELEASE_SECONDS, os._exit, [1]).start()
    with suppress(Exception):
        if _held is not None:
            _held.release()
    os._exit(1)


def start_time(process: int) -> str | None:
    """Return when a process started, in clock ticks of the kernel, or None if it is unknown.

    A process id can be reused; together with this time it is unique.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat[stat.rindex(")") + 2 :].split()[19]
