"""Names in the folders of sweeps and runs, and temporary files."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.files import is_temporary, remove_abandoned, write_atomic
from benchmark.core.layout import RunFolder, SweepFolder, newest_sweep, require_newest_sweep
from tests.support.source_trees import tree_of

ROOT = Path(__file__).resolve().parents[2]
#: What docs/log_schema.md promises.
IN_A_RUN = {
    "spec.json",
    "record.json",
    "failure.json",
    "lease.json",
    "log.jsonl",
    "output.txt",
    "predictions.npz",
    "heatmaps.npz",
    "global_explanations.npz",
    "explanations.npz",
    "embeddings.npz",
    "selected.pt",
    "checkpoint.pt",
    "attempts",
}
IN_AN_ATTEMPT = {"log.jsonl", "output.txt", "ended.json", "failure.json"}
IN_A_SWEEP = {"sweep.json", "runs", "report", "done.txt", "workers"}


def paths_of(folder: object) -> set[str]:
    """The names of all paths that the properties of a folder give."""
    values = (
        getattr(folder, name)
        for name, value in vars(type(folder)).items()
        if isinstance(value, property)
    )
    return {value.name for value in values if isinstance(value, Path)}


def test_the_names_are_those_of_the_documentation() -> None:
    run = SweepFolder(Path("results/demo")).run("0123")
    assert run.path == Path("results/demo/runs/0123") and run.key == "0123"
    assert paths_of(run) == IN_A_RUN
    assert paths_of(run.attempt(3)) == IN_AN_ATTEMPT
    assert run.attempt(3).path == Path("results/demo/runs/0123/attempts/3")
    assert paths_of(run.sweep) == IN_A_SWEEP and run.sweep.path == Path("results/demo")
    text = (ROOT / "docs" / "log_schema.md").read_text(encoding="utf-8")
    assert all(name in text for name in IN_A_RUN | IN_A_SWEEP)


def test_no_other_module_builds_paths_with_these_names() -> None:
    """A file name is joined to a path (``folder / "record.json"``) or is a constant."""
    names = IN_A_RUN | IN_AN_ATTEMPT | IN_A_SWEEP
    found = []
    for path in [*(ROOT / "benchmark").rglob("*.py"), *(ROOT / "algorithms").rglob("*.py")]:
        if path == ROOT / "benchmark" / "core" / "layout.py":
            continue
        for node in ast.walk(tree_of(path)):
            values: list[ast.expr] = []
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                values = [node.left, node.right]
            elif isinstance(node, ast.Assign):
                inside = node.value
                values = list(inside.elts) if isinstance(inside, ast.Tuple) else [inside]
            literals = [v.value for v in values if isinstance(v, ast.Constant)]
            found += [f"{path.name}:{node.lineno} {v}" for v in literals if v in names]
    assert not found, "\n".join(found)


def test_every_temporary_file_of_a_write_is_known_as_one(tmp_path: Path) -> None:
    seen: list[str] = []
    for name in [*IN_A_RUN, "of_a_later_version.bin", "no ending", ".hidden"]:
        before = set(os.listdir(tmp_path))

        def look(file: object, before: set[str] = before) -> None:
            seen.extend(set(os.listdir(tmp_path)) - before)

        write_atomic(tmp_path / name, look)
        assert is_temporary(seen[-1]) and is_temporary(seen[-1], name)
        assert RunFolder(tmp_path).is_leftover(seen[-1]) == (name != "spec.json")
    assert len(seen) == len(IN_A_RUN) + 3


@pytest.mark.parametrize(
    "name",
    ["record.json", ".record.json", "mine.tmp", ".mine.tmp", ".a.b.tmp2", "", ".tmp", "..tmp"],
)
def test_other_names_are_not_temporary(name: str) -> None:
    assert not is_temporary(name)


def test_only_old_temporary_files_are_abandoned(tmp_path: Path) -> None:
    for name in (".a.json.x.tmp", ".a.json.y.tmp", "a.json", "notes.tmp"):
        (tmp_path / name).touch()
    for name in (".a.json.x.tmp", "a.json", "notes.tmp"):
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".folder.json.x.tmp").mkdir()
    os.utime(tmp_path / ".folder.json.x.tmp", (0, 0))
    remove_abandoned(tmp_path, 60.0)
    left = {".a.json.y.tmp", ".folder.json.x.tmp", "a.json", "notes.tmp"}
    assert set(os.listdir(tmp_path)) == left
    remove_abandoned(tmp_path / "not there", 60.0)


def test_numbers_of_attempts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.attempt_numbers() == [] and RunFolder(tmp_path / "none").attempt_numbers() == []
    for name in ("2", "10", "1", "notes", "²", "-3", "9" * 200):
        (tmp_path / "attempts" / name).mkdir(parents=True)
    assert run.attempt_numbers() == [1, 2, 10]
    run.attempt(1).failure.touch()
    assert run.attempt(1).unused_failure().name == "failure.2.json"
    run.attempt(1).unused_failure().touch()
    assert run.attempt(1).unused_failure().name == "failure.3.json"
    assert run.attempt(2).unused_failure().name == "failure.json"


def test_the_newest_sweep(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "none"):
        assert newest_sweep(root) is None
        with pytest.raises(UserError, match=root.name):
            require_newest_sweep(root)
    now = time.time()
    for name, age in (("old", 20), ("new", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").touch()
        os.utime(tmp_path / name / "sweep.json", (now - age, now - age))
    (tmp_path / "published").mkdir()
    (tmp_path / "file").touch()
    assert newest_sweep(tmp_path) == SweepFolder(tmp_path / "new")
    assert require_newest_sweep(tmp_path) == SweepFolder(tmp_path / "new")
    (tmp_path / "no_plan" / "runs" / "0123").mkdir(parents=True)
    assert newest_sweep(tmp_path) == SweepFolder(tmp_path / "no_plan")
    assert SweepFolder(tmp_path / "no_plan").run_names() == ["0123"]
    assert SweepFolder(tmp_path / "published").run_names() == []
