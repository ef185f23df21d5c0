"""Commands that compute nothing with tensors start at once: they import neither torch nor other large packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_sweep import ERM, FakeSweep, World

ROOT = Path(__file__).resolve().parents[1]

#: Runs a command line as ``python -m`` does, then says which of the packages it has imported.
PROGRAM = """
import json, runpy, sys
module, heavy = sys.argv[1], sys.argv[2].split(",")
del sys.argv[1:3]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
found = sorted(name for name in heavy if name in sys.modules)
print(json.dumps([code, found]), file=open("told.json", "w", encoding="utf-8"))
"""

HEAVY = ("torch", "torchvision", "pandas", "scipy", "matplotlib", "sklearn", "skimage", "pymc")

#: Command lines and their exit codes; 2 is a mistake in what was typed.
LIGHT = (
    ("sweep --help", 0),
    ("sweep launch --help", 0),
    ("sweep list sweeps --long", 0),
    ("sweep list criteria", 0),
    ("sweep list datasets", 0),
    ("sweep status FOLDER --once", 1),
    ("sweep status", 2),
    ("sweep status nowhere", 2),
    ("sweep retry FOLDER", 0),
    ("sweep retry FOLDER --key nowhere", 2),
    ("sweep", 2),
    ("sweep list nothing", 2),
    ("sweep launch nowhere", 2),
    ("sweep launch --trials x", 2),
    ("sweep launch --trials 0", 2),
    ("sweep launch --workers 0", 2),
    ("sweep launch --device tpu", 2),
    ("sweep validate nowhere", 2),
    ("train --help", 0),
    ("train", 2),
    ("train --dataset tiny --algorithm erm --trial -1", 2),
    ("train --dataset tiny --algorithm erm --selection nothing", 2),
    ("data --help", 0),
    ("data", 2),
    ("data list", 0),
    ("data check tiny", 0),
    ("data check nowhere", 2),
    ("data show tiny --trial x", 2),
)
COLLECTING = (
    ("collect_results --help", 0),
    ("collect_results nowhere", 2),
    ("collect_results --format nothing", 2),
    ("collect_results FOLDER --tables-only", 0),
    ("collect_results FOLDER --export runs.csv", 0),
    ("collect_results --audit tea_table4", 0),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path)
    fake.add(World(), ERM)
    fake.add(World(), ERM, trials=[3], state="failed")
    return fake.finish()


def imported(command: str, folder: Path) -> tuple[int, list[str]]:
    """Exit code of a command line, and the large packages that it imported."""
    module, *arguments = command.replace("FOLDER", str(folder)).split()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"benchmark.{module}", ",".join(HEAVY), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    code, found = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return code, found


@pytest.mark.parametrize(("command", "code"), LIGHT)
def test_nothing_large_is_imported(command: str, code: int, folder: Path) -> None:
    assert imported(command, folder) == (code, [])


@pytest.mark.parametrize(("command", "code"), COLLECTING)
def test_collecting_needs_scipy_only(command: str, code: int, folder: Path) -> None:
    found, packages = imported(command, folder)
    assert (found, set(packages) <= {"scipy"}) == (code, True), packages


def test_figures_need_matplotlib_and_still_no_torch(folder: Path) -> None:
    code, packages = imported("collect_results FOLDER", folder)
    assert code == 0 and "matplotlib" in packages
    assert not {"torch", "torchvision", "pandas", "sklearn"} & set(packages)


def test_the_program_sees_what_is_imported(folder: Path) -> None:
    assert "torch" in imported("sweep list backbones", folder)[1]
