"""What a launcher tells while it works, and what it says at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Kinds of events, and what each means for the run.
KINDS = {
    "already": "it was done before this launch",
    "start": "a process of this launcher begins it",
    "done": "its record is there",
    "failed": "it ended without a result, and trying again would not help",
    "retry": "it was killed or ran out of memory and will be tried again",
    "elsewhere": "another launcher works on it",
    "interrupted": "it saved itself and waits for the next launch",
    "blocked": "a run that it needs has failed",
    "stopping": "no run: the launcher was asked to stop and waits until its runs have saved themselves",
}


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Args:
        kind: one of ``KINDS``.
        key, label: the run, for machines and for people.
        slot: index of the slot that it runs on, or None.
        attempt: number of the try, or 0 where none was made.
        seconds: how long the try took.
        reason: one sentence: why it failed, is tried again, or is blocked.
    """

    kind: str
    key: str
    label: str
    slot: int | None = None
    attempt: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """How a launch ended.

    Args:
        done: keys of runs that this launch did.
        already: keys of runs that were done before, or that another launcher did meanwhile.
        failed: reason by key, those that had failed before included.
        blocked: by key, the key of the failed run that stands in the way.
        seconds: wall time of the launch.
    """

    done: tuple[str, ...] = ()
    already: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every run is done."""
        return not self.failed and not self.blocked

    def __str__(self) -> str:
        runs = "run" if len(self.done) == 1 else "runs"
        parts = [f"{len(self.done)} {runs} done in {duration(self.seconds)}"]
        parts += [f"{len(self.already)} done before or by another launcher"] if self.already else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.blocked)} blocked by those"] if self.blocked else []
        advice = (
            ""
            if self.complete
            else "\n`status` says why; `retry` and then `launch` try them again."
        )
        return ", ".join(parts) + advice


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class Outcome:
    """What a child says of the run it was given.

    Args:
        kind: ``done``, ``failed``, ``interrupted``, ``out_of_memory`` or ``settled``, which the engine answers;
            ``busy`` where another process holds the lease; ``settled`` where another process has ended the run.
        attempt: number of the try, or 0 where none was made.
        seconds: wall time of the try.
        reason: why it was interrupted.
    """

    kind: str
    attempt: int = 0
    seconds: float = 0.0
    reason: str = ""
