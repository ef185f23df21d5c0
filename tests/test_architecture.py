"""The layers: who may import whom, what stays free of torch, and how long a function may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.source_trees import tree_of

ROOT = Path(__file__).resolve().parents[1]

#: The table "The house" of the design: a part of the project, and the parts that it may import.
HOUSE: dict[str, set[str]] = {
    "benchmark.core": set(),
    "benchmark.models": {"benchmark.core"},
    "benchmark.explain": {"benchmark.core", "benchmark.models"},
    "benchmark.losses": {"benchmark.core"},
    "benchmark.engine": {"benchmark.core", "benchmark.models", "benchmark.explain"},
    "benchmark.plan": {"benchmark.core"},
    "benchmark.launch": {"benchmark.core", "benchmark.plan"},
    "benchmark.report": {"benchmark.core"},
    "benchmark.tracking": {"benchmark.core", "benchmark.launch", "benchmark.report"},
    "algorithms": {"benchmark.core", "benchmark.models", "benchmark.explain", "benchmark.losses"},
    "datasets": {"benchmark.core"},
}
#: The rooms of the report, lowest first; each may import only those before it.
REPORT = (
    "statistics",
    "records",
    "tables",
    "formats",
    "figures",
    "external",
    "report",
    "html",
    "render",
)
#: Entry points and what they share. They may import every part of benchmark, never algorithms or
#: datasets.
THIN = {
    "benchmark.sweep",
    "benchmark.train",
    "benchmark.data",
    "benchmark.collect_results",
    "benchmark.predict",
    "benchmark.audit",
    "benchmark.auditing",
    "benchmark.scanning",
    "benchmark.cli",
    "benchmark.api",
}
#: What has no torch, not even indirectly, when it is imported.
WITHOUT_TORCH = ("benchmark.plan", "benchmark.report")
CORE_WITH_TORCH = {
    "algorithm",
    "autograd_graph",
    "batch",
    "batch_norm",
    "compilation",
    "optim",
    "parallel_forward",
    "convolution",
    "memory",
    "seeding",
}

OURS = ("benchmark", "algorithms", "datasets")
MAX_FUNCTION = 90


def _files(*folders: str) -> list[Path]:
    return sorted(
        p
        for folder in folders
        for p in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in p.parts
    )


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _part(module: str) -> str:
    """Return the package that a module belongs to, or the name of a module on its own."""
    pieces = module.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "benchmark" else pieces[0]


def imports(tree: ast.Module, module: str, package: bool) -> Iterator[tuple[int, str]]:
    """Return line and full name of everything that a module imports statically.

    ``from a import b`` gives ``a.b``: a module or a name in one, which makes no difference to the
    part it belongs to.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + package]
                home = ".".join([*above, *([home] if home else [])])
            yield from ((node.lineno, f"{home}.{alias.name}") for alias in node.names)


def _room(module: str) -> int:
    """The position of a module's room in the report; the package itself stands below all rooms."""
    pieces = module.split(".")
    return REPORT.index(pieces[2]) if len(pieces) > 2 else -1


def forbidden(module: str, imported: str) -> bool:
    """Return True if the table does not allow ``module`` to import ``imported``."""
    if imported.split(".")[0] not in OURS:
        return False
    mine, theirs = _part(module), _part(imported)
    if mine == theirs == "benchmark.report":
        return _room(imported) > _room(module)
    if mine == theirs or imported in ("benchmark", "benchmark.__version__"):
        return False
    if module == "benchmark":  # names of the Python interface, imported on first use
        return theirs != "benchmark.api"
    if mine in THIN:
        return not theirs.startswith("benchmark.")
    return theirs not in HOUSE.get(mine, set())


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("benchmark.core.spec", "benchmark.core.errors.UserError", False),
        ("benchmark.core.spec", "benchmark.plan.planner.expand", True),
        ("benchmark.plan.planner", "benchmark.engine.build", True),
        ("benchmark.report.records.sweep_records", "benchmark.launch.run_queue", True),
        ("benchmark.report.statistics.auc", "benchmark.report.records.load", True),
        ("benchmark.report.html.page", "benchmark.report.tables.sheet.Sheet", False),
        ("benchmark.report.html.page", "benchmark.report.render.render", True),
        ("benchmark.engine.execute", "algorithms.erm.ERM", True),
        ("benchmark.train", "algorithms.erm", True),
        ("benchmark.train", "benchmark.launch.lease.Claim", False),
        ("algorithms.irm", "benchmark.losses.environments", False),
        ("algorithms.irm", "benchmark.engine.loop", True),
        ("algorithms.irm", "datasets.tiny", True),
        ("datasets.tiny", "benchmark.models", True),
        ("benchmark", "benchmark.api.run.load_run", False),
        ("benchmark", "benchmark.engine.build", True),
        ("benchmark.core.spec", "datasetsomething", False),
    ],
)
def test_the_rule_itself(module: str, imported: str, wrong: bool) -> None:
    assert forbidden(module, imported) == wrong


def test_every_way_of_importing_is_seen() -> None:
    text = (
        "import a.b as c, d\nfrom e import f, g\n"
        "def h():\n    from . import i\n    from ..j import k\n"
    )
    found = {name for _, name in imports(ast.parse(text), "p.q.r", package=False)}
    assert found == {"a.b", "d", "e.f", "e.g", "p.q.i", "p.j.k"}
    assert {name for _, name in imports(ast.parse("from . import i"), "p.q", package=True)} == {
        "p.q.i"
    }


def test_no_arrow_that_the_table_does_not_allow() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for path in _files(*OURS)
        for line, imported in imports(tree_of(path), _module(path), path.name == "__init__.py")
        if forbidden(_module(path), imported)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_has_its_place_in_the_table() -> None:
    known = {*HOUSE, *THIN, "benchmark"}
    assert not {part for path in _files(*OURS) if (part := _part(_module(path))) not in known}


def _loads_torch(*modules: str) -> list[str]:
    """Those of the modules after whose import, in a fresh process, torch is loaded."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: print(name); break\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_plan_and_report_never_load_torch() -> None:
    folders = [name.replace(".", "/") for name in WITHOUT_TORCH]
    modules = [_module(path) for path in _files(*folders)]
    # PyMC loads half the world, and is loaded on demand
    assert len(modules) > 10 and not _loads_torch(*modules)


def test_of_core_only_what_holds_tensors_loads_torch() -> None:
    modules = [_module(path) for path in _files("benchmark/core")]
    assert not _loads_torch(*(m for m in modules if m.rsplit(".", 1)[1] not in CORE_WITH_TORCH))


def test_no_function_is_too_long() -> None:
    too_long = []
    for path in _files(*OURS):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                lines = (node.end_lineno or node.lineno) - first + 1
                if lines > MAX_FUNCTION:
                    too_long.append(
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines"
                    )
    assert not too_long, "\n".join(too_long)


def test_no_drawer_for_everything() -> None:
    assert not [
        path
        for path in _files(*OURS, "tests")
        if path.stem in ("utils", "util", "helpers", "misc", "common")
    ]
