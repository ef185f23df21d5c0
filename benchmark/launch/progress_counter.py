"""Counting what a launch does, and guessing how long the rest takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from benchmark.launch.events import Event


@dataclass
class Active:
    """A run under way in this launch."""

    key: str
    label: str
    slot: int
    attempt: int
    started: float


@dataclass
class Tally:
    """The state of a launch, from its events.

    Args:
        total: how many runs the sweep has.
    """

    total: int
    done: int = 0
    already: int = 0
    failed: int = 0
    blocked: int = 0
    active: dict[str, Active] = field(default_factory=dict)
    _seconds: list[float] = field(default_factory=list)
    _slots: set[int] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Take note of an event."""
        if event.kind == "start" and event.slot is not None:
            self._slots.add(event.slot)
            self.active[event.key] = Active(
                event.key, event.label, event.slot, event.attempt, time.monotonic()
            )
            return
        self.active.pop(event.key, None)
        if event.kind == "done":
            self.done += 1
            self._seconds.append(event.seconds)
        elif event.kind in ("already", "failed", "blocked"):
            setattr(self, event.kind, getattr(self, event.kind) + 1)

    @property
    def finished(self) -> int:
        """Runs that are done, by whomever."""
        return self.done + self.already

    @property
    def pending(self) -> int:
        """Runs that nobody here works on and that are not at their end."""
        return max(0, self.total - self.finished - self.failed - self.blocked - len(self.active))

    def by_slot(self) -> list[Active]:
        """The active runs in the order of their slots; safe while another thread counts."""
        return sorted(list(self.active.values()), key=lambda active: active.slot)  # noqa: C414  # list() is atomic

    def seconds_left(self, left: dict[str, float | None]) -> float | None:
        """How long the rest will take, or None while nothing can be told.

        Args:
            left: seconds left per active run, None where its log does not tell.
        """
        now = time.monotonic()
        lengths = self._seconds or [
            now - active.started + rest
            for active in self.by_slot()
            if (rest := left.get(active.key)) is not None
        ]
        if not lengths:
            return None
        usual = sum(lengths) / len(lengths)
        work = usual * self.pending
        for active in self.by_slot():
            rest = left.get(active.key)
            work += max(0.0, usual - (now - active.started)) if rest is None else rest
        return work / max(1, len(self._slots))
