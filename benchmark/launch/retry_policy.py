"""What follows when a run's process dies or runs out of memory: another try, or a failure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.failure import failure_json
from benchmark.core.files import commit_once, to_json
from benchmark.core.layout import RunFolder, State, state_of
from benchmark.launch import attempts
from benchmark.launch.lease import Claim
from benchmark.launch.run_queue import Node

OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a run whose try ended badly.

    Args:
        kind: ``done`` or ``failed`` (its folder says so now), ``retry``, or ``elsewhere``: somebody holds its lease.
        reason: one sentence.
        attempt: number of the try, or 0 where none was made.
    """

    kind: str
    reason: str = ""
    attempt: int = 0


def judge(node: Node, before: int, code: int | None, reason: str, seconds: float) -> Verdict:
    """Note how a try ended and decide what becomes of its run, under the run's lease.

    Args:
        node: the run.
        before: number of the newest try before this one.
        code: exit code of its process as multiprocessing gives it, negative for a signal; None where it lives on.
        reason: ``signal``, ``exit``, ``timeout``, ``out_of_memory``, or ``interrupted`` for what we did ourselves.
        seconds: lease time.
    """
    claim, run = Claim(node.folder, seconds), RunFolder(node.folder)
    if not claim.take():
        return Verdict("elsewhere", "another process holds its lease")
    try:
        state = state_of(node.folder)
        number = max(attempts.numbers(node.folder), default=0)
        if state in (State.DONE, State.FAILED):
            return Verdict(state.value, attempt=number)
        if number > before:
            attempts.end(node.folder, number, reason, code=code)
        sentence = _sentence(code, reason)
        counted = attempts.COUNTED if reason != OUT_OF_MEMORY else {OUT_OF_MEMORY}
        allowed = 1 if reason == OUT_OF_MEMORY else attempts.RETRIES
        tries = attempts.count(node.folder, counted)
        if tries <= allowed:
            return Verdict("retry", sentence, number if number > before else 0)
        kind = "signal" if reason == "exit" else reason
        message = (
            f"{sentence}, {tries} times in all; its output is in "
            f"{run.attempt(number).output.relative_to(run.path)}."
        )
        if reason == OUT_OF_MEMORY:
            message = f"{sentence}, also alone on its device; a smaller batch_size would need less."
        failure = failure_json(node.key, number, kind, message, code=code)
        commit_once(run.failure, to_json(failure))
        return Verdict("failed", message, number)
    finally:
        claim.release()


def _sentence(code: int | None, reason: str) -> str:
    if reason == OUT_OF_MEMORY:
        return "it ran out of memory"
    if reason == "timeout":
        return "it took longer than its time limit"
    if code is None:
        return "its process could not be started"
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        return f"its process was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was killed by signal {-code}"


def memory_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started, or None if it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def cause(code: int | None, before: int | None, timed_out: bool) -> tuple[str, bool]:
    """Why a process died, and whether its run should have the device to itself next time.

    Args:
        code: its exit code, negative for a signal.
        before: ``memory_kills()`` when it started.
        timed_out: whether the launcher killed it for its time limit.
    """
    if timed_out:
        return "timeout", False
    if code is None or code >= 0:
        return "exit", False
    if code != -signal.SIGKILL:
        return "signal", False
    now = memory_kills()
    if (
        before is None or now is None
    ):  # the kernel does not say whether it was memory: assume that it may have been
        return "signal", True
    return (OUT_OF_MEMORY, True) if now > before else ("signal", False)
