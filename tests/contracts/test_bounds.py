"""Bounds of every number that a user may set, and batches of one image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmark.core.batch import Batch
from benchmark.core.dataset import AUGMENTATIONS
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS
from benchmark.models.ag_sononet import AGSononet
from benchmark.plan.sweepfile import BUDGET, check_table
from tests.support.every_algorithm import NAMES, SIDE, backbone_for, make, spec_of
from tests.support.tiny import TinyRun, build, make_batch

#: Backbones with the options and sides at which their last map is one cell, and at which it is not.
SIZES: list[Any] = [
    ("convnet", {"width": 2}, 8),
    ("mnist_cnn", {}, 8),
    ("resnet18", {}, 16),
    ("resnet18", {}, 32),
    ("resnet18", {}, 64),
    ("resnet18", {"small_stem": True}, 16),
    ("resnet18", {"side": 64}, 16),
    ("resnet50", {}, 32),
    pytest.param("densenet121", {}, 32, marks=pytest.mark.slow),
    ("densenet121", {"small_stem": True}, 8),
    pytest.param("alexnet", {}, 63, marks=pytest.mark.slow),
    pytest.param("convnext_base", {}, 32, marks=pytest.mark.slow),
    pytest.param("vit_b_16", {}, 16, marks=pytest.mark.slow),
    ("vit", {"dim": 16, "depth": 2}, 32),
    ("vit_s_16", {}, 16),
    pytest.param("vit_l_16", {}, 16, marks=pytest.mark.slow),
]
#: Names of the backbones in ``SIZES``, whose entries may carry marks.
COVERED = {getattr(case, "values", case)[0] for case in SIZES}


class OneImage(TinyRun):
    """Batches of one image."""

    def steps(self) -> Iterator[Batch]:
        yield make_batch(rows=1, side=self.side).strip(self.needs)


def declared() -> Iterator[tuple[str, HParam]]:
    """Every declaration of everything registered, and of the tables of a sweep file."""
    for name in ALGORITHMS.names():
        for side in (32, 224):
            for key, hparam in ALGORITHMS.get(name).all_hparams(side).items():
                yield f"{name}.{key} at {side} pixels", hparam
    for registry in (DATASETS, BACKBONES, EXPLAINERS):
        for name in registry.names():
            for key, option in registry.get(name).options.items():
                yield f"{name}.{key}", option
    tables: Mapping[str, Mapping[str, HParam]] = {
        "augmentation": AUGMENTATIONS,
        "ag_sononet": AGSononet.options,
    }
    for owner, table in tables.items():
        for key, option in table.items():
            yield f"{owner}.{key}", option


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_has_finite_bounds_around_its_default() -> None:
    numbers = {name: h for name, h in declared() if is_number(h.default) and h.choices is None}
    assert len(numbers) > 100
    for name, hparam in numbers.items():
        assert hparam.low is not None and hparam.high is not None, f"{name} has no bounds"
        assert math.isfinite(hparam.low) and math.isfinite(hparam.high), name
        assert hparam.low <= hparam.default <= hparam.high, name
        for value in (10**30, -(10**30), 10**400, math.inf, math.nan):
            with pytest.raises(UserError):
                hparam.check(name, value)


def test_integers_that_are_sizes_are_bounded_by_what_a_machine_has() -> None:
    """A bound of a thousand million would not be one: the largest is the number of steps."""
    largest = {
        name: hparam.high
        for name, hparam in declared()
        if type(hparam.default) is int and hparam.high is not None and hparam.high > 100_000
    }
    assert {name.split(".")[1].split(" ")[0] for name in largest} <= {"anneal_iters", "warm_steps"}


@pytest.mark.parametrize("name", [n for n, v in BUDGET.items() if is_number(v)])
def test_every_number_of_the_budget_has_bounds(name: str) -> None:
    for value in (10**15, -1, math.inf, math.nan):
        given = float(value) if isinstance(BUDGET[name], float) else value
        with pytest.raises(UserError, match=name):
            check_table(BUDGET, "budget", {name: given})


@pytest.mark.parametrize(("name", "options", "side"), SIZES)
def test_a_network_says_whether_it_can_learn_from_one_image(
    name: str, options: dict[str, Any], side: int
) -> None:
    kind = BACKBONES.get(name)
    before = torch.get_rng_state()
    fewest = kind.fewest_rows((3, side, side), options)
    assert torch.equal(torch.get_rng_state(), before)
    network = kind(2, (3, side, side), **options).train()
    with torch.no_grad():
        network(torch.randn(fewest, 3, side, side))
        if fewest > 1:
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                network(torch.randn(1, 3, side, side))


def test_every_backbone_is_covered() -> None:
    # tests/models/test_bcos.py covers B-cos networks
    assert {name for name in BACKBONES.names() if not name.startswith("bcos_")} == COVERED


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        (name, depth)
        for name in NAMES
        for depth in ((2, 3) if "unet_depth" in ALGORITHMS.get(name).hparams else (2,))
        if name not in ("dfr", "vit")
    ],
)
def test_a_method_says_whether_it_can_learn_from_one_image(name: str, depth: int) -> None:
    """Train one step on one image; the lowest map of the U-Net has one cell at depth 3."""
    kind = ALGORITHMS.get(name)
    side = 16 if name == "ag_sononet" else 8
    backbone = "convnet" if name == "ag_sononet" else backbone_for(name)
    if backbone == "vit":
        side = SIDE  # it takes images of the size for which it was built
    own = {"unet_depth": depth} if "unet_depth" in kind.hparams else {}
    if name == "ag_sononet":
        algorithm = build(kind, side=side, width=1)
    else:
        algorithm = make(name, **{**own, "unet_width": 2} if own else {})
    spec = spec_of(name, backbone=backbone)
    spec = replace(spec, hparams={**spec.hparams, **own})
    info = replace(DATASETS.get("tiny")().info(), image_size=(3, side, side))
    run = OneImage(algorithm, 0, 1, side=side)
    if kind.fewest_rows(spec, info) == 1:
        algorithm.fit(run)
        assert all(math.isfinite(value) for value in run.logged[0].values())
    else:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            algorithm.fit(run)
