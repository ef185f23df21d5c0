"""Small runs for tests: a folder planned as a sweep would, and executed in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.files import read_json
from benchmark.core.record import RunRecord, read_record
from benchmark.core.spec import RunSpec
from benchmark.engine.build import build_algorithm
from benchmark.engine.checkpoint import load_weights
from benchmark.engine.execute import execute
from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import config_from

#: What two runs of the same spec may differ in.
TIMES = ("seconds", "images_per_second", "memory_bytes")


def plan_runs(root: Path, algorithm: str = "erm", **values: Any) -> list[Path]:
    """The run folders of one algorithm on tiny and of what it needs, upstream first."""
    hparams = {"batch_size": 16, **values.pop("hparams", {})}
    budget = {"steps": 20, "evaluate_every": 5, **values.pop("budget", {})}
    table = {
        "datasets": ["tiny:bias=0.8,size=64"],
        "algorithms": [algorithm],
        "backbone": "convnet:width=2",
        "fixed": hparams,
        "budget": budget,
        **values,
    }
    plan = expand(config_from(table, "test", "test"))
    return [root / "runs" / key for key in write_plan(plan, root)]


def plan_run(root: Path, algorithm: str = "erm", **values: Any) -> Path:
    """The run folder of one algorithm without upstream runs."""
    (folder,) = plan_runs(root, algorithm, **values)
    return folder


def plan_quick(root: Path, algorithm: str = "erm", **values: Any) -> Path:
    """As ``plan_run``, without explanations and embeddings, half of the time of so small a run."""
    compute = {"explanations": False, **values.pop("compute", {})}
    return plan_run(root, algorithm, compute=compute, **values)


def run(folder: Path, attempt: int = 1, **options: Any) -> str:
    """Execute a run; returns how it ended."""
    (folder / "attempts" / str(attempt)).mkdir(parents=True)
    return execute(folder, attempt, **options)


def done(root: Path, algorithm: str = "erm", **values: Any) -> RunRecord:
    """The record of a run that was planned and executed, without explanations."""
    folder = plan_quick(root, algorithm, **values)
    assert run(folder) == "done", failure(folder)
    return read_record(folder)


def spec_of(folder: Path) -> RunSpec:
    return RunSpec.from_json(read_json(folder / "spec.json"))


def failure(folder: Path) -> dict[str, Any]:
    path = folder / "failure.json"
    return read_json(path) if path.exists() else {}


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log without what the clock and the machine decide."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def assert_same_results(one: Path, other: Path) -> None:
    """Compare the logs, records, weights and arrays of two run folders bit by bit."""
    assert lines(one) == lines(other)
    a = read_record(one)
    b = read_record(other)
    assert a.selected == b.selected and a.extra == b.extra
    assert (a.steps, a.stopped_early, a.upstream) == (b.steps, b.stopped_early, b.upstream)
    weights = load_weights(one / "selected.pt")
    others = load_weights(other / "selected.pt")
    assert list(weights) == list(others)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    files = sorted(path.name for path in one.glob("*.npz"))
    assert files == sorted(path.name for path in other.glob("*.npz"))
    assert "predictions.npz" in files
    for file in files:
        arrays = np.load(one / file)
        others_arrays = np.load(other / file)
        assert arrays.files == others_arrays.files
        assert all(arrays[name].tobytes() == others_arrays[name].tobytes() for name in arrays.files)


def built(folder: Path) -> Algorithm:
    """The algorithm of a run folder, freshly initialised, with its optimisers."""
    from benchmark.core.registry import DATASETS

    spec = spec_of(folder)
    info = DATASETS.get(spec.dataset)(None, **spec.dataset_options).info()
    algorithm = build_algorithm(spec, info, torch.device("cpu"), folder.parent)
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm
