"""A sweep can be launched from any program; runs import its modules, but not the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import RunSpec
from benchmark.launch.main_module import hidden_main, modules_to_import
from tests.support.launcher_process import ROOT, make, record, spec
from tests.support.messages import mentions

#: Counts how often it is run, launches without a guard, and uses its own globals while it does.
PROGRAM = """
import pickle, sys
from pathlib import Path
folder = Path(sys.argv[1])
with (folder / "times").open("a") as file:
    file.write("x")
from benchmark.core.files import read_json
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.launcher import launch
from benchmark.launch.slots import Placement

def ignore_event(event):
    assert pickle.loads(pickle.dumps(ignore_event)) is ignore_event
    assert globals().get("__file__") == where

where = globals().get("__file__")
executor = LocalExecutor(Placement("cpu", 2), preload=["tests.support.fake_preload"])
summary = launch(folder, read_json(folder / "keys.json"), executor, on_event=ignore_event,
                 engine="tests.support.fake_engine")
print("complete", summary.complete)
"""


def start(folder: Path, how: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a user would; its folder is the working directory."""
    (folder / "program.py").write_text(program)
    options = {
        "script": (["program.py"], None),
        "module": (["-m", "program"], None),
        "standard input": (["-"], program),
        "-c": (["-c", program], None),
    }
    arguments, stdin = options[how]
    return subprocess.run(
        [sys.executable, *arguments, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("how", ["script", "module", "standard input", "-c"])
def test_a_program_without_a_guard_is_run_once(tmp_path: Path, how: str) -> None:
    keys = make(tmp_path, spec(1), spec(2), spec(3))
    done = start(tmp_path, how, PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "complete True\n"
    assert (tmp_path / "times").read_text() == "x"
    assert {record(tmp_path, key)["attempt"] for key in keys} == {1}


def test_what_the_program_imported_is_imported_by_its_runs(tmp_path: Path) -> None:
    (tmp_path / "my_methods.py").write_text(
        "from benchmark.core.registry import ALGORITHMS\n"
        "@ALGORITHMS.register\n"
        "class Mine:\n"
        "    name = 'well'\n"
    )
    (tmp_path / "my_engine.py").write_text(
        "import sys\n"
        "from tests.support.fake_engine import execute as fake\n"
        "def execute(*arguments, **options):\n"
        "    assert 'my_methods' in sys.modules\n"
        "    return fake(*arguments, **options)\n"
    )
    make(tmp_path, spec(1))
    program = "import my_methods\n" + PROGRAM.replace('"tests.support.fake_engine"', '"my_engine"')
    done = start(tmp_path, "script", program)
    assert (done.stdout, done.stderr) == ("complete True\n", "")
    without = tmp_path / "without"
    without.mkdir()
    make(without, spec(1))
    done = start(without, "script", program.replace("import my_methods\n", ""))
    assert "complete True" not in done.stdout, "the engine of this test checks something"


def test_a_class_of_the_program_itself_is_refused_with_a_sentence(tmp_path: Path) -> None:
    make(tmp_path, spec(1))
    program = (
        "from benchmark.core.registry import ALGORITHMS\n"
        "@ALGORITHMS.register\n"
        "class Mine:\n"
        "    name = 'well'\n"
    )
    done = start(tmp_path, "script", program + PROGRAM)
    assert mentions(done.stderr, "algorithm 'well'", "program")
    assert not (tmp_path / "runs" / spec(1).key / "attempts").exists()
    assert done.returncode != 0


def test_only_modules_of_used_classes_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"far": "somewhere.far", "here": "__main__"}
    monkeypatch.setattr(ALGORITHMS, "known_modules", known.copy)

    def spec_of(algorithm: str) -> RunSpec:
        return RunSpec.from_json({**spec(1).to_json(), "algorithm": algorithm})

    assert modules_to_import([spec_of("erm").components]) == ()
    assert modules_to_import([spec_of("erm").components, spec_of("far").components]) == (
        "somewhere.far",
    )
    with pytest.raises(UserError, match="'here' is defined in the program"):
        modules_to_import([spec_of("far").components, spec_of("here").components])


def test_the_main_module_comes_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "answer", 42, raising=False)
    with pytest.raises(KeyboardInterrupt), hidden_main():
        assert not hasattr(sys.modules["__main__"], "__file__")
        assert sys.modules["__main__"].__spec__ is None
        assert sys.modules["__main__"].answer == 42
        raise KeyboardInterrupt
    assert sys.modules["__main__"] is main


METHOD = """
from benchmark.core import ALGORITHMS
from algorithms.erm import ERM

@ALGORITHMS.register
class Mine(ERM):
    name = "mine"
"""
SWEEP = """
datasets = ["tiny:size=32"]
algorithms = ["mine"]
backbone = "convnet:width=2"
budget = {steps = 2, evaluate_every = 1}
fixed = {batch_size = 8}
"""
MAIN = """
import sys
from benchmark.sweep import main
open(sys.argv[1] + "/times", "a").write("x")
print("code", main(["launch", "sweep.toml", "--device", "cpu", "--workers", "1"]))
"""


@pytest.mark.slow
def test_a_program_launches_methods_of_its_own_modules(tmp_path: Path) -> None:
    (tmp_path / "my_methods.py").write_text(METHOD)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    done = start(tmp_path, "script", METHOD + MAIN)
    assert "code 2" in done.stdout and "is defined in the program" in done.stderr, done.stderr
    assert not (tmp_path / "results").exists(), "nothing is written"
    (tmp_path / "times").unlink()
    done = start(tmp_path, "script", "import my_methods\n" + MAIN)
    assert "code 0" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "times").read_text() == "x"
    assert len(list(tmp_path.glob("results/sweep/runs/*/record.json"))) == 1
