"""The right to work on a run: a lease in its folder.

``filelock.SoftFileLease`` does the work: exclusive creation, a heartbeat, and expiry on the observer's own monotonic
clock, so that neither a clock that jumps nor one that differs between machines expires a living claim. An owner whose
process is gone from this machine loses its lease at once.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from benchmark.core.decode import Positive, decode
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.files import read_json, remove_abandoned
from benchmark.core.layout import ABANDONED_SECONDS, LEASE_SECONDS, RunFolder

#: How long an empty lease may be one that is being written.
_EMPTY_SECONDS = 2.0
#: How often a lease that has just become free is tried for; others may be faster.
_TRIES = 3
#: What filelock appends to a lease's name while it takes it over: the number is that of the process that does.
_BREAK = re.compile(r"\.(?:break|restore)\.([0-9]+)\.[0-9a-f]{32}")


class Claim:
    """The lease of one run, watched and taken without waiting.

    Keep the object between two calls of ``take``: expiry is measured from when it first saw the lease unchanged.

    Args:
        folder: the run folder.
        seconds: how long a silent owner keeps its lease; every launcher of a sweep must agree on it.
        on_lost: called from the heartbeat's thread if the lease is lost while it is held.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float = LEASE_SECONDS,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.folder, self.seconds = folder, seconds
        # not thread-local: the thread that sees the launcher die releases what the main thread holds
        self._lease = SoftFileLease(
            RunFolder(folder).lease,
            lease_duration=seconds,
            blocking=False,
            thread_local=False,
            on_compromise=None if on_lost is None else lambda _: on_lost(),
        )
        self._seen: tuple[tuple[int, int, int], float] | None = None

    def take(self) -> bool:
        """Take the lease if it is free, expired, or its owner is dead; never waits.

        Raises:
            UserError: a living launcher works with another lease time.
            FileNotFoundError: the folder was removed; filelock would make it again.
            OSError: the folder cannot be written.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
        for _ in range(_TRIES):
            try:
                self._lease.acquire()
            except Timeout:
                if not self._is_free_now():
                    return False
            except LeaseSettingsMismatch:
                raise UserError(
                    f"another launcher works on {self.folder.name} with another lease time, expected {self.seconds:g} "
                    "seconds; give both the same, or wait until it has ended."
                ) from None
            else:
                _tidy(self.folder, self.seconds)
                return True
        return False

    def release(self) -> None:
        """Give the lease back; a lease that was lost meanwhile is left to its new owner."""
        self._lease.release()

    def is_ours(self) -> bool:
        """Whether the lease on disk is still this process's; asks the file system."""
        return self.owner() == os.getpid()

    def owner(self) -> int | None:
        """The process that holds the lease, or None."""
        return self._lease.pid

    def _is_free_now(self) -> bool:
        """Remove a lease that filelock would respect for too long; True if there is none now.

        One is empty: its owner was killed between creating and writing it. One belongs to a zombie, which stays for
        good in a container whose first process does not reap. One is on a file system that cannot exchange two names
        (NFS, Lustre), where filelock takes no expired lease over; elsewhere it does at ``seconds``. Before 4.3,
        filelock removes a stale lease and takes it at the next call only.
        """
        try:
            found = os.lstat(RunFolder(self.folder).lease)
        except FileNotFoundError:
            return self.folder.is_dir()
        mark, now = (found.st_mtime_ns, found.st_ino, found.st_ctime_ns), time.monotonic()
        if self._seen is None or self._seen[0] != mark:
            self._seen = mark, now
        patience = min(_EMPTY_SECONDS, self.seconds) if found.st_size == 0 else 1.5 * self.seconds
        if now - self._seen[1] < patience and not self._owner_is_zombie():
            return False
        self._seen = None
        self._lease.force_break()
        return True

    def _owner_is_zombie(self) -> bool:
        """Whether the owner's number belongs to a zombie here: the owner or, if reused, a successor of it."""
        owner = self._lease.owner
        if owner is None:
            return False
        try:
            stat = Path(f"/proc/{owner.pid}/stat").read_text(encoding="utf-8")
            return stat.rpartition(")")[2].split()[0] == "Z" and owner.hostname == _this_host()
        except OSError:
            return False


@functools.cache
def _this_host() -> str:
    """The name that filelock gives this machine in the leases that are written here."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SoftFileLease(RunFolder(Path(folder)).lease) as lease,
    ):
        owner = lease.owner
        if owner is None:
            raise OSError(f"{folder} does not keep what is written into it")
        return owner.hostname


def clear(claim: Claim) -> bool:
    """Remove a lease whose owner is gone, and what it left half-written; False while the owner lives."""
    if not claim.take():
        return False
    claim.release()
    return True


def untidy(folder: Path) -> bool:
    """Whether a lease, or something half-written or outdated, lies in a run folder."""
    run = RunFolder(folder)
    names = run.names()
    left = {
        run.record.name,
        run.checkpoint.name,
    } <= names  # written by a process that was suspended
    return left or any(name.startswith(run.lease.name) or run.is_leftover(name) for name in names)


def _tidy(folder: Path, seconds: float) -> None:
    """Remove what killed processes left in a folder whose lease is now ours."""
    run = RunFolder(folder)
    names = run.names()
    for name in names:
        breaker = _breaker(run, name)
        if run.is_leftover(name) or (
            breaker is not None and _stranded(run.path / name, breaker, seconds)
        ):
            with suppress(OSError):  # what cannot be removed does not keep the run from going on
                (run.path / name).unlink()
    remove_abandoned(folder, ABANDONED_SECONDS)  # of planners, which write without a lease
    if run.record.name in names and (run.checkpoint.name in names or run.output.name not in names):
        _finish(run)


def _breaker(run: RunFolder, name: str) -> int | None:
    """The process that began to take the lease over under this file name; None for other names."""
    lease = run.lease.name
    match = _BREAK.fullmatch(name.removeprefix(lease)) if name.startswith(lease) else None
    return None if match is None else int(match[1])


def _stranded(path: Path, process: int, seconds: float) -> bool:
    """Whether a takeover was killed half-way: its process is gone, or the file is older than any lease."""
    lease = RunFolder(path.parent).lease
    try:
        if (
            path.read_bytes() == lease.read_bytes()
        ):  # ours, moved aside for a moment by somebody who will put it back
            return False
        # both times are the file system's: no clock of ours is asked
        return not _alive(process) or path.stat().st_mtime < lease.stat().st_mtime - seconds
    except FileNotFoundError:
        return False


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # there, os.kill would send Ctrl-C, which has the number 0
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


@dataclass(frozen=True)
class _Committed:
    attempt: Positive


def _finish(run: RunFolder) -> None:
    """What the engine does after its commit, for a process that was killed in between."""
    try:
        attempt = run.attempt(decode(_Committed, read_json(run.record), run.record.name).attempt)
    except (OSError, DamagedError):  # the report names it
        return
    run.checkpoint.unlink(missing_ok=True)
    attempt.log.unlink(missing_ok=True)
    if attempt.output.exists():
        os.replace(attempt.output, run.output)
