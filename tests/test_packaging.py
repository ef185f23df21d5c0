"""The package: dependencies, command lines, data files, and a wheel without the checkout."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import benchmark
from benchmark.cli import programs
from benchmark.core.shipped import shipped
from tests.support.source_trees import tree_of

ROOT = Path(__file__).resolve().parents[1]
OURS = ("benchmark", "algorithms", "datasets")
#: Distributions whose import name is another one.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "umap": "umap-learn",
    "open_clip": "open_clip_torch",
}
#: Names with an underscore that Python documents.
PUBLIC_ALL_THE_SAME = {"os._exit"}
#: Modules that need private names, and the package whose names these are: setup.py bounds it above.
PRIVATE_NAMES = {"benchmark/core/compilation.py": "torch", "benchmark/engine/flops.py": "torch"}
#: The sweep of .ci/oldest: three methods, two trials.
TINY = ROOT / ".ci" / "tiny.toml"


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [
        (path.relative_to(ROOT), tree_of(path))
        for package in OURS
        for path in sorted((ROOT / package).rglob("*.py"))
    ]


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules and names that a module imports, written out: ``torch.nn.functional``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            yield from (f"{node.module}.{name.name}" for name in node.names)


def oldest_versions() -> ModuleType:
    """The script of the job with the oldest versions, as a module."""
    spec = importlib.util.spec_from_file_location("oldest", ROOT / ".ci" / "oldest_versions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_that_is_imported_is_declared() -> None:
    declared = {re.split(r"[<>=]", one)[0] for one in oldest_versions().requirements()}
    wanted = {
        DISTRIBUTIONS.get(top, top): f"{path}: {top}"
        for path, tree in trees()
        for top in {name.partition(".")[0] for name in imported(tree)}
        if top not in sys.stdlib_module_names and top not in OURS
    }
    assert {"torch", "pillow", "pebble", "pydicom"} <= set(wanted), "it finds imports"
    assert [where for name, where in wanted.items() if name not in declared] == []


def test_every_requirement_has_one_lower_bound() -> None:
    oldest = oldest_versions()
    found = oldest.constraints(["b>=2,<3", "a>=1.5", "b>=2"])
    assert found == ["a==1.5", "b==2"]
    assert len(oldest.constraints(oldest.requirements())) > 20
    for wrong in (["torch"], ["torch<3"], ["torch>=2.5", "torch>=2.6"]):
        with pytest.raises(ValueError, match="one lower bound"):
            oldest.constraints(wrong)


def private_names(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Names with an underscore of modules and objects that are not ours."""
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] not in OURS and any(is_private(part) for part in parts):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield ast.unparse(node)
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
            and is_private(str(node.args[1].value))
            and node.args[1].value not in own
        ):
            yield ast.unparse(node)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines: functions, classes, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_no_private_name_of_a_dependency_is_used() -> None:
    own = {name for _, tree in trees() for name in defined(tree)}
    code = (
        "import torch._dynamo\nfrom filelock import _util\n"
        "x._forward_hooks\nhasattr(x, '_orig_mod')"
    )
    assert len(list(private_names(ast.parse(code), own))) == 4
    found = {
        (path.as_posix(), name)
        for path, tree in trees()
        for name in private_names(tree, own)
        if name not in PUBLIC_ALL_THE_SAME
    }
    assert sorted(f"{path}: {name}" for path, name in found if path not in PRIVATE_NAMES) == []
    assert PRIVATE_NAMES.keys() <= {path for path, _ in found}, "an exception that is not needed"
    bounded = {one for one in oldest_versions().requirements() if "<" in one}
    assert all(any(one.startswith(name) for one in bounded) for name in PRIVATE_NAMES.values())


def test_shipped_files_are_those_of_the_package_if_it_has_any(tmp_path: Path) -> None:
    assert shipped("results/published") == ROOT / "results" / "published"
    package = tmp_path / "benchmark"
    assert shipped("sweeps", package) == tmp_path / "sweeps"
    (package / "shipped" / "sweeps").mkdir(parents=True)
    assert shipped("sweeps", package) == package / "shipped" / "sweeps"
    assert shipped("results/published", package) == tmp_path / "results" / "published"


ENTRIES = ("sweep", "train", "data", "collect_results", "predict", "audit")


@pytest.mark.parametrize("arguments", [
    *([f"benchmark.{entry}", "--version"] for entry in ENTRIES),
    ["benchmark.sweep", "status", "--version"],
    ["benchmark.data", "check", "--version"],
    ["benchmark.cli.programs", "--version"],
    *(["benchmark.cli.programs", part, "--version"] for part in programs.SUBCOMMANDS),
])  # fmt: skip
def test_every_command_states_its_version(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    module, *rest = arguments
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main(rest)
    assert end.value.code == 0
    assert capsys.readouterr().out == f"ShortcutBed {benchmark.__version__}\n"


@pytest.mark.parametrize("part", programs.SUBCOMMANDS)
def test_a_part_of_the_command_calls_its_entry_point(
    part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        programs.main([part, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: shortcutbed {part} ")
    entry = importlib.import_module(f"benchmark.{programs.SUBCOMMANDS[part].module}")
    with pytest.raises(SystemExit):
        entry.main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m {entry.__name__} ")

    given: list[list[str]] = []
    monkeypatch.setattr(entry, "main", lambda rest: given.append(rest) or 7)
    assert programs.main([part, "one", "--two"]) == 7
    before = [part] if entry.__name__ == "benchmark.sweep" else []
    assert given == [[*before, "one", "--two"]]


@pytest.mark.parametrize("arguments", [[], ["lunch"], ["--nope"]])
def test_a_part_that_does_not_exist_is_an_error_with_the_list(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        programs.main(arguments)
    assert end.value.code == 2
    assert "usage: shortcutbed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        programs.main(["--help"])
    help_text = capsys.readouterr().out
    assert all(f"\n  {part} " in help_text for part in programs.SUBCOMMANDS)


def test_documents_name_the_version_of_the_package() -> None:
    version = benchmark.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)[:2] == ["Unreleased", version]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` folder of an environment with the wheel of the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in (*OURS, "sweeps", "docs", "tests", "results/published", "results/measured"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, source)

    def call(*command: str | Path, cwd: Path) -> None:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    call(sys.executable, "-c", build, folder, cwd=source)
    (archive,) = folder.glob("shortcutbed-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    call(*wheel, folder / archive.name.removesuffix(".tar.gz"), cwd=folder)
    (built,) = folder.glob("*.whl")

    environment = folder / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin" / "python"
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", built, cwd=folder)
    # the dependencies of this environment, but not what it has installed in editable form
    (packages,) = environment.glob("lib/python*/site-packages")
    others = [*site.getsitepackages(), site.getusersitepackages()]
    (packages / "dependencies.pth").write_text("\n".join(others) + "\n")
    return environment / "bin"


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def say(*command: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(installed / command[0]), *command[1:]],
            cwd=tmp_path,
            env={**clean, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    where = say("python", "-c", "import benchmark, sys; print(benchmark.__file__, *sys.path)")
    assert str(installed.parent) in where.split()[0] and str(ROOT) not in where.split()
    for part in ("", *programs.SUBCOMMANDS):
        assert say("shortcutbed", *filter(None, [part]), "--help").startswith("usage: shortcutbed")
    for module in ENTRIES:
        assert say("python", "-m", f"benchmark.{module}", "--help").startswith("usage: python")
    sweeps = {path.stem for path in (ROOT / "sweeps").glob("*.toml")}
    listed = {line.partition(" ")[0] for line in say("shortcutbed", "list", "sweeps").splitlines()}
    assert sweeps <= listed
    assert "is valid" in say("shortcutbed", "validate", "quickstart")
    assert "tea" in say("python", "-m", "benchmark.collect_results", "audit", "tea_table4")
    assert list(tmp_path.iterdir()) == [], "looking writes nothing"

    shutil.copy(TINY, tmp_path / "small.toml")
    output = say("shortcutbed", "launch", "small.toml", "--device", "cpu", "--workers", "1")
    assert "6 runs" in output
    assert "6 done" in say("shortcutbed", "status", "--once")
    tables = say("shortcutbed", "collect", "--published")
    assert "erm" in tables and "group_dro" in tables
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "small.toml"]
    records = list((tmp_path / "results" / "small" / "runs").glob("*/record.json"))
    assert len(records) == 6
    assert (tmp_path / "results" / "small" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_a_wheel_says_that_its_code_is_typed(installed: Path) -> None:
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    for package in OURS:
        assert (packages / package / "py.typed").is_file()
    assert not (packages / "tests").exists()
