"""The example in docs/sweep_files.md is a valid sweep with all keys."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from benchmark.core.criteria import CRITERIA
from benchmark.core.dataset import AUGMENTATIONS
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import _READERS, BUDGET, COMPUTE, ExplanationsTable, config_from

DOC = Path(__file__).parents[2] / "docs" / "sweep_files.md"


def _example() -> dict:
    found = re.search(r"```toml\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return tomllib.loads(found[1])


def test_the_example_is_a_valid_sweep() -> None:
    plan = expand(config_from(_example(), "example", "docs"))
    assert sum(not run.explainer for run in plan.runs.values()) == 2 * 3 * 3
    assert len(plan.runs) == 2 * 3 * 3 * (1 + len(_example()["explanations"]["explainers"]))
    models = [run for run in plan.runs.values() if not run.explainer]
    dro = [run.spec for run in models if run.spec.algorithm == "group_dro"]
    assert {s.dataset_options["bias"] for s in dro} == {0.8}
    assert {(s.budget["steps"], s.hparams["eta"]) for s in dro} == {(900, 0.1)}
    lr = {run.spec.hparams["lr"] for run in plan.runs.values() if run.spec.method == "erm"}
    assert lr == {1e-3, 3e-4}


def test_the_example_shows_every_key() -> None:
    example = _example()
    assert set(example) == set(_READERS)
    assert set(example["budget"]) == set(BUDGET)
    assert set(example["explanations"]) == {f.name for f in fields(ExplanationsTable)}
    assert example["compute"] == COMPUTE
    assert set(AUGMENTATIONS) < set(example["augmentation"])
    assert all(name in DOC.read_text(encoding="utf-8") for name in CRITERIA)
