"""An engine without torch for the tests of the launcher; it fails on request.

``spec.hparams`` says how: ``sleep`` seconds per step, ``checkpoint_every`` steps, ``saving``
seconds for a checkpoint when asked to stop, and ``mode``, one of the ends below.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import commit_once, read_json, to_json, write_json
from benchmark.core.spec import RunSpec

WORD = 2**64
leaked = 0  # counts runs of one process: a fresh process per run keeps it at 1


def execute(
    folder: Path,
    attempt: int,
    *,
    device: str,
    data_dir: Path | None,
    checkpoint_seconds: float,
    stop: Callable[[], str | None],
    at_once: Callable[[], AbstractContextManager[None]],
) -> str:
    global leaked
    leaked += 1
    spec = RunSpec.from_json(read_json(folder / "spec.json"))
    steps, hp = spec.budget["steps"], spec.hparams
    state = (
        read_json(folder / "checkpoint.pt")
        if (folder / "checkpoint.pt").exists()
        else start(folder, spec)
    )
    home = folder / "attempts" / str(attempt)
    print(f"{spec.method} attempt {attempt} from step {state['step']}")
    os.system("echo from a grandchild")
    with (home / "log.jsonl").open("x") as log:
        log.writelines(state["log"])
        log.flush()
        while state["step"] < steps:
            reason = stop()
            if reason is not None:
                if reason != "lease lost":
                    time.sleep(hp.get("saving", 0.0))
                    write_json(folder / "checkpoint.pt", state)
                return "interrupted"
            step(state, spec, steps)
            log.write(state["log"][-1])
            log.flush()
            if state["step"] == steps // 2:
                end = MODES[hp.get("mode", "well")](folder, attempt)
                if end is not None:
                    return end
            if state["step"] % hp.get("checkpoint_every", 5) == 0:
                write_json(folder / "checkpoint.pt", state)
            time.sleep(hp.get("sleep", 0.0))
    about = {
        "attempt": attempt,
        "key": spec.key,
        "value": state["value"],
        "machine": surroundings(device),
    }
    (folder / "log.jsonl").write_text("".join(state["log"]))
    if not commit_once(folder / "record.json", to_json(about)):
        return "settled"
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    os.replace(home / "output.txt", folder / "output.txt")
    return "done"


def start(folder: Path, spec: RunSpec) -> dict[str, Any]:
    value = spec.trial
    for key in spec.upstream.values():
        value += read_json(folder.parent / key / "record.json")["value"]
    return {"step": 0, "value": value % WORD, "log": []}


def step(state: dict[str, Any], spec: RunSpec, steps: int) -> None:
    state["step"] += 1
    state["value"] = (state["value"] * 6364136223846793005 + state["step"]) % WORD
    line = {
        "step": state["step"],
        "steps": steps,
        "value": state["value"],
        "seconds": 0.01 * state["step"],
        "images_per_second": 100.0,
    }
    state["log"].append(json.dumps(line) + "\n")


def surroundings(device: str) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "leaked": leaked,
        "device": device,
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "cores": sorted(os.sched_getaffinity(0)),
        "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
        "sigint_ignored": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "preloaded": "tests.support.fake_preload" in sys.modules,
    }


def fail(folder: Path, attempt: int) -> str:
    spec = RunSpec.from_json(read_json(folder / "spec.json"))
    write_json(
        folder / "failure.json",
        {
            "schema": 1,
            "key": spec.key,
            "attempt": attempt,
            "kind": "non_finite",
            "message": "loss became NaN",
        },
    )
    return "failed"


def raise_(error: Exception) -> Callable[[Path, int], str]:
    def end(folder: Path, attempt: int) -> str:
        raise error

    return end


def kill(number: int, times: int) -> Callable[[Path, int], str | None]:
    def end(folder: Path, attempt: int) -> str | None:
        if attempt <= times:
            os.kill(os.getpid(), number)
            threading.Event().wait()  # death comes when the kernel gets to it
        return None

    return end


def end_as(outcome: str, times: int) -> Callable[[Path, int], str | None]:
    return lambda folder, attempt: outcome if attempt <= times else None


def hang(folder: Path, attempt: int) -> str | None:
    if attempt == 1:
        threading.Event().wait()
    return None


MODES: dict[str, Callable[[Path, int], str | None]] = {
    "well": lambda folder, attempt: None,
    "failure": fail,
    "exception": raise_(ValueError("a bug, with \x1b[31mcolour\nand a line break")),
    "user_error": raise_(UserError("the data are gone, expected a folder; download them.")),
    "disk_full": raise_(OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")),
    "killed_once": kill(signal.SIGKILL, 1),
    "killed_always": kill(signal.SIGKILL, 99),
    "segfault_once": kill(signal.SIGSEGV, 1),
    "exit": lambda folder, attempt: os._exit(7),
    "memory_once": end_as("out_of_memory", 1),
    "memory_always": end_as("out_of_memory", 99),
    "gpu_fails_once": end_as("device_error", 1),
    "hang_once": hang,
}
