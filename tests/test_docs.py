"""The examples of the pages in docs/: extracted, installed as a package, trained and reported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: The pages whose examples are run here, and what each adds: the entry-point group by file.
EXAMPLES = {
    "adding_a_backbone.md": {"benchmark/models/all_conv.py": "shortcutbed.backbones"},
    "adding_an_explainer.md": {
        "benchmark/explain/squared_gradient.py": "shortcutbed.explainers",
    },
    "adding_a_metric.md": {
        "benchmark/report/tables/metrics/balanced_accuracy.py": "shortcutbed.metrics",
        "benchmark/explain/entropy.py": "shortcutbed.explanation_metrics",
        "benchmark/core/criteria/balanced.py": "shortcutbed.criteria",
    },
    "adding_a_report_table.md": {
        "benchmark/report/tables/selected_steps.py": "shortcutbed.report_tables",
    },
}
FILES = [(page, file) for page, files in EXAMPLES.items() for file in files]

#: Trains a student with all examples and makes a report, in a process that has the package.
SCRIPT = """
import json
import sys
from pathlib import Path

import torch

from benchmark.core import BACKBONES, CRITERIA, EXPLAINERS, EXPLANATION_METRICS
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.metric import METRICS
from benchmark.report.tables.report_table import REPORT_TABLES, ReportOptions
from tests.support.runs import failure, plan_runs, run

registries = (
    BACKBONES,
    EXPLAINERS,
    METRICS,
    EXPLANATION_METRICS,
    CRITERIA.registry,
    REPORT_TABLES,
)
added = [name for registry in registries for name in registry.names() if not registry.is_ours(name)]
broken = {origin: why for registry in registries for origin, why in registry.broken.items()}

network = BACKBONES.get("all_conv")(3, (3, 16, 16), width=2).eval()
image = torch.randn(2, 3, 16, 16)
target = torch.tensor([0, 2])
heatmap = EXPLAINERS.get("squared_gradient")()(network, image, target)
leaf = image.clone().requires_grad_()
network(leaf).gather(1, target[:, None]).sum().backward()
torch.testing.assert_close(heatmap, leaf.grad.square())

root = Path(sys.argv[1])
folders = plan_runs(
    root,
    "tea",
    hparams={"explanation": "squared_gradient", "teacher": "unbiased"},
    backbone="all_conv:width=2",
    budget={"steps": 4, "evaluate_every": 2},
    selection=["val_balanced"],
)
for folder in folders:
    assert run(folder) == "done", failure(folder)
record = json.loads((folders[-1] / "record.json").read_text())
report = make_report(root, options=ReportOptions(tables=("selected_steps",)))
forms = {form: render(report, form) for form in ("text", "csv", "markdown")}
print(json.dumps({"added": sorted(added), "broken": broken, "record": record, **forms}))
"""


def block(page: str, file: str) -> str:
    """Return the code block of a page that begins with a comment naming the file."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"```\w+\n# {re.escape(file)}\n(.*?)```", text, flags=re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules of all examples and the entry points that pip would write."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "shortcutbed_examples-1.0.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: shortcutbed-examples\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata)
    groups = []
    for page, files in EXAMPLES.items():
        for file, group in files.items():
            module = f"example_{Path(file).stem}"
            (folder / f"{module}.py").write_text(block(page, file), encoding="utf-8")
            groups.append(f"[{group}]\nexample = {module}\n")
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder


@pytest.fixture(scope="module")
def outcome(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Output of a process that trains and reports with the examples as an installed package."""
    path = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("sweep"))],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


@pytest.mark.slow
def test_examples_are_found_through_their_entry_points(outcome: dict[str, Any]) -> None:
    assert outcome["broken"] == {}
    assert outcome["added"] == [
        "all_conv",
        "balanced_accuracy",
        "entropy",
        "selected_steps",
        "squared_gradient",
        "val_balanced",
    ]


@pytest.mark.slow
def test_a_run_uses_the_backbone_the_explainer_and_the_criterion(outcome: dict[str, Any]) -> None:
    record = outcome["record"]
    assert record["spec"]["backbone"] == "all_conv"
    assert record["spec"]["hparams"]["explanation"] == "squared_gradient"
    selected = record["selected"]["val_balanced"]
    assert 0 <= selected["value"] <= 1 and selected["step"] in (2, 4)


@pytest.mark.slow
def test_a_run_records_the_metric_of_its_explanations(outcome: dict[str, Any]) -> None:
    for content in outcome["record"]["extra"]["explanations"]["splits"].values():
        assert content["metrics"]["entropy"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "csv", "markdown"])
def test_the_report_has_both_metrics_as_columns(outcome: dict[str, Any], form: str) -> None:
    assert "balanced" in outcome[form]
    assert form == "csv" or "entropy" in outcome[form]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "markdown"])
def test_the_report_has_the_table(outcome: dict[str, Any], form: str) -> None:
    assert "selected steps" in outcome[form]


@pytest.mark.parametrize(("page", "file"), FILES)
def test_examples_keep_the_style_of_the_project(page: str, file: str) -> None:
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "-"],
            input=block(page, file),
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_files_and_pages_that_a_page_names_exist(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    examples = {file for files in EXAMPLES.values() for file in files}
    named = set(
        re.findall(r"`((?:algorithms|datasets|tests|benchmark|docs|sweeps)/[\w/]+\.\w+)`", text)
    )
    missing = [path for path in sorted(named - examples) if not (ROOT / path).exists()]
    linked = re.findall(r"\]\(([\w./]+\.md)(?:#[\w-]+)?\)", text)
    missing += [link for link in linked if not (DOCS / link).exists()]
    assert not missing
