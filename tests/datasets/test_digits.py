"""Properties that both data sets of scikit-learn's digits share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from benchmark.core.dataset import DatasetSource, GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets._sources import sklearn_digits
from tests.support.dataset_equality import same, same_arrays

CASES = [
    ("digits_on_photos", {}),
    ("digits_on_photos", {"places": 2, "bias": 0.9, "repeats": 2}),
    ("coloured_digits", {}),
]
TESTS = ("biased", "unbiased", "deceiving")


def source(name: str, **options: Any) -> DatasetSource:
    return DATASETS.get(name)(**options)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")
def data(request: pytest.FixtureRequest) -> GroupedDataset:
    name, options = request.param
    return source(name, **options).load(0)


def test_sizes_and_order(data: GroupedDataset) -> None:
    repeats = data.options["repeats"]
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1000 * repeats,
        "val": 300 * (repeats // 2),
        "biased": 497,
        "unbiased": 497,
        "deceiving": 497,
    }
    assert len(data.info.group_names) == len(data.info.label_names) ** 2


def test_labels_are_those_of_the_original_digits(data: GroupedDataset) -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    wanted = (target >= 5).astype(int) if len(data.info.label_names) == 2 else target
    for split in data.splits.values():
        assert split.pair_id is not None
        assert (split.label == wanted[split.pair_id]).all()


def test_original_digits_are_in_one_part_only_and_all_are_used(data: GroupedDataset) -> None:
    parts = [set(data.splits[name].pair_id.tolist()) for name in ("train", "val", "biased")]  # type: ignore[union-attr]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797
    for name in ("train", "val"):
        cluster = data.splits[name].cluster
        assert cluster is not None
        times = data.options["repeats"] // (1 if name == "train" else 2)
        assert (np.bincount(cluster)[np.unique(cluster)] == times).all()


def test_shares_are_as_declared(data: GroupedDataset) -> None:
    kinds, bias = len(data.info.label_names), data.options["bias"]
    for name in ("train", "val"):
        split = data.splits[name]
        for c in range(kinds):
            assert split.confounder is not None
            assert abs((split.confounder[split.label == c] == c).mean() - bias) < 0.01
    label, unbiased = data.splits["unbiased"].label, data.splits["unbiased"].confounder
    assert unbiased is not None
    table = np.histogram2d(label, unbiased, bins=kinds)[0]
    assert (table.max(1) - table.min(1) <= 2).all()
    assert (data.splits["biased"].confounder == label).all()
    assert (data.splits["deceiving"].confounder == (label + 1) % kinds).all()


def test_environments_are_aligned_and_conflicting(data: GroupedDataset) -> None:
    for name in ("train", "val"):
        split = data.splits[name]
        assert (split.environment == (split.label != split.confounder)).all()
    assert data.info.environment_names == ("aligned", "conflicting")
    assert all(data.splits[name].environment is None for name in TESTS)


def test_test_splits_are_paired(data: GroupedDataset) -> None:
    first = data.splits["biased"]
    for name in TESTS[1:]:
        other = data.splits[name]
        assert (first.pair_id == other.pair_id).all()
        assert (first.mask == other.mask).all()
        assert (first.label == other.label).all()
        assert (first.image != other.image).any(axis=(1, 2, 3)).mean() > 0.85
    assert data.info.paired
    assert data.info.bias_splits == ("biased", "deceiving")


def test_repeated_digits_are_drawn_differently(data: GroupedDataset) -> None:
    """Each original digit appears ``repeats`` times in train, with different drawings."""
    mask = data.splits["train"].mask
    assert mask is not None
    assert len(np.unique(mask.reshape(len(mask), -1), axis=0)) == len(mask)
    assert (mask.sum(axis=(1, 2, 3)) > 20).all()


def test_normalisation_is_that_of_the_training_images(data: GroupedDataset) -> None:
    image = data.splits["train"].image[::8] / 255
    assert np.abs(image.mean((0, 2, 3)) - data.info.mean).max() < 0.02
    assert np.abs(image.std((0, 2, 3)) - data.info.std).max() < 0.02


@pytest.mark.parametrize(("name", "options"), CASES[1:])
def test_a_trial_is_reproducible_and_trials_differ(name: str, options: dict[str, Any]) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    first = source(name, **options).load(1)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # the global generator is unchanged
    np.random.seed(5)
    random.seed(5)
    assert same(first, source(name, **options).load(1))
    other = source(name, **options).load(2)
    assert not same_arrays(first.splits["train"], other.splits["train"])
    assert set(first.splits["biased"].pair_id) != set(other.splits["biased"].pair_id)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["digits_on_photos", "coloured_digits"])
def test_bias_changes_neither_the_tests_nor_the_digits(name: str) -> None:
    one, other = (source(name, bias=bias, repeats=2).load(0) for bias in (0.1, 1.0))
    for split in TESTS:
        assert same_arrays(one.splits[split], other.splits[split])
    for split in ("train", "val"):
        assert (one.splits[split].mask == other.splits[split].mask).all()
        assert (one.splits[split].pair_id == other.splits[split].pair_id).all()
        assert other.splits[split].environment is None
    assert one.info.provides.environments and not other.info.provides.environments
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bais": 0.9}, "no option 'bais'; did you mean bias?"),
        ({"bias": 1.5}, "out of bounds"),
        ({"bias": "high"}, "expected a number"),
        ({"repeats": 0}, "out of bounds"),
        ({"repeats": 2.5}, "expected an integer"),
    ],
)
@pytest.mark.parametrize("name", ["digits_on_photos", "coloured_digits"])
def test_invalid_options_are_user_errors(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        source(name, **options)
    assert name in str(caught.value)


def test_fingerprint_follows_options_version_and_content(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits_on_photos", "coloured_digits"):
        kind = DATASETS.get(name)
        seen = {kind(**options).fingerprint() for options in ({}, {"bias": 0.9}, {"repeats": 3})}
        assert kind(bias=0.95, repeats=8).fingerprint() in seen  # defaults, written out
        with monkeypatch.context() as patch:
            patch.setattr(kind, "version", kind.version + 1)
            seen.add(kind().fingerprint())
        with monkeypatch.context() as patch:
            patch.setattr(sklearn_digits, "checksum", lambda files: "another file")
            seen.add(kind().fingerprint())
        assert len(seen) == 5


def test_drawing_is_bilinear_interpolation() -> None:
    """Compare with scipy's interpolation, with sizes and positions drawn in the same order."""
    ink = sklearn_digits.read_digits()[0][[0, 7, 1796]]
    found = sklearn_digits.draw_digits(np.random.default_rng(4), ink, 32, 14, 28)
    rng = np.random.default_rng(4)
    height = rng.uniform(14, 28, 3)
    top = rng.uniform(0, 32 - height)
    width = rng.uniform(14, 28, 3)
    left = rng.uniform(0, 32 - width)
    for i in range(3):
        y = (np.arange(32) + 0.5 - top[i]) * 8 / height[i] - 0.5
        x = (np.arange(32) + 0.5 - left[i]) * 8 / width[i] - 0.5
        value = map_coordinates(
            ink[i], np.meshgrid(y, x, indexing="ij"), order=1, mode="grid-constant"
        )
        wanted = np.round(255 * np.clip((value - 0.22) / 0.4, 0, 1))
        assert np.abs(found[i] - wanted).max() <= 1  # a half may round either way
        assert (found[i] != wanted).mean() < 0.01


def test_the_box_of_a_digit_lies_inside_the_image() -> None:
    full = np.ones((200, 8, 8))
    drawn = sklearn_digits.draw_digits(np.random.default_rng(0), full, 32, 16, 24) > 0
    sides = drawn.any(2).sum(1), drawn.any(1).sum(1)
    assert all(
        side.min() >= 16 and side.max() <= 28 for side in sides
    )  # up to two faded pixels at each end
    whole = sklearn_digits.draw_digits(np.random.default_rng(0), full[:1], 8, 8, 8)
    assert (whole == 255).all()  # no room to move: the eight samples themselves


def test_a_missing_package_file_is_a_user_error() -> None:
    with pytest.raises(UserError, match="of scikit-learn was not found"):
        sklearn_digits.package_file("sklearn", "datasets/data/absent.csv.gz")
