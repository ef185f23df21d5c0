"""The GPUs of this machine that nvidia-smi lists and PyTorch can use.

nvidia-smi alone also lists GPUs on which every run would fail: the driver may be too old, PyTorch
may be built without CUDA, a container may lack the driver's library, or a GPU may have fallen off
the bus. PyTorch is tried in a short process of its own, so that this process creates no CUDA
context.
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

#: The environment variable that limits the GPUs that CUDA shows to a process.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: Seconds within which a working nvidia-smi answers, even if it has to wake eight GPUs first.
LISTING_SECONDS = 30.0
#: Seconds within which PyTorch answers for all GPUs, imports included.
PROBE_SECONDS = 60.0
#: Device files of the driver, on Linux and in the Windows subsystem for Linux.
_DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg")
_UUID = re.compile(r"\bGPU-[0-9A-Za-z-]+")
#: The largest number of GPUs that a message names.
_MAX_NAMED = 4
#: The largest number of characters that a message quotes.
_MAX_QUOTED = 160


@dataclass(frozen=True)
class Gpus:
    """The GPUs of this machine.

    Args:
        usable: a value of CUDA_VISIBLE_DEVICES for each usable GPU.
        problems: why other GPUs are not used; each is a clause without a full stop.
    """

    usable: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """Return one sentence about GPUs that cannot be used, or an empty text."""
        if not self.problems:
            return ""
        used = f"used: {', '.join(self.usable)}" if self.usable else "the CPU is used"
        return f"{'; '.join(self.problems)}; {used}."


@dataclass(frozen=True)
class _Listing:
    """Output of nvidia-smi: the GPUs that it lists, and its error, if any."""

    present: tuple[str, ...]
    error: str = ""
    hung: bool = False


@dataclass(frozen=True)
class _Probe:
    """Output of ``gpu_probe``; ``devices`` has the uuid and the problem of each GPU."""

    reason: str = ""
    hopeless: bool = False
    devices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Completed:
    """A command that has ended."""

    code: int
    out: str
    err: str


def find_gpus() -> Gpus:
    """Return the GPUs that runs can use. The result is cached.

    GPUs are identified by UUID, since nvidia-smi numbers them by bus position and CUDA by speed.
    CUDA_VISIBLE_DEVICES limits them; an empty value means none.
    """
    return _find(shutil.which("nvidia-smi"), os.environ.get(VISIBLE), has_driver())


def has_driver() -> bool:
    """Return True if the driver of NVIDIA GPUs shows its device files."""
    return any(os.path.exists(path) for path in _DRIVER_FILES)


def require_gpus() -> Gpus:
    """As ``find_gpus``, for a user who asked for GPUs.

    Raises:
        UserError: there is no usable GPU.
    """
    gpus = find_gpus()
    if not gpus.usable:
        no_gpu = (
            "no NVIDIA GPU was found (nvidia-smi lists none that this process may use; "
            f"{VISIBLE} is {os.environ.get(VISIBLE, 'not set')!r})"
        )
        problem = "; ".join(gpus.problems) or no_gpu
        raise UserError(f"device is cuda, but {problem}; use --device cpu.")
    return gpus


@functools.cache
def _find(program: str | None, visible: str | None, driver: bool) -> Gpus:
    """Find the usable GPUs.

    Args:
        program: the path of nvidia-smi, or None if it is not installed.
        visible: the value of CUDA_VISIBLE_DEVICES, or None if it is not set.
        driver: whether the driver of NVIDIA GPUs shows its device files.
    """
    allowed = None if visible is None else _parse_visible(visible)
    if allowed == ():
        return Gpus()
    if program is None:
        # Containers may have the driver without nvidia-smi; PyTorch then tells the GPUs.
        if allowed:
            return Gpus(*_try_gpus(allowed))
        if not driver:
            return Gpus()
        found = _gpus_of_pytorch(())
        silent = found == Gpus()
        return Gpus((), ("nvidia-smi is missing and PyTorch finds no GPU",)) if silent else found
    listing = _list_gpus(program)
    problems = [f"nvidia-smi {listing.error}"] if listing.error else []
    candidates = listing.present if allowed is None else allowed
    if candidates:
        usable, bad = _try_gpus(candidates)
        return Gpus(usable, (*problems, *bad))
    if listing.hung:  # CUDA would hang as well
        return Gpus((), tuple(problems))
    # CUDA may still work with the remaining GPUs.
    return _gpus_of_pytorch(tuple(problems))


def _gpus_of_pytorch(problems: tuple[str, ...]) -> Gpus:
    """Return the usable GPUs among those that PyTorch finds, when nvidia-smi lists none.

    Args:
        problems: why nvidia-smi lists none.
    """
    probe = _run_probe(None)
    if probe.reason:
        return Gpus((), problems)
    names = [f"GPU-{uuid}" if uuid else str(i) for i, (uuid, _) in enumerate(probe.devices)]
    reasons = {name: reason for name, (_, reason) in zip(names, probe.devices, strict=True)}
    usable = tuple(name for name in names if not reasons[name])
    return Gpus(usable, (*problems, *_describe(reasons)))


def _parse_visible(visible: str) -> tuple[str, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names; like CUDA, stop at an invalid entry."""
    entries: dict[str, None] = {}
    for entry in (part.strip() for part in visible.split(",")):
        if not entry or entry.startswith("-"):
            break
        entries[entry] = None
    return tuple(entries)


def _list_gpus(program: str) -> _Listing:
    completed = _run([program, "--query-gpu=uuid", "--format=csv,noheader"], LISTING_SECONDS)
    if completed is None:
        error = f"did not answer within {LISTING_SECONDS:g} seconds"
        return _Listing((), error, hung=True)
    present = tuple(dict.fromkeys(_UUID.findall(completed.out)))
    if completed.code == 0 and present:
        return _Listing(present)
    lines = [line for line in f"{completed.err}\n{completed.out}".splitlines() if line.strip()]
    message = next((line for line in lines if not _UUID.match(line.strip())), "")
    error = f"failed with exit code {completed.code}" if completed.code else "lists no GPU"
    if message:
        error += f" ({_clause(message)})"
    if not present:  # if one GPU is lost, this command still lists the others
        other = _run([program, "-L"], LISTING_SECONDS)
        present = () if other is None else tuple(dict.fromkeys(_UUID.findall(other.out)))
    return _Listing(present, error)


def _try_gpus(candidates: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the GPUs that PyTorch can use, and descriptions of why it cannot use the others."""
    probe = _run_probe(candidates)
    if probe.hopeless:
        reasons = dict.fromkeys(candidates, probe.reason)
    elif len(probe.devices) == len(candidates):
        reasons = {name: why for name, (_, why) in zip(candidates, probe.devices, strict=True)}
    elif len(candidates) == 1:
        reasons = {candidates[0]: probe.reason or "CUDA shows a different number of GPUs"}
    else:
        # A lost GPU hides those after it, or stops CUDA as a whole: try each GPU alone.
        with ThreadPoolExecutor(len(candidates)) as threads:
            probes = threads.map(lambda name: _run_probe([name]), candidates)
            reasons = {
                name: _reason_alone(alone) for name, alone in zip(candidates, probes, strict=True)
            }
    return tuple(name for name in candidates if not reasons[name]), _describe(reasons)


def _reason_alone(probe: _Probe) -> str:
    """Return why PyTorch cannot use the only visible GPU; empty if it can."""
    if probe.reason:
        return probe.reason
    return probe.devices[0][1] if probe.devices else "CUDA does not show it"


def _describe(reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return a clause for each different reason, with the names of its GPUs."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason:
            by_reason.setdefault(_clause(reason), []).append(name)
    return tuple(
        f"PyTorch cannot use {_join_names(names)} ({reason})" for reason, names in by_reason.items()
    )


def _join_names(names: Sequence[str]) -> str:
    full = [name if name.startswith(("GPU-", "MIG-")) else f"GPU {name}" for name in names]
    text = ", ".join(full[:_MAX_NAMED])
    if len(full) > _MAX_NAMED:
        text += f" and {len(full) - _MAX_NAMED} more GPUs"
    return text


def _clause(text: str) -> str:
    """Return the first line of a message, printable, shortened and without a full stop."""
    line = one_line(next((line for line in text.splitlines() if line.strip()), ""))
    if len(line) > _MAX_QUOTED:
        line = f"{line[:_MAX_QUOTED]}…"
    return line.rstrip(".")


def _run_probe(visible: Sequence[str] | None) -> _Probe:
    """Run ``gpu_probe`` in a process of its own.

    Args:
        visible: the GPUs that the process sees, or None for those that this process sees.
    """
    environment = dict(os.environ)
    if visible is not None:
        environment[VISIBLE] = ",".join(visible)
    # -P: the folder of the program must not come before the packages that it imports.
    command = [sys.executable, "-P", str(Path(gpu_probe.__file__))]
    completed = _run(command, PROBE_SECONDS, environment)
    if completed is None:
        return _Probe(f"PyTorch did not answer within {PROBE_SECONDS:g} seconds")
    try:
        answer = json.loads(completed.out.splitlines()[-1])
    except (IndexError, ValueError):
        last_line = "".join(f": {line}" for line in completed.err.strip().splitlines()[-1:])
        return _Probe(f"a trial process ended with code {completed.code}{last_line}")
    devices = tuple((device["uuid"], device["reason"]) for device in answer["devices"])
    return _Probe(answer["reason"], answer["hopeless"], devices)


def _run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> _Completed | None:
    """Run a command; return None if it does not end in time.

    Its output goes to files rather than pipes, and it is not waited for without a limit: a process
    that hangs in the driver does not even die of SIGKILL, and its children would keep a pipe open.
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
            return _Completed(127, "", str(error))
        try:
            code = process.wait(seconds)
        except BaseException as error:  # Ctrl-C reaches only this process
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return _Completed(code, texts[0], texts[1])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children, and wait for a moment."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
