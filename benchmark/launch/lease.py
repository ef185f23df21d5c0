"""The exclusive right to work on a run: a lease file in the folder of the run.

``filelock.SoftFileLease`` does the work: exclusive creation, a heartbeat, and expiry measured with
the monotonic clock of the observer. A clock that jumps, or that differs between machines, therefore
never expires a live claim. An owner whose process on this machine has ended loses its lease at
once.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from benchmark.core.decode import Positive, decode
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.files import read_json, remove_abandoned
from benchmark.core.layout import ABANDONED_SECONDS, LEASE_SECONDS, RunFolder

#: Seconds after which an empty lease is no longer taken for one that is being written.
_EMPTY_SECONDS = 2.0
#: How often to try for a lease that has just become free; another process may be faster.
_TRIES = 3
#: The suffix of a lease that filelock is taking over, with the process that does it.
_TAKEOVER = re.compile(r"\.(?:break|restore)\.([0-9]+)\.[0-9a-f]{32}")


class Mark(NamedTuple):
    """What a look at a lease tells without reading it.

    Attributes:
        modified: time of the last heartbeat, by the clock of the file system, in ns.
        inode: number of the file.
        changed: time of the last change of the file or its name, in ns.
        size: size in bytes; 0 while the lease is being written.
    """

    modified: int
    inode: int
    changed: int
    size: int


class Claim:
    """The lease of one run.

    Keep the object between calls of ``take``: expiry is measured from the moment at which this
    object first saw the lease unchanged.

    Args:
        folder: the folder of the run.
        seconds: how long a silent owner keeps its lease; the same for all launchers of a sweep.
        on_lost: called in the heartbeat's thread if the lease is lost while it is held.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float = LEASE_SECONDS,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.seconds = seconds
        # Not thread-local: the thread that sees the launcher die releases the lease of the main
        # thread.
        self._lease = SoftFileLease(
            RunFolder(folder).lease,
            lease_duration=seconds,
            blocking=False,
            thread_local=False,
            on_compromise=None if on_lost is None else lambda _: on_lost(),
        )
        self._unchanged_since: tuple[Mark, float] | None = None
        self._known_owner: tuple[int, int, str] | None = None  # inode, process, host

    def take(self) -> bool:
        """Take the lease if it is free or expired, or if its owner is dead. Never waits.

        Returns:
            True if the lease is now held by this process.

        Raises:
            UserError: another launcher works on the run with a different lease time.
            FileNotFoundError: the folder was removed (filelock would create it again).
            OSError: the folder cannot be written.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
        for _ in range(_TRIES):
            try:
                self._lease.acquire()
            except Timeout:
                if not self._remove_if_dead():
                    return False
            except LeaseSettingsMismatch:
                raise UserError(
                    f"another launcher works on {self.folder.name} with a lease time other than "
                    f"{self.seconds:g} seconds; use the same for both, or wait until it has ended."
                ) from None
            else:
                _clean_up(self.folder, self.seconds)
                return True
        return False

    def release(self) -> None:
        """Release the lease; one that was lost in the meantime is left to its new owner."""
        self._lease.release()

    def is_ours(self) -> bool:
        """Return True if the lease on disk still belongs to this process."""
        return self.owner() == os.getpid()

    def owner(self) -> int | None:
        """Return the id of the process that holds the lease, or None."""
        return self._lease.pid

    def mark(self) -> Mark | None:
        """Return what changes with every heartbeat and every owner; None if there is no lease."""
        try:
            status = os.lstat(RunFolder(self.folder).lease)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Mark(status.st_mtime_ns, status.st_ino, status.st_ctime_ns, status.st_size)

    def owner_is_alive(self, mark: Mark) -> bool | None:
        """Return whether the owner's process exists, or None if it is not one of this machine.

        The file is read once per owner. A number that a later process has been given is taken for
        the owner; its lease expires like any other.

        Args:
            mark: the lease at the last look.
        """
        if self._known_owner is None or self._known_owner[0] != mark.inode:
            owner = self._lease.owner
            if owner is None:  # still being written
                return None
            self._known_owner = mark.inode, owner.pid, owner.hostname
        _, process, host = self._known_owner
        if host != _this_host():
            return None
        return _is_alive(process) and not _is_zombie(process)

    def _remove_if_dead(self) -> bool:
        """Remove a lease that filelock would respect for too long; return True if none is left.

        There are three cases. An empty lease: its owner was killed between creating and writing it.
        The lease of a zombie, which stays for good in a container whose first process does not
        reap. A lease on a file system that cannot exchange two names (NFS, Lustre), where filelock
        never takes over an expired lease; elsewhere it does after ``seconds``. Before version 4.3
        filelock removes a stale lease and takes it only in the next call.
        """
        mark = self.mark()
        if mark is None:
            return self.folder.is_dir()
        now = time.monotonic()
        if self._unchanged_since is None or self._unchanged_since[0] != mark:
            self._unchanged_since = mark, now
        empty = mark.size == 0
        patience = min(_EMPTY_SECONDS, self.seconds) if empty else 1.5 * self.seconds
        if now - self._unchanged_since[1] < patience and not self._owner_is_zombie():
            return False
        self._unchanged_since = None
        self._lease.force_break()
        return True

    def _owner_is_zombie(self) -> bool:
        """Return True if the process with the owner's id is a zombie on this machine.

        It is the owner itself or, if the id was reused, a later process; the owner is dead in
        either case.
        """
        owner = self._lease.owner
        return owner is not None and _is_zombie(owner.pid) and owner.hostname == _this_host()


@functools.cache
def _this_host() -> str:
    """Return the name that filelock gives this machine in its leases."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SoftFileLease(RunFolder(Path(folder)).lease) as lease,
    ):
        owner = lease.owner
        if owner is None:
            raise OSError(f"files written to {folder} do not persist")
        return owner.hostname


def remove_stale_lease(claim: Claim) -> bool:
    """Remove the lease of a dead owner and its half-written files.

    Returns:
        True if the run is free now, False while the owner lives.
    """
    if not claim.take():
        return False
    claim.release()
    return True


def has_leftovers(folder: Path, names: Set[str]) -> bool:
    """Return True if the folder of a finished run holds a lease or files of a killed process.

    Args:
        folder: the folder of the run.
        names: the names in it.
    """
    run = RunFolder(folder)
    if {run.record.name, run.checkpoint.name} <= names:  # written by a suspended process
        return True
    return any(name.startswith(run.lease.name) or run.is_leftover(name) for name in names)


def _clean_up(folder: Path, seconds: float) -> None:
    """Remove what killed processes left in a folder whose lease this process now holds."""
    run = RunFolder(folder)
    names = run.names()  # one listing serves all that follows
    for name in names:
        if run.is_leftover(name) or _is_abandoned_takeover(run, name, seconds):
            with suppress(OSError):  # a file that cannot be removed does not stop the run
                (run.path / name).unlink()
    # The rest are files of planners, which write without a lease.
    remove_abandoned(folder, ABANDONED_SECONDS, names)
    if run.record.name in names and (run.checkpoint.name in names or run.output.name not in names):
        _complete_commit(run)


def _is_abandoned_takeover(run: RunFolder, name: str, seconds: float) -> bool:
    """Return True if a file was left by a takeover of the lease that was killed half-way.

    Its process is gone, or the file is older than any lease may be.
    """
    if not name.startswith(run.lease.name):
        return False
    match = _TAKEOVER.fullmatch(name.removeprefix(run.lease.name))
    if match is None:
        return False
    path = run.path / name
    try:
        # A file equal to the lease is the lease of this process, moved aside for a moment.
        content = path.read_bytes()
        if content == run.lease.read_bytes():
            return False
        # Both times come from the file system, so the local clock does not matter.
        if path.stat().st_mtime < run.lease.stat().st_mtime - seconds:
            return True
        # A lease that has not expired is only taken over on the machine of its owner, which knows
        # that the owner is dead. Elsewhere the number of the process means nothing.
        here = f"host={_this_host()}".encode() in content.splitlines()
        return here and not _is_alive(int(match[1]))
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where os.kill would send Ctrl-C, which has the number 0
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _is_zombie(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"


@dataclass(frozen=True)
class _Committed:
    """The part of a record that says which attempt committed it."""

    attempt: Positive


def _complete_commit(run: RunFolder) -> None:
    """Do what the engine does after its commit, for a process that was killed in between."""
    try:
        committed = decode(_Committed, read_json(run.record), run.record.name)
    except (OSError, DamagedError):  # the report mentions it
        return
    attempt = run.attempt(committed.attempt)
    run.checkpoint.unlink(missing_ok=True)
    attempt.log.unlink(missing_ok=True)
    if attempt.output.exists():
        os.replace(attempt.output, run.output)
