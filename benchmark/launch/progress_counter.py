"""Counts the events of a launch and estimates the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmark.launch.events import Event, EventKind


@dataclass(frozen=True)
class ActiveRun:
    """A run that this launch works on.

    Args:
        key: the key of the run.
        label: the name of the run in messages.
        slot: the index of its slot.
        attempt: the number of the attempt.
        started: the monotonic time of the start.
    """

    key: str
    label: str
    slot: int
    attempt: int
    started: float


@dataclass
class ProgressCounter:
    """The state of a launch, from its events.

    Args:
        total: the number of runs of the sweep.
        done: the number of runs that this launch has finished.
        already: the number of runs that were done before or by another launcher.
        failed: the number of failed runs.
        blocked: the number of blocked runs.
        active: the runs under way, by key.
    """

    total: int
    done: int = 0
    already: int = 0
    failed: int = 0
    blocked: int = 0
    active: dict[str, ActiveRun] = field(default_factory=dict)
    _durations: list[float] = field(default_factory=list)
    _slots: set[int] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Count an event."""
        if event.kind is EventKind.START and event.slot is not None:
            self._slots.add(event.slot)
            self.active[event.key] = ActiveRun(
                event.key, event.label, event.slot, event.attempt, time.monotonic()
            )
            return
        self.active.pop(event.key, None)
        if event.kind is EventKind.DONE:
            self.done += 1
            self._durations.append(event.seconds)
        elif event.kind is EventKind.ALREADY:
            self.already += 1
        elif event.kind is EventKind.FAILED:
            self.failed += 1
        elif event.kind is EventKind.BLOCKED:
            self.blocked += 1

    @property
    def finished(self) -> int:
        """Return the number of runs that are done, no matter which launcher finished them."""
        return self.done + self.already

    @property
    def pending(self) -> int:
        """Return the number of runs that have not ended and that this launcher does not work on."""
        return max(0, self.total - self.finished - self.failed - self.blocked - len(self.active))

    def by_slot(self) -> list[ActiveRun]:
        """Return the active runs in the order of their slots.

        May be called while another thread counts events, since copying the values is atomic.
        """
        return sorted(list(self.active.values()), key=lambda run: run.slot)  # noqa: C414

    def seconds_left(self, left: Mapping[str, float | None]) -> float | None:
        """Estimate the time that the rest of the launch takes.

        Args:
            left: the seconds left of each active run, by key; None if its log does not say.

        Returns:
            Seconds, or None as long as no run has finished or logged its progress.
        """
        now = time.monotonic()
        durations = self._durations or [
            now - run.started + rest
            for run in self.by_slot()
            if (rest := left.get(run.key)) is not None
        ]
        if not durations:
            return None
        mean = sum(durations) / len(durations)
        work = mean * self.pending
        for run in self.by_slot():
            rest = left.get(run.key)
            work += max(0.0, mean - (now - run.started)) if rest is None else rest
        return work / max(1, len(self._slots))
