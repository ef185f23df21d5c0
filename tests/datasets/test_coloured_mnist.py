"""Coloured MNIST in ten classes, on a small and on the real MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.dataset import GroupedDataset, Split
from benchmark.core.registry import DATASETS
from datasets._sources.colours import COLOURS
from tests.support.dataset_equality import same, same_arrays
from tests.support.mnist_tree import arrays, make_tree

TESTS = ("biased", "unbiased", "deceiving")
PALETTE = np.array(list(COLOURS.values()))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("mnist"))


def load(tree: Path, trial: int = 0, **options: Any) -> GroupedDataset:
    loaded: GroupedDataset = DATASETS.get("coloured_mnist")(tree, **options).load(trial)
    return loaded


def painted(digits: np.ndarray, split: Split) -> np.ndarray:
    """Compute the images one by one."""
    assert split.confounder is not None
    return np.stack(
        [
            np.where(digit / 255 > 0.5, PALETTE[colour][:, None, None], 0)
            for digit, colour in zip(digits, split.confounder, strict=True)
        ]
    )


def test_every_image_is_its_digit_in_its_colour(tree: Path) -> None:
    source = arrays()
    for name, split in load(tree).splits.items():
        images, labels = source["test" if name in TESTS else "train"]
        assert split.pair_id is not None and split.mask is not None
        assert (split.label == labels[split.pair_id]).all()
        assert (split.image == painted(images[split.pair_id], split)).all()
        assert (split.mask[:, 0] == (images[split.pair_id] > 127)).all()


def test_division(tree: Path) -> None:
    data = load(tree)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 540, "val": 60, "biased": 300, "unbiased": 300, "deceiving": 300,
    }  # fmt: skip
    assert len(set(data.splits["train"].pair_id) | set(data.splits["val"].pair_id)) == 600  # type: ignore[arg-type]
    for name in TESTS:
        assert data.splits[name].pair_id.tolist() == list(range(300))  # type: ignore[union-attr]


def test_test_splits_are_paired(tree: Path) -> None:
    splits = load(tree).splits
    for name in TESTS[1:]:
        assert (splits[name].mask == splits["biased"].mask).all()
    assert (splits["biased"].confounder == splits["biased"].label).all()
    assert (splits["deceiving"].confounder == (splits["biased"].label + 1) % 10).all()


@pytest.mark.parametrize("bias", [0.0, 0.1, 0.8, 1.0])
def test_bias(tree: Path, bias: float) -> None:
    data = load(tree, bias=bias)
    train = data.splits["train"]
    assert abs((train.label == train.confounder).mean() - bias) < 0.01
    assert data.info.provides.environments is (0 < bias < 1)
    assert all(same_arrays(load(tree).splits[name], data.splits[name]) for name in TESTS)


def test_sizes(tree: Path) -> None:
    data = load(tree, train_size=90, test_size=40)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 90, "val": 10, "biased": 40, "unbiased": 40, "deceiving": 40,
    }  # fmt: skip
    assert set(data.splits["train"].pair_id) <= set(load(tree).splits["train"].pair_id)  # type: ignore[arg-type]
    assert len(load(tree, train_size=1, bias=0.8).splits["val"]) == 1
    assert (
        len({DATASETS.get("coloured_mnist")(tree, train_size=n).fingerprint() for n in (0, 90, 91)})
        == 3
    )


def test_trials(tree: Path) -> None:
    assert same(load(tree, 3), load(tree, 3))
    assert not same_arrays(load(tree, 3).splits["train"], load(tree, 4).splits["train"])


@pytest.mark.data
def test_on_the_real_mnist(real_data: Path) -> None:
    data = load(real_data)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 54_000, "val": 6_000, "biased": 10_000, "unbiased": 10_000, "deceiving": 10_000,
    }  # fmt: skip
    train = data.splits["train"]
    assert (train.label == train.confounder).mean() == pytest.approx(0.8, abs=1e-3)
    unbiased = data.splits["unbiased"]
    table = np.histogram2d(unbiased.label, unbiased.confounder, bins=10)[0]  # type: ignore[arg-type]
    assert (table.max(1) - table.min(1) <= 2).all()
