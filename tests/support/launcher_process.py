"""A launcher in its own process, for tests that kill it, and helpers to write and read sweeps.

The process takes the arguments FOLDER, WORKERS and LEASE_SECONDS, and prints every event as JSON.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.core.errors import exit_code
from benchmark.core.files import read_json, write_json
from benchmark.core.spec import RunSpec
from benchmark.launch.events import Event
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.launcher import launch
from benchmark.launch.scheduler import WorkerShift
from benchmark.launch.slots import Placement
from tests.support.signals import only_ignoring

#: The program of the process: as a module it would be ``__main__``, which no run imports.
MAIN = "from tests.support.launcher_process import main; main()"
ROOT = Path(__file__).resolve().parents[2]


def spec(
    trial: int = 0, steps: int = 4, upstream: Mapping[str, str] | None = None, **hparams: Any
) -> RunSpec:
    """A run of the fake engine."""
    return RunSpec(
        dataset="fake",
        dataset_options={},
        data_fingerprint="0",
        algorithm=hparams.get("mode", "well"),
        variant="",
        backbone="none",
        backbone_options={},
        hparams=hparams,
        trial=trial,
        draw=0,
        budget={"steps": steps},
        selection=("last",),
        upstream=upstream or {},
    )


def make(folder: Path, *specs: RunSpec) -> list[str]:
    """Write a sweep folder; returns the keys."""
    for one in specs:
        run = folder / "runs" / one.key
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / "spec.json", one.to_json())
    keys = [one.key for one in specs]
    assert len(set(keys)) == len(keys)
    write_json(folder / "keys.json", keys)
    return keys


def main() -> None:
    faulthandler.register(signal.SIGUSR1)  # where does it hang?
    folder, workers, lease = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

    def tell(event: Event) -> None:
        print(json.dumps(asdict(event)), flush=True)

    def body() -> int:
        options: dict[str, Any] = json.loads(os.environ.get("LAUNCH_OPTIONS", "{}"))
        preload = options.pop("preload", ["tests.support.fake_preload"])
        for module in options.pop("patches", []):  # of this process and of those of the runs
            importlib.import_module(module)
            preload.append(module)
        shift = options.pop("shift", None)
        summary = launch(
            folder,
            read_json(folder / "keys.json"),
            LocalExecutor(Placement("cpu", workers), preload, begin_seconds=8.0),
            lease_seconds=lease,
            on_event=tell,
            engine="tests.support.fake_engine",
            shift=None if shift is None else WorkerShift(**shift),
            **options,
        )
        print(json.dumps({"summary": asdict(summary)}), flush=True)
        return 0 if summary.complete else 1

    raise SystemExit(exit_code(body))


class Launcher:
    """A launcher process and its output so far."""

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        lease: float = 30.0,
        ignored: Sequence[signal.Signals] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        **options: Any,
    ) -> None:
        environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONPATH": str(ROOT),
            "LAUNCH_OPTIONS": json.dumps(options),
        }
        command = [*prefix, sys.executable, "-c", MAIN, str(folder), str(workers), str(lease)]
        self.folder = folder
        self.output = folder / f"output.{time.monotonic_ns()}"
        self.errors = folder / "errors"
        with self.output.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
                preexec_fn=only_ignoring(*ignored),
            )

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for line in self.output.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        return [line for line in lines if "kind" in line and kind in ("", line["kind"])]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])["summary"]
        return found

    def wait(self, seconds: float = 90.0) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"the launcher hangs:\n{self.errors.read_text()}") from None


def run(folder: Path, workers: int = 2, lease: float = 30.0, **options: Any) -> Launcher:
    """Run a launcher until it ends."""
    launcher = Launcher(folder, workers, lease, **options)
    launcher.wait()
    return launcher


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until ``condition`` returns a true value, and return that value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def record(folder: Path, key: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "runs" / key / "record.json")
    return found


def leases(folder: Path) -> list[Path]:
    """Return the leases and temporary files that were left behind."""
    runs = folder / "runs"
    return [
        path
        for path in runs.rglob("*")
        if path.name.startswith("lease.json") or path.name.endswith(".tmp")
    ]


def expected_value(one: RunSpec, start: int = 0) -> int:
    """Return the value that an uninterrupted run computes."""
    value = (one.trial + start) % 2**64
    for number in range(1, one.budget["steps"] + 1):
        value = (value * 6364136223846793005 + number) % 2**64
    return value
