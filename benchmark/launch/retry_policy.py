"""Decides whether a run is tried again after its process died or ran out of memory."""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.files import commit_once, to_json
from benchmark.core.layout import RunFolder, end_of
from benchmark.core.run_states import AttemptEnd
from benchmark.launch import attempts
from benchmark.launch.lease import Claim
from benchmark.launch.run_queue import Node


class Decision(enum.StrEnum):
    """Decision about a run whose attempt did not finish it."""

    #: The record was committed before the process died.
    DONE = "done"
    #: The folder of the run holds a failure.
    FAILED = "failed"
    #: The run will be tried again.
    RETRY = "retry"
    #: Another process holds the lease of the run.
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Verdict:
    """A decision about a run.

    Args:
        decision: what becomes of the run.
        reason: one clause that says why.
        attempt: the number of the attempt, or 0 if the process died before it began one.
    """

    decision: Decision
    reason: str = ""
    attempt: int = 0


def decide(
    node: Node, previous_attempt: int, code: int | None, reason: AttemptEnd, lease_seconds: float
) -> Verdict:
    """Record how an attempt ended and decide what becomes of its run, while holding its lease.

    Args:
        node: the run.
        previous_attempt: the number of the latest attempt before this one.
        code: the exit code of the process, negative for a signal; None if it did not end.
        reason: why the attempt ended.
        lease_seconds: how long a silent owner keeps a lease.
    """
    claim = Claim(node.folder, lease_seconds)
    if not claim.take():
        return Verdict(Decision.ELSEWHERE, "another process holds its lease")
    try:
        return _decide(node, previous_attempt, code, reason)
    finally:
        claim.release()


def _decide(node: Node, previous_attempt: int, code: int | None, reason: AttemptEnd) -> Verdict:
    run = RunFolder(node.folder)
    number = attempts.latest(node.folder)
    state = end_of(node.folder)
    if state is not None:
        return Verdict(Decision(state.value), attempt=number)
    if number > previous_attempt:
        attempts.end(node.folder, number, reason, code=code)
    description = _describe(code, reason)
    alone = reason in attempts.RETRIED_ALONE
    counted = {reason} if alone else attempts.COUNTED_ENDS
    allowed = 1 if alone else attempts.MAX_RETRIES
    ended = attempts.count(node.folder, counted)
    if ended <= allowed:
        return Verdict(Decision.RETRY, description, number if number > previous_attempt else 0)
    output = run.attempt(number).output.relative_to(run.path)
    if reason is AttemptEnd.OUT_OF_MEMORY:
        message = f"{description} even alone on its device; use a smaller batch_size."
    elif alone:
        message = f"{description}, also when it was alone on its device; see {output}."
    else:
        message = f"{description} ({ended} attempts); see its output in {output}."
    kind = FailureKind.SIGNAL if reason is AttemptEnd.EXIT else FailureKind(reason.value)
    commit_once(run.failure, to_json(failure_json(node.key, number, kind, message, code=code)))
    return Verdict(Decision.FAILED, message, number)


def _describe(code: int | None, reason: AttemptEnd) -> str:
    if reason is AttemptEnd.OUT_OF_MEMORY:
        return "it ran out of memory"
    if reason is AttemptEnd.DEVICE_ERROR:
        return "its GPU failed"
    if reason is AttemptEnd.TIMEOUT:
        return "it exceeded the time limit"
    if code is None:
        return "its process could not be started"
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        return f"its process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was killed by signal {-code}"


def count_oom_kills(path: Path = Path("/proc/vmstat")) -> int | None:
    """Return how many processes the kernel has killed for lack of memory since it started.

    Args:
        path: the kernel's statistics.

    Returns:
        The count, or None on systems that do not report it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


@dataclass(frozen=True)
class Cause:
    """Why a process died.

    Args:
        reason: the end that is recorded for its attempt.
        needs_device_alone: True if memory may have been short, so that the next attempt should
            have the device to itself.
    """

    reason: AttemptEnd
    needs_device_alone: bool = False


def cause_of_death(
    code: int | None, kills_before: int | None, kills_now: int | None, *, timed_out: bool
) -> Cause:
    """Return why a process died.

    Args:
        code: its exit code, negative for a signal; None if it is unknown.
        kills_before: ``count_oom_kills()`` when the process started.
        kills_now: ``count_oom_kills()`` after it died.
        timed_out: True if the launcher killed it because of the time limit.
    """
    if timed_out:
        return Cause(AttemptEnd.TIMEOUT)
    if code is None or code >= 0:
        return Cause(AttemptEnd.EXIT)
    if code != -signal.SIGKILL:
        return Cause(AttemptEnd.SIGNAL)
    if kills_before is None or kills_now is None:
        # The kernel does not say whether memory was short: assume that it may have been.
        return Cause(AttemptEnd.SIGNAL, needs_device_alone=True)
    if kills_now > kills_before:
        return Cause(AttemptEnd.OUT_OF_MEMORY, needs_device_alone=True)
    return Cause(AttemptEnd.SIGNAL)
