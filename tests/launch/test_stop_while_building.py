"""SIGTERM to a launcher while a run builds its data ends it soon; the run is pending again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark.core.layout import State, SweepFolder, state_of

ROOT = Path(__file__).resolve().parents[2]

PLUG_IN = """
import os, pathlib, time
from datasets.tiny import Tiny
from benchmark.core.registry import DATASETS

@DATASETS.register
class Slow(Tiny):
    name = "slow"

    def build(self, seed):
        pathlib.Path(os.environ["SLOW_MARK"]).touch()
        for _ in range(3000):
            time.sleep(0.1)
        return super().build(seed)
"""
SWEEP = 'datasets = ["slow"]\nalgorithms = ["erm"]\nselection = ["last"]\n[budget]\nsteps = 4\n'


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_sigterm_while_data_are_built(tmp_path: Path) -> None:
    info = tmp_path / "packages" / "plugin_slow-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shortcutbed.datasets]\nslow = plugin_slow\n")
    (tmp_path / "packages" / "plugin_slow.py").write_text(PLUG_IN)
    (tmp_path / "mine.toml").write_text(SWEEP)
    mark = tmp_path / "mark"
    path = os.pathsep.join([str(tmp_path / "packages"), str(ROOT)])
    launcher = subprocess.Popen(
        [sys.executable, "-m", "benchmark.sweep", "launch", "mine.toml", "--output", "out",
         "--device", "cpu", "--workers", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "SLOW_MARK": str(mark)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 240
        while not mark.exists():
            assert launcher.poll() is None, launcher.communicate()[0]
            assert time.monotonic() < deadline, "the run did not begin"
            time.sleep(0.1)
        asked = time.monotonic()
        launcher.terminate()
        output, _ = launcher.communicate(timeout=120)
        took = time.monotonic() - asked
    finally:
        launcher.kill()
    assert launcher.returncode == 130, output
    assert took < 60, f"it took {took:.0f} s"
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert state_of(run) is State.PENDING
    assert not SweepFolder(tmp_path / "out").run(run.name).lease.exists()
