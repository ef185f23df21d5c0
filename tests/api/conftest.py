"""A sweep of two methods on tiny data, trained once for all tests of the Python interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import config_from
from tests.support.runs import run


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep with one finished run of ERM and of GroupDRO."""
    root = tmp_path_factory.mktemp("sweep")
    table = {
        "datasets": ["tiny:bias=0.8,size=64"],
        "algorithms": ["erm", "group_dro"],
        "backbone": "convnet:width=2",
        "fixed": {"batch_size": 16},
        "budget": {"steps": 10, "evaluate_every": 5},
    }
    plan = expand(config_from(table, "pair", "test"))
    for key in write_plan(plan, root):
        assert run(root / "runs" / key) == "done"
    return root
