"""Runs that other launchers work on: watched until they are done, or free again because their owner is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.core.files import remove_abandoned
from benchmark.core.layout import ABANDONED_SECONDS, State, state_of
from benchmark.launch.lease import Claim, clear, untidy
from benchmark.launch.run_queue import Node

#: Seconds between two looks at a run: at first, and at most.
_SOON, _LATE = 0.25, 5.0
#: How long the owner of a finished run is given to remove its lease.
_GRACE = 5.0


@dataclass
class _Watched:
    node: Node
    claim: Claim
    since: float
    next_look: float
    pause: float = _SOON
    settled: bool = False


class Others:
    """What other launchers have claimed.

    Args:
        lease_seconds: how long a silent owner keeps a lease.
    """

    def __init__(self, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._watched: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, node: Node) -> None:
        """Look after a run whose lease somebody holds."""
        now = time.monotonic()
        self._watched[node.key] = _Watched(node, Claim(node.folder, self.lease_seconds), now, now)

    def watch_settled(self, node: Node) -> None:
        """See to it that the lease of a finished run goes, and what a killed process left, if there is any."""
        remove_abandoned(node.folder, ABANDONED_SECONDS)  # of planners, which need no lease
        if untidy(node.folder):
            self.watch(node)
            self._watched[node.key].settled = True

    def look(self) -> Iterator[tuple[Node, State]]:
        """Runs whose fate is known: DONE, FAILED, or PENDING where they can be claimed again."""
        now = time.monotonic()
        for key, other in list(self._watched.items()):
            if now < other.next_look:
                continue
            other.next_look, other.pause = now + other.pause, min(1.5 * other.pause, _LATE)
            state = state_of(other.node.folder)
            if state is State.PENDING and not other.node.folder.is_dir():
                del self._watched[key]  # removed: the launcher finds that out
                if not other.settled:
                    yield other.node, state
                continue
            free = clear(other.claim)
            if free or (other.settled and now - other.since > _GRACE):
                del self._watched[key]
                if not other.settled:  # it may have been settled between the two looks
                    state = state_of(other.node.folder)
                    yield (
                        other.node,
                        state if state in (State.DONE, State.FAILED) else State.PENDING,
                    )
            elif state in (State.DONE, State.FAILED) and not other.settled:
                other.settled, other.since, other.pause = True, now, _SOON
                other.next_look = now + _SOON
                yield other.node, state
