"""Every registered algorithm, built small with the upstream algorithms that it needs."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest

from benchmark.core.algorithm import Algorithm
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.spec import RunSpec
from tests.support import tiny
from tests.support.tiny import hparams_of, train

SIDE = 32
NAMES = ALGORITHMS.names()
METHODS = [(name, variant) for name in NAMES for variant in ("", *ALGORITHMS.get(name).variants)]
#: Methods with their first variants; the others take the same path with other numbers, and run with --slow.
TRAINED = [
    pytest.param(name, variant, marks=[pytest.mark.slow] if i > 3 else [])
    for name in NAMES
    for i, variant in enumerate(("", *ALGORITHMS.get(name).variants))
]
#: Parameters above which a method is only trained and asked for predictions, unless with --slow.
LARGE = 20_000_000
#: Methods that make no training step: their ``fit`` does all its work at once, whatever the budget.
AT_ONCE = {"dfr"}


def spec_of(name: str, variant: str = "") -> RunSpec:
    kind = ALGORITHMS.get(name)
    return RunSpec(
        dataset="tiny", dataset_options={}, data_fingerprint="", algorithm=name, variant=variant, backbone="convnet",
        backbone_options={"width": 2}, hparams=hparams_of(kind, SIDE, **kind.variants.get(variant, {})), trial=0,
        draw=0, budget={"steps": 10, "evaluate_every": 10, "patience": 0, "min_delta": 0.0}, selection=("last",),
    )  # fmt: skip


def make(name: str, variant: str = "", seed: int = 0, **changed: Any) -> Any:
    """The algorithm, small, with algorithms made in the same way for the runs that come first."""
    kind = ALGORITHMS.get(name)
    reason = kind.refuses(spec_of(name, variant), DATASETS.get("tiny")().info())
    if reason is not None:
        pytest.skip(f"refuses the tiny setting: {reason}")
    wanted = kind.upstream(spec_of(name, variant))
    first = {
        role: copy.deepcopy(trained(u.algorithm, u.variant, json.dumps(dict(u.hparams))))
        for role, u in wanted.items()
    }
    settings = {**kind.variants.get(variant, {}), **changed}
    return tiny.build(kind, seed=seed, side=SIDE, upstream=first, **settings)


@cache
def trained(name: str, variant: str, hparams: str) -> Any:
    """An algorithm that comes before others, after one step."""
    algorithm = make(name, variant, seed=7, **json.loads(hparams))
    train(algorithm, 0, 1, side=SIDE)
    algorithm.optimizers = {}
    return algorithm.eval().requires_grad_(False)


def skip_if_large(algorithm: Algorithm, request: pytest.FixtureRequest) -> None:
    if sum(p.numel() for p in algorithm.parameters()) > LARGE and not request.config.getoption(
        "--slow"
    ):
        pytest.skip("a large network of its own: run with --slow")
