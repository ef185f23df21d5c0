"""Binary coloured MNIST with noisy labels, on a small and on the real MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.dataset import GroupedDataset
from benchmark.core.registry import DATASETS
from tests.support.dataset_equality import same, same_arrays
from tests.support.mnist_tree import arrays, make_tree

FLIPS = {"biased": 0.1, "unbiased": 0.5, "deceiving": 0.9}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("mnist"), train=6000, test=1000)


def load(tree: Path, trial: int = 0, **options: Any) -> GroupedDataset:
    loaded: GroupedDataset = DATASETS.get("cmnist")(tree, **options).load(trial)
    return loaded


def check_shares(data: GroupedDataset, digits: np.ndarray) -> None:
    """Check label noise and colour flips within four standard deviations."""

    def near(hits: np.ndarray, share: float) -> None:
        assert abs(hits.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(hits))

    for name, split in data.splits.items():
        assert split.pair_id is not None
        near(split.label != (digits[split.pair_id] < 5), 0.25)
        other = split.label != split.confounder
        if name in FLIPS:
            near(other, FLIPS[name])
        else:
            for environment, flip in enumerate((0.1, 0.2)):
                near(other[split.environment == environment], flip)


def test_shares(tree: Path) -> None:
    check_shares(load(tree), np.concatenate([labels for _, labels in arrays(6000, 1000).values()]))


def test_every_image_is_its_digit_in_one_channel(tree: Path) -> None:
    digits = np.concatenate([images for images, _ in arrays(6000, 1000).values()])
    for split in load(tree, train_size=500, test_size=200).splits.values():
        assert split.confounder is not None and split.pair_id is not None and split.mask is not None
        for image, colour, row, mask in zip(
            split.image, split.confounder, split.pair_id, split.mask, strict=True
        ):
            assert (image[colour] == digits[row]).all()
            assert not image[1 - colour].any()
            assert (mask[0] == (digits[row] > 0)).all()


def test_division_is_by_digit(tree: Path) -> None:
    data = load(tree)
    rows = [set(data.splits[name].pair_id.tolist()) for name in ("train", "val", "biased")]  # type: ignore[union-attr]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 7000
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 3735, "val": 932, "biased": 2333, "unbiased": 2333, "deceiving": 2333}
    for name, each in (("train", [1868, 1867]), ("val", [466, 466])):
        assert np.bincount(data.splits[name].environment).tolist() == each  # type: ignore[arg-type]
    assert data.info.environment_names == ("+90%", "+80%")
    assert data.info.provides.environments


def test_tests_show_the_same_digits_with_the_same_labels(tree: Path) -> None:
    splits = load(tree).splits
    for name in ("unbiased", "deceiving"):
        assert (splits[name].pair_id == splits["biased"].pair_id).all()
        assert (splits[name].label == splits["biased"].label).all()
        assert (splits[name].mask == splits["biased"].mask).all()
    kept = splits["biased"].confounder == splits["deceiving"].confounder
    assert (
        abs(kept.mean() - 0.2) < 0.04
    )  # one draw per digit serves all three: those flipped at 0.1, those kept at 0.9


def test_sizes_and_channels(tree: Path) -> None:
    data = load(tree, train_size=101, test_size=50, channels=3)
    assert {name: split.image.shape for name, split in data.splits.items()} == {
        "train": (101, 3, 28, 28), "val": (24, 3, 28, 28),
        "biased": (50, 3, 28, 28), "unbiased": (50, 3, 28, 28), "deceiving": (50, 3, 28, 28),
    }  # fmt: skip
    assert not any(split.image[:, 2].any() for split in data.splits.values())
    assert np.bincount(data.splits["train"].environment).tolist() == [51, 50]  # type: ignore[arg-type]
    two_channels = load(tree, train_size=101, test_size=50)
    for name, split in data.splits.items():
        assert np.array_equal(split.image[:, :2], two_channels.splits[name].image)
    prints = [
        DATASETS.get("cmnist")(tree, **o).fingerprint()
        for o in ({}, {"channels": 3}, {"train_size": 9})
    ]
    assert len(set(prints)) == 3


def test_trials(tree: Path) -> None:
    assert same(load(tree, 3), load(tree, 3))
    assert not same_arrays(load(tree, 3).splits["train"], load(tree, 4).splits["train"])


@pytest.mark.data
def test_on_the_real_mnist(real_data: Path) -> None:
    data = load(real_data)
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {
        "train": 37_335,
        "val": 9_332,
        "biased": 23_333,
        "unbiased": 23_333,
        "deceiving": 23_333,
    }
    files = DATASETS.get("cmnist")(real_data)
    check_shares(data, np.concatenate([files.read("train")[1], files.read("test")[1]]))
