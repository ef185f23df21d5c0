"""Runs that other launchers work on, watched until they end or can be claimed again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.files import remove_abandoned
from benchmark.core.layout import ABANDONED_SECONDS, State, end_of
from benchmark.launch.lease import Claim, Mark, has_leftovers, remove_stale_lease
from benchmark.launch.run_queue import Node

#: Seconds between two checks of a run, at first and at most for a single run. A launcher that
#: watches many runs looks at each less often, so that all launchers together look at a few runs per
#: second each.
_FIRST_INTERVAL = 0.25
_LONGEST_INTERVAL = 5.0
#: Seconds between two looks at any run, on average, in the long run.
_PACE = 1.0
#: The share of the lease time without a heartbeat after which a process that exists may be
#: suspended.
_SUSPICIOUS = 0.5
#: Seconds that the owner of a finished run is given to remove its lease.
_GRACE_SECONDS = 5.0


@dataclass
class _WatchedRun:
    """A run of another launcher.

    Attributes:
        node: the run.
        claim: the lease, which measures for how long it has been silent.
        since: monotonic time of the first look, or of the end of the run.
        next_check: monotonic time of the next look.
        interval: seconds between looks.
        mark: the lease at the last look; None before the first.
        unchanged_since: monotonic time at which this mark was seen first.
        settled: True if its state has been reported, and only its lease is left.
        alive: True if its owner has been seen alive.
    """

    node: Node
    claim: Claim
    since: float
    next_check: float
    interval: float = _FIRST_INTERVAL
    mark: Mark | None = None
    unchanged_since: float = 0.0
    settled: bool = False
    alive: bool = False

    def should_try(self, now: float) -> bool:
        """Return True if the lease may be free or expired, or has changed since the last try.

        The lease measures silence from the first try after a heartbeat, so that every heartbeat
        needs one. Any other look reads nothing but the time of the file.
        """
        mark = self.claim.mark()
        if mark is None:
            return True
        is_first = self.mark is None
        changed = mark != self.mark
        if changed:
            self.mark = mark
            self.unchanged_since = now
        silent = now - self.unchanged_since
        is_alive = self.claim.owner_is_alive(mark)
        self.alive |= is_alive is True or (changed and not is_first)
        if is_alive is None:  # on another machine
            return changed or silent >= self.claim.seconds
        return not is_alive or silent >= _SUSPICIOUS * self.claim.seconds


class ForeignRuns:
    """The runs that other launchers have claimed.

    Args:
        lease_seconds: how long a silent owner keeps a lease.
    """

    def __init__(self, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._watched: dict[str, _WatchedRun] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def has_doubtful(self) -> bool:
        """Return True if the owner of a watched run has not been seen alive.

        Its machine may be down. Its lease then expires, and the run can be claimed.
        """
        return any(not watched.alive for watched in self._watched.values() if not watched.settled)

    def watch(self, node: Node, *, at_once: bool = True) -> None:
        """Watch a run whose lease another process holds.

        Args:
            node: the run.
            at_once: False if its owner was alive a moment ago, so that the first look can wait; a
                short run may have ended by then.
        """
        now = time.monotonic()
        first = now if at_once else now + _FIRST_INTERVAL
        claim = Claim(node.folder, self.lease_seconds)
        self._watched[node.key] = _WatchedRun(node, claim, since=now, next_check=first)

    def watch_leftovers(self, node: Node, names: Set[str]) -> None:
        """Watch a finished run whose lease, or a file of a killed process, is still there.

        Args:
            node: the run.
            names: the names in its folder.
        """
        # Files of planners, which need no lease.
        remove_abandoned(node.folder, ABANDONED_SECONDS, names)
        if has_leftovers(node.folder, names):
            self.watch(node)
            self._watched[node.key].settled = True

    def forget(self, key: str) -> Node | None:
        """Stop watching a run that is said to be done; return it if it was watched."""
        watched = self._watched.get(key)
        if watched is None or watched.settled:
            return None
        del self._watched[key]
        return watched.node

    def poll(self) -> Iterator[tuple[Node, State]]:
        """Check the runs that are due.

        Yields:
            The runs that are done, failed, or pending because they can be claimed again.
        """
        now = time.monotonic()
        for key, watched in list(self._watched.items()):
            if now >= watched.next_check:
                state = self._check(key, watched, now)
                if state is not None:
                    yield watched.node, state

    def _check(self, key: str, watched: _WatchedRun, now: float) -> State | None:
        """Return the new state of a run, or None if there is nothing to report."""
        folder = watched.node.folder
        watched.next_check = now + watched.interval
        longest = max(_LONGEST_INTERVAL, _PACE * len(self._watched))
        watched.interval = min(1.5 * watched.interval, longest)
        end = None if watched.settled else end_of(folder)
        if end is None and not watched.should_try(now):
            return None
        if end is None and not folder.is_dir():
            del self._watched[key]  # the folder was removed, which the scheduler finds out
            return None if watched.settled else State.PENDING
        return self._try_to_claim(key, watched, end, now)

    def _try_to_claim(
        self, key: str, watched: _WatchedRun, end: State | None, now: float
    ) -> State | None:
        is_free = _is_free(watched.claim)
        if is_free or (watched.settled and now - watched.since > _GRACE_SECONDS):
            del self._watched[key]
            if watched.settled:
                return None
            # The run may have ended between the two looks.
            return end or end_of(watched.node.folder) or State.PENDING
        if end is not None:
            watched.settled = True
            watched.since = now
            watched.interval = _FIRST_INTERVAL
            watched.next_check = now + _FIRST_INTERVAL
        return end


def _is_free(claim: Claim) -> bool:
    """Take the lease of a dead owner away; a folder that has just been removed is free."""
    folder: Path = claim.folder
    try:
        return remove_stale_lease(claim)
    except FileNotFoundError:
        if folder.is_dir():
            raise
        return True
