"""CPU seconds that launching costs per run: everything but the run itself, which here does nothing.

``python tests/benchmarks/launch_overhead.py [RUNS]`` launches so many runs of an engine that
commits at once, with what every launch preloads (torch, torchvision, all algorithms and data sets),
and counts the CPU time of the launcher, the fork server and every process of a run.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support import launcher_process  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    ctypes.CDLL(None).prctl(
        PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    )  # so that the fork server's time is counted too
    for title, preload in (
        ("what a launch preloads", ["benchmark.launch.preload", "tests.support.fake_preload"]),
        ("without torch", ["tests.support.fake_preload"]),
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            launcher_process.make(
                folder, *(launcher_process.spec(trial, steps=2) for trial in range(runs))
            )
            before, started = spent(), time.monotonic()
            launcher = launcher_process.Launcher(folder, 2, 120.0, preload=preload)
            assert launcher.wait(600) == 0, launcher.errors.read_text()
            reap()
            cpu, wall = spent() - before, time.monotonic() - started
            print(
                f"{title}: {runs} runs, {cpu:.1f} CPU-s ({cpu / runs:.3f} per run), "
                f"{wall:.1f} s on 2 slots"
            )


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reap() -> None:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
