"""The GPUs of this machine: those that nvidia-smi lists and PyTorch can use.

A driver that is too old, a PyTorch without CUDA, a container without the driver's library, or one GPU
that fell off the bus: nvidia-smi lists GPUs on which every run would fail. PyTorch is asked in a
short process of its own, so that no CUDA context is made in the process that asks.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.text import one_line
from benchmark.launch import gpu_probe

#: Limits which GPUs CUDA shows to a process.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Seconds within which a driver that works answers, also where it first has to wake eight GPUs.
_LISTING_SECONDS, _PROBE_SECONDS = 30.0, 60.0
_UUID = re.compile(r"\bGPU-[0-9A-Za-z-]+")
#: GPUs that a message names, and characters that it quotes.
_NAMED, _QUOTED = 4, 160


@dataclass(frozen=True)
class Gpus:
    """What there is to run on.

    Args:
        usable: what CUDA_VISIBLE_DEVICES may be set to, one entry for each GPU.
        problems: why other GPUs are not used, each a clause without a full stop.
    """

    usable: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """One sentence about GPUs that are left out and what is used instead, or an empty text."""
        if not self.problems:
            return ""
        used = f"used: {', '.join(self.usable)}" if self.usable else "the CPU is used"
        return f"{'; '.join(self.problems)}; {used}."


@dataclass(frozen=True)
class _Listing:
    """Answer of nvidia-smi: the GPUs that it names, and its complaint, if it has one."""

    present: tuple[str, ...]
    complaint: str = ""
    hung: bool = False


@dataclass(frozen=True)
class _Probe:
    """Answer of PyTorch: why it can use no GPU, and uuid and problem of each GPU that it sees."""

    reason: str = ""
    hopeless: bool = False
    devices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Ended:
    code: int
    out: str
    err: str


def find_gpus() -> Gpus:
    """The GPUs that runs can use; asked once per process.

    UUIDs rather than numbers, since nvidia-smi counts in the order of the bus and CUDA by speed.
    CUDA_VISIBLE_DEVICES narrows them, and an empty value means none.
    """
    return _find(shutil.which("nvidia-smi"), os.environ.get(VISIBLE))


def require_gpus() -> Gpus:
    """The GPUs that runs can use, where the user asked for GPUs.

    Raises:
        UserError: there is none.
    """
    found = find_gpus()
    if not found.usable:
        default = (
            "no NVIDIA GPU answers (nvidia-smi lists none that this process may use; "
            f"{VISIBLE} is {os.environ.get(VISIBLE, 'not set')!r})"
        )
        raise UserError(
            f"device is cuda, but {'; '.join(found.problems) or default}; use --device cpu."
        )
    return found


@functools.cache
def _find(program: str | None, allowed: str | None) -> Gpus:
    chosen = None if allowed is None else _entries(allowed)
    if program is None or chosen == ():
        return Gpus()
    listing = _list_gpus(program)
    problems = [f"nvidia-smi {listing.complaint}"] if listing.complaint else []
    candidates = listing.present if chosen is None else chosen
    if candidates:
        usable, bad = _usable(candidates)
        return Gpus(usable, (*problems, *bad))
    if listing.hung:  # CUDA would hang as well
        return Gpus((), tuple(problems))
    # CUDA may still work with the GPUs that are left
    answer = _ask(None)
    if answer.reason:
        return Gpus((), tuple(problems))
    names = [f"GPU-{uuid}" if uuid else str(i) for i, (uuid, _) in enumerate(answer.devices)]
    reasons = {name: why for name, (_, why) in zip(names, answer.devices, strict=True)}
    usable = tuple(name for name in names if not reasons[name])
    return Gpus(usable, (*problems, *_in_words(reasons)))


def _entries(allowed: str) -> tuple[str, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES names; CUDA stops reading at the first entry that is none."""
    chosen: dict[str, None] = {}
    for entry in (part.strip() for part in allowed.split(",")):
        if not entry or entry.startswith("-"):
            break
        chosen[entry] = None
    return tuple(chosen)


def _list_gpus(program: str) -> _Listing:
    answer = _run([program, "--query-gpu=uuid", "--format=csv,noheader"], _LISTING_SECONDS)
    if answer is None:
        why = f"did not answer within {_LISTING_SECONDS:g} seconds"
        return _Listing((), why, hung=True)
    present = tuple(dict.fromkeys(_UUID.findall(answer.out)))
    if answer.code == 0 and present:
        return _Listing(present)
    lines = [line for line in f"{answer.err}\n{answer.out}".splitlines() if line.strip()]
    said = next((line for line in lines if not _UUID.match(line.strip())), "")
    why = f"failed with exit code {answer.code}" if answer.code else "lists no GPU"
    if not present:  # where one GPU is lost, this command still lists the others
        other = _run([program, "-L"], _LISTING_SECONDS)
        present = () if other is None else tuple(dict.fromkeys(_UUID.findall(other.out)))
    return _Listing(present, f"{why} ({_clause(said)})" if said else why)


def _usable(candidates: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the GPUs that PyTorch can use, and in words why it cannot use the others."""
    answer = _ask(candidates)
    if answer.hopeless:
        reasons = dict.fromkeys(candidates, answer.reason)
    elif len(answer.devices) == len(candidates):
        reasons = {name: why for name, (_, why) in zip(candidates, answer.devices, strict=True)}
    elif len(candidates) == 1:
        reasons = {candidates[0]: answer.reason or "CUDA shows another number of GPUs"}
    else:  # a GPU that is lost hides those after it, or stops CUDA as a whole: ask for each alone
        with ThreadPoolExecutor(len(candidates)) as threads:
            alone = threads.map(lambda name: _ask([name]), candidates)
            reasons = {
                name: one.reason or (one.devices[0][1] if one.devices else "CUDA does not show it")
                for name, one in zip(candidates, alone, strict=True)
            }
    return tuple(name for name in candidates if not reasons[name]), _in_words(reasons)


def _in_words(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """A clause for each reason, with the GPUs that it is about."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason:
            by_reason.setdefault(_clause(reason), []).append(name)
    return tuple(
        f"PyTorch cannot use {_names(names)} ({reason})" for reason, names in by_reason.items()
    )


def _names(names: Sequence[str]) -> str:
    called = [name if name.startswith(("GPU-", "MIG-")) else f"GPU {name}" for name in names]
    more = f" and {len(called) - _NAMED} more GPUs" if len(called) > _NAMED else ""
    return ", ".join(called[:_NAMED]) + more


def _clause(text: str) -> str:
    """The first line of a message, printable, not too long, and without its full stop."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    plain = one_line(line)
    return (plain if len(plain) <= _QUOTED else plain[:_QUOTED] + "…").rstrip(".")


def _ask(visible: Sequence[str] | None) -> _Probe:
    """Ask PyTorch in a process that sees these GPUs, or, with None, those that this process sees."""
    environment = dict(os.environ)
    if visible is not None:
        environment[VISIBLE] = ",".join(visible)
    # -P: the folder of the program must not come before the packages that it imports
    command = [sys.executable, "-P", str(Path(gpu_probe.__file__))]
    answer = _run(command, _PROBE_SECONDS, environment)
    if answer is None:
        return _Probe(f"PyTorch did not answer within {_PROBE_SECONDS:g} seconds")
    try:
        told = json.loads(answer.out.splitlines()[-1])
    except (IndexError, ValueError):
        last = answer.err.strip().splitlines()[-1:]
        return _Probe(
            f"a trial process ended with code {answer.code}" + "".join(f": {line}" for line in last)
        )
    devices = tuple((one["uuid"], one["reason"]) for one in told["devices"])
    return _Probe(told["reason"], told["hopeless"], devices)


def _run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> _Ended | None:
    """Run a command; None where it does not end in time.

    Its output goes to files and not to pipes, and it is not waited for: a process that hangs in the
    driver does not even die of SIGKILL, and its children would keep a pipe open.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            return _Ended(127, "", str(error))
        try:
            code = process.wait(seconds)
        except BaseException as error:  # Ctrl-C reaches this process alone
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return _Ended(code, texts[0], texts[1])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started, and give it a moment to be gone."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
