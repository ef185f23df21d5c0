"""Events that a launcher reports while it works, and its summary at the end."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

#: The exit code of ``sweep work`` if its time was up before the sweep was done.
TIME_IS_UP = 75
#: The exit code of a command that a signal has asked to stop.
INTERRUPTED = 130


class EventKind(enum.StrEnum):
    """Kind of an event in the life of a run."""

    #: The run was done before this launch, or another launcher has finished it.
    ALREADY = "already"
    #: A process of this launcher starts the run.
    START = "start"
    #: This launcher has finished the run.
    DONE = "done"
    #: The run ended without a result, and another attempt would not help.
    FAILED = "failed"
    #: The run was killed or ran out of memory, and will be tried again.
    RETRY = "retry"
    #: Another launcher works on the run.
    ELSEWHERE = "elsewhere"
    #: The run has saved a checkpoint and waits for the next launch.
    INTERRUPTED = "interrupted"
    #: A run that this one needs has failed.
    BLOCKED = "blocked"
    #: The launcher was asked to stop and waits until its runs have saved; concerns no single run.
    STOPPING = "stopping"


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Args:
        kind: what happened.
        key: the key of the run; empty for ``STOPPING``.
        label: the name of the run in messages.
        slot: the index of the slot that the run uses, or None.
        attempt: the number of the attempt, or 0 if there was none.
        seconds: the duration of the attempt.
        reason: one sentence on why the run failed, is tried again, or is blocked.
    """

    kind: EventKind
    key: str
    label: str
    slot: int | None = None
    attempt: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """The result of a launch.

    Args:
        done: the keys of the runs that this launch finished.
        already: the keys of the runs that were done before, or that another launcher finished.
        failed: the reason for each failed run, by key; includes runs that had failed before.
        blocked: for each blocked run, by key, the key of the failed run that it needs.
        seconds: the wall time of the launch.
        time_is_up: True if a worker left runs to others because its time was up.
    """

    done: tuple[str, ...] = ()
    already: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    time_is_up: bool = False

    @property
    def complete(self) -> bool:
        """Return True if every run is done."""
        return not self.failed and not self.blocked

    def __str__(self) -> str:
        runs = "run" if len(self.done) == 1 else "runs"
        parts = [f"{len(self.done)} {runs} done in {duration(self.seconds)}"]
        if self.already:
            parts.append(f"{len(self.already)} done before or by another launcher")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.blocked:
            parts.append(f"{len(self.blocked)} blocked by failed runs")
        text = ", ".join(parts)
        if self.complete:
            return text
        return f"{text}\n`status` shows the reasons. To try again, run `retry` and then `launch`."


def duration(seconds: float) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
