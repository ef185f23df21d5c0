"""The example of docs/adding_an_algorithm.md: trained, and installed as a package."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import benchmark.core.registry
from benchmark.core.algorithm import Algorithm
from benchmark.core.registry import Registry
from tests.support.tiny import build, make_batch, same_weights, through_checkpoint, train

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "adding_an_algorithm.md").read_text(encoding="utf-8")


def block(first_line: str) -> str:
    """The fenced block that begins with a comment naming the file."""
    found = re.findall(rf"```\w+\n# {re.escape(first_line)}\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Registry]:
    """Replace the registry by one of plug-ins only, which other tests do not see."""
    empty = tmp_path / "nothing" / "algorithms"
    empty.mkdir(parents=True)
    for folder in (empty, empty.parent):
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    fresh: Registry = Registry("algorithm", "nothing.algorithms", "shortcutbed.algorithms")
    monkeypatch.setattr(benchmark.core.registry, "ALGORITHMS", fresh)
    yield fresh
    for module in ("nothing.algorithms", "nothing", "shortcutbed_vrex"):
        sys.modules.pop(module, None)


@pytest.fixture
def vrex(registry: Registry) -> type[Algorithm]:
    module = types.ModuleType("algorithms.vrex")
    exec(compile(block("algorithms/vrex.py"), "vrex.py", "exec"), module.__dict__)
    assert module.VREx.name in registry.known_modules()
    return module.VREx


def test_example_trains_and_resumes(vrex: type[Algorithm]) -> None:
    whole, first = build(vrex), build(vrex)
    assert len(train(whole, 0, 3)) == 3
    train(first, 0, 2)
    second = through_checkpoint(first, build(vrex, seed=1), 2)
    train(second, 2, 3)
    assert same_weights(whole, second)


def test_example_computes_what_its_docstring_says(vrex: type[Algorithm]) -> None:
    algorithm, batch = build(vrex), make_batch()
    logits = algorithm.predict(batch.image)
    risks = [
        F.cross_entropy(logits[part], batch.label[part]).item()
        for part in (slice(0, 6), slice(6, 12))
    ]
    for step, weight in ((0, 1.0), (499, 1.0), (500, 10.0)):
        algorithm.current_step = step
        terms = algorithm.loss(batch)
        assert terms["classification"].item() == pytest.approx(sum(risks) / 2, rel=1e-5)
        assert terms["penalty"].item() == pytest.approx(
            weight * (risks[0] - risks[1]) ** 2 / 4, rel=1e-3
        )


def test_example_without_its_declaration_fails_on_the_first_step(vrex: type[Algorithm]) -> None:
    vrex.needs = type(vrex.needs)()
    with pytest.raises((TypeError, AttributeError)):
        train(build(vrex), 0, 1)


def test_example_keeps_the_projects_style() -> None:
    for select in ([], ["format"]):
        command = [
            sys.executable,
            "-m",
            "ruff",
            *(select or ["check"]),
            *(["--check"] if select else []),
            "-",
        ]
        done = subprocess.run(
            command, input=block("algorithms/vrex.py"), text=True, capture_output=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_example_package_is_found_through_its_entry_point(
    registry: Registry, tmp_path: Path
) -> None:
    """The files are those that pip writes: the module and its entry points."""
    project = tomllib.loads(block("shortcutbed-vrex/pyproject.toml"))
    (module,) = project["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(block("algorithms/vrex.py"), encoding="utf-8")
    info = tmp_path / f"{module}-{project['project']['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\n"
        f"Name: {project['project']['name']}\n"
        f"Version: {project['project']['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in points.items())
        for group, points in project["project"]["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()
    assert "vrex" in registry.names()
    assert not registry.broken
    assert registry.origin("vrex") == f"{module}.VREx"
    assert train(build(registry.get("vrex")), 0, 1)


@pytest.mark.slow
def test_example_package_is_installed_by_pip(tmp_path: Path) -> None:
    source, target = tmp_path / "shortcutbed-vrex", tmp_path / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        block("shortcutbed-vrex/pyproject.toml"), encoding="utf-8"
    )
    (source / "shortcutbed_vrex.py").write_text(block("algorithms/vrex.py"), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=300)
    code = "from benchmark.core import ALGORITHMS; print(ALGORITHMS.origin('vrex'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(target)!r}); {code}"],
        capture_output=True, text=True, cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "shortcutbed_vrex.VREx"


def test_files_that_the_page_names_exist() -> None:
    for path in set(re.findall(r"`((?:algorithms|tests|benchmark)/[\w/]+(?:\.py|/))`", TEXT)):
        assert (ROOT / path).exists(), path


def test_tensor_terms_are_what_the_page_asks_for(vrex: type[Algorithm]) -> None:
    assert all(isinstance(value, torch.Tensor) for value in build(vrex).loss(make_batch()).values())
