"""States of runs that depend on other runs, and the ends of attempts."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping

from benchmark.core.layout import State

#: States of runs that get no result unless a user does something.
WITHOUT_RESULT = frozenset({State.FAILED, State.BLOCKED, State.UNREADABLE})


class AttemptEnd(enum.StrEnum):
    """Why an attempt ended without a record or a failure."""

    SIGNAL = "signal"
    EXIT = "exit"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    #: A GPU failed for another reason than its memory.
    DEVICE_ERROR = "device_error"
    #: The launcher ended it, or the machine prevented it from continuing (a full disk).
    INTERRUPTED = "interrupted"
    #: It was asked to stop and saved a checkpoint.
    STOPPED = "stopped"
    #: Another process took its lease. The attempt must not write anything more.
    LEASE_LOST = "lease lost"


def blocked_runs(
    waiting: Iterable[str],
    upstream: Mapping[str, Iterable[str]],
    without_result: Collection[str],
) -> dict[str, str]:
    """Find the runs that cannot start because a run that they need has no result.

    A run is blocked if one of its upstream runs is in ``without_result`` or is itself blocked.

    Args:
        waiting: Keys of the runs that have not started.
        upstream: Keys of the upstream runs of each waiting run, by key; a missing entry means none.
        without_result: Keys of the runs that failed or cannot be read.

    Returns:
        The key of the first upstream run in the way, by key of the blocked run. A blocked run
        stands after the blocked runs that it needs.
    """
    blocked: dict[str, str] = {}
    to_visit = dict.fromkeys(waiting)
    visited: set[str] = set()

    def is_in_the_way(key: str) -> bool:
        if key in without_result or key in blocked:
            return True
        if key not in to_visit or key in visited:
            return False
        visited.add(key)
        for needed in upstream.get(key, ()):
            if is_in_the_way(needed):
                blocked[key] = needed
                return True
        return False

    for key in to_visit:
        is_in_the_way(key)
    return blocked
