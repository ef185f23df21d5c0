"""Commands that compute nothing with tensors import neither torch nor other heavy packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.support.fake_sweep import ERM, FakeSweep, World

ROOT = Path(__file__).resolve().parents[1]

#: Runs command lines one after another as ``python -m`` does, in one process. Writes the exit code
#: of each and the heavy packages that have been imported by then.
PROGRAM = """
import json, runpy, sys
commands, heavy = json.loads(sys.argv[1])
results = []
for module, *arguments in commands:
    sys.argv[1:] = arguments
    code = None
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    results.append([code, sorted(name for name in heavy if name in sys.modules)])
with open("results.json", "w", encoding="utf-8") as file:
    json.dump(results, file)
"""

HEAVY = ("torch", "torchvision", "pandas", "scipy", "matplotlib", "sklearn", "skimage", "pymc")

#: Command lines and their exit codes; 2 is a mistake in the command line.
LIGHT = {
    "sweep --help": 0,
    "sweep launch --help": 0,
    "sweep list sweeps --long": 0,
    "sweep list criteria": 0,
    "sweep list datasets": 0,
    "sweep status FOLDER --once": 1,
    "sweep status": 2,
    "sweep status nowhere": 2,
    "sweep retry FOLDER": 0,
    "sweep retry FOLDER --key nowhere": 2,
    "sweep": 2,
    "sweep list nothing": 2,
    "sweep launch nowhere": 2,
    "sweep launch --trials x": 2,
    "sweep launch --trials 0": 2,
    "sweep launch --workers 0": 2,
    "sweep launch --device tpu": 2,
    "sweep validate nowhere": 2,
    "train --help": 0,
    "train": 2,
    "train --dataset tiny --algorithm erm --trial -1": 2,
    "train --dataset tiny --algorithm erm --selection nothing": 2,
    "data --help": 0,
    "data": 2,
    "data list": 0,
    "data check tiny": 0,
    "data check nowhere": 2,
    "data show tiny --trial x": 2,
    "data masks --help": 0,
    "data masks tiny": 2,
}
COLLECTING = {
    "collect_results --help": 0,
    "collect_results nowhere": 2,
    "collect_results --format nothing": 2,
    "collect_results FOLDER --tables-only": 0,
    "collect_results FOLDER --export runs.csv": 0,
    "collect_results audit tea_table4": 0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path)
    fake.add(World(), ERM)
    fake.add(World(), ERM, trials=[3], state="failed")
    return fake.finish()


def run_all(commands: Iterable[str], folder: Path) -> list[tuple[int, set[str]]]:
    """Return the exit code of each command and the heavy packages imported up to its end."""
    lines = []
    for command in commands:
        module, *arguments = command.replace("FOLDER", str(folder)).split()
        lines.append([f"benchmark.{module}", *arguments])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([lines, HEAVY])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return [(code, set(packages)) for code, packages in results]


def check(commands: Mapping[str, int], folder: Path, allowed: set[str]) -> None:
    results = run_all(commands, folder)
    for (command, expected), (code, packages) in zip(commands.items(), results, strict=True):
        assert code == expected, command
        assert packages <= allowed, command


def test_most_commands_import_no_heavy_package(folder: Path) -> None:
    check(LIGHT, folder, allowed=set())


def test_tables_need_scipy_only(folder: Path) -> None:
    check(COLLECTING, folder, allowed={"scipy"})


@pytest.mark.slow
def test_figures_need_matplotlib_but_not_torch(folder: Path) -> None:
    ((code, packages),) = run_all(["collect_results FOLDER"], folder)
    assert code == 0
    assert "matplotlib" in packages
    assert not {"torch", "torchvision", "pandas", "sklearn"} & packages


@pytest.mark.slow
def test_an_imported_package_is_detected(folder: Path) -> None:
    results = run_all(["sweep list criteria", "sweep list backbones"], folder)
    assert ["torch" in packages for _, packages in results] == [False, True]
