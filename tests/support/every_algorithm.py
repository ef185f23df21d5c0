"""Every registered algorithm, built small with the upstream algorithms that it needs."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest

from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.spec import RunSpec
from tests.support import tiny
from tests.support.tiny import hparams_of, train

SIDE = 32
NAMES = ALGORITHMS.names()
METHODS = [(name, variant) for name in NAMES for variant in ("", *ALGORITHMS.get(name).variants)]


def methods(variants: int = 0) -> list[Any]:
    """Return every method as parameters: its name and a variant.

    Args:
        variants: Number of variants in the fast suite. The others take the same path with other
            numbers, and run with --slow.
    """
    return [
        pytest.param(name, variant, marks=[pytest.mark.slow] if i > variants else [])
        for name in NAMES
        for i, variant in enumerate(("", *ALGORITHMS.get(name).variants))
    ]


#: Hyper-parameters with which methods that bring a large network of their own have a small one.
SMALL_NETWORK: dict[str, dict[str, Any]] = {"ag_sononet": {"width": 2}, "vit": {"patch": 8}}
#: Instead of the size of ViT-B, which ``vit`` has with patches of 8 pixels.
SMALL_VIT = {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 4.0}
#: Methods that make no training step: their ``fit`` does all its work at once, whatever the budget.
AT_ONCE = {"dfr", "no_segmenter", "zero_shot_clip"}
#: Methods whose steps train one part after the other, during all of the training.
ALTERNATING = {"attri_net", "attri_net_guided"}


def spec_of(name: str, variant: str = "", backbone: str = "convnet") -> RunSpec:
    kind = ALGORITHMS.get(name)
    return RunSpec(
        dataset="tiny",
        dataset_options={},
        data_fingerprint="",
        algorithm=name,
        variant=variant,
        backbone=backbone,
        backbone_options=tiny.SMALL[backbone],
        hparams=hparams_of(kind, SIDE, **kind.variants.get(variant, {})),
        trial=0,
        draw=0,
        budget={"steps": 10, "evaluate_every": 10, "patience": 0, "min_delta": 0.0},
        selection=("last",),
    )


def backbone_for(name: str, variant: str = "") -> str:
    """Return the first backbone of ``tiny.SMALL`` that the method takes; skip if there is none."""
    kind = ALGORITHMS.get(name)
    info = DATASETS.get("tiny")().info()
    reasons = {}
    for backbone in tiny.SMALL:
        reasons[backbone] = kind.refuses(spec_of(name, variant, backbone), info)
        if reasons[backbone] is None:
            return backbone
    pytest.skip(f"refuses the tiny setting: {reasons['convnet']}")


def make(
    name: str, variant: str = "", seed: int = 0, backbone: str | None = None, **changed: Any
) -> Any:
    """Return the algorithm, small, with upstream algorithms that are made in the same way."""
    kind = ALGORITHMS.get(name)
    backbone = backbone or backbone_for(name, variant)
    wanted = kind.upstream(spec_of(name, variant, backbone))
    first = {
        role: copy.deepcopy(
            trained(u.algorithm, u.variant, json.dumps(dict(u.hparams)), u.backbone or backbone)
        )
        for role, u in wanted.items()
    }
    settings = {**SMALL_NETWORK.get(name, {}), **kind.variants.get(variant, {}), **changed}
    return tiny.build(kind, seed=seed, side=SIDE, upstream=first, backbone=backbone, **settings)


@cache
def trained(name: str, variant: str, hparams: str, backbone: str) -> Any:
    """Return an algorithm that comes before others, after one step."""
    algorithm = make(name, variant, seed=7, backbone=backbone, **json.loads(hparams))
    train(algorithm, 0, 1, side=SIDE)
    algorithm.optimizers = {}
    return algorithm.eval().requires_grad_(False)
