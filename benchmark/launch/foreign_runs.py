"""Runs that other launchers work on, watched until they end or can be claimed again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.core.files import remove_abandoned
from benchmark.core.layout import ABANDONED_SECONDS, State, state_of
from benchmark.launch.lease import Claim, has_leftovers, remove_stale_lease
from benchmark.launch.run_queue import Node

#: Seconds between two checks of a run, at first and at most.
_FIRST_INTERVAL = 0.25
_LONGEST_INTERVAL = 5.0
#: Seconds that the owner of a finished run is given to remove its lease.
_GRACE_SECONDS = 5.0

_ENDED = (State.DONE, State.FAILED)


@dataclass
class _WatchedRun:
    node: Node
    claim: Claim
    since: float
    next_check: float
    interval: float = _FIRST_INTERVAL
    settled: bool = False  # its state has been reported; only its lease is left


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

    def watch(self, node: Node) -> None:
        """Watch a run whose lease another process holds."""
        now = time.monotonic()
        claim = Claim(node.folder, self.lease_seconds)
        self._watched[node.key] = _WatchedRun(node, claim, since=now, next_check=now)

    def watch_leftovers(self, node: Node) -> None:
        """Watch a finished run whose lease, or a file of a killed process, is still there."""
        remove_abandoned(node.folder, ABANDONED_SECONDS)  # files of planners, which need no lease
        if has_leftovers(node.folder):
            self.watch(node)
            self._watched[node.key].settled = True

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
        watched.interval = min(1.5 * watched.interval, _LONGEST_INTERVAL)
        state = state_of(folder)
        if state is State.PENDING and not folder.is_dir():
            del self._watched[key]  # the folder was removed, which the scheduler finds out
            return None if watched.settled else state
        is_free = remove_stale_lease(watched.claim)
        if is_free or (watched.settled and now - watched.since > _GRACE_SECONDS):
            del self._watched[key]
            if watched.settled:
                return None
            state = state_of(folder)  # the run may have ended between the two looks
            return state if state in _ENDED else State.PENDING
        if state in _ENDED and not watched.settled:
            watched.settled = True
            watched.since = now
            watched.interval = _FIRST_INTERVAL
            watched.next_check = now + _FIRST_INTERVAL
            return state
        return None
