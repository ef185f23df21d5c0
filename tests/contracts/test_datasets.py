"""The contract of every registered data set: a true declaration, disjoint splits, determinism."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.cli.data_checks import leaks, oddities, repeats
from benchmark.core.dataset import DatasetInfo, DatasetSource, GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from tests.support import imagenet_tree, mask_tree, medical_trees, mnist_tree, trees, xray_tree
from tests.support.dataset_equality import same

NAMES = DATASETS.names()
Maker = Callable[[Path], Mapping[str, Any]]


def mnist(root: Path, **options: Any) -> Mapping[str, Any]:
    mnist_tree.make_tree(root)
    return options


def nothing(root: Path, **options: Any) -> Mapping[str, Any]:
    return options


def planted(root: Path) -> Mapping[str, Any]:
    trees.nlm(root)
    return {"on": "nlm_cxr", "options": "side=16;channels=1", "shortcut": "tie"}


def options_text(options: Mapping[str, Any]) -> str:
    return ";".join(f"{name}={value}" for name, value in options.items())


def tagged(root: Path) -> Mapping[str, Any]:
    trees.nlm(root)
    return {"on": "nlm_cxr", "options": "tied=neither;side=32;channels=1", "share": 0.9}


#: How to make a small one of each kind: what it is called, which data set, and its files.
TREES: dict[str, tuple[str, Maker]] = {
    "celeba": ("celeba", trees.celeba),
    "celeba, environments": (
        "celeba",
        lambda root: {**trees.celeba(root, ".csv"), "setting": "ex2l"},
    ),
    "chestxray14": ("chestxray14", medical_trees.chestxray14),
    "chexpert": ("chexpert", medical_trees.chexpert),
    "chexpert, bare": ("chexpert", partial(medical_trees.chexpert, segmentations=False)),
    "cmnist": ("cmnist", mnist),
    "coco_on_places": ("coco_on_places", trees.coco_and_places),
    "coloured_digits": ("coloured_digits", partial(nothing, repeats=1)),
    "coloured_mnist": ("coloured_mnist", mnist),
    "covid_xray": ("covid_xray", xray_tree.covid),
    "digits_on_photos": ("digits_on_photos", partial(nothing, repeats=1)),
    "dogs_with_ties": ("dogs_with_ties", trees.dogs),
    "dogs_with_ties, groups": ("dogs_with_ties", lambda root: {**trees.dogs(root), "bias": 0.8}),
    "folder": ("folder", trees.folder),
    "folder, bare": ("folder", partial(trees.folder, masks=False, confounders=False, more=False)),
    "generated_findings": ("generated_findings", partial(nothing, size=60)),
    "ham10000": ("ham10000", medical_trees.ham10000),
    "imagenet": ("imagenet", imagenet_tree.small),
    "listed": ("listed", trees.listed),
    "listed, bare": ("listed", partial(trees.listed, more=False)),
    "masked": ("masked", lambda root: mask_tree.tiny_masks(root, trials=(0, 1))),
    "nlm_cxr": ("nlm_cxr", trees.nlm),
    "planted": ("planted", planted),
    "nlm_cxr, untied": ("nlm_cxr", lambda root: {**trees.nlm(root), "tied": "neither"}),
    "rsna": ("rsna", medical_trees.rsna),
    "spawrious": ("spawrious", trees.spawrious_tree),
    "spawrious, many": ("spawrious", partial(trees.spawrious_tree, challenge="m2m_hard")),
    "tagged": ("tagged", tagged),
    "tagged, several labels": (
        "tagged",
        lambda root: {"on": "chexpert", "options": options_text(medical_trees.chexpert(root))},
    ),
    "tiny": ("tiny", nothing),
    "vindr_cxr": ("vindr_cxr", medical_trees.vindr_cxr),
    "waterbirds": ("waterbirds", trees.waterbirds),
    "waterbirds, environments": (
        "waterbirds",
        lambda root: {**trees.waterbirds(root), "setting": "ex2l"},
    ),
    "waterbirds, made": ("waterbirds", trees.cub_and_places),
}
#: Equal images that are no leak: few pixels, or drawn from a few originals.
MAY_REPEAT = {"cmnist", "coloured_mnist", "coloured_digits", "masked", "tiny"}


class Made:
    """A small data set of one kind, made once for all tests."""

    def __init__(self, name: str, root: Path, options: Mapping[str, Any]) -> None:
        self.name, self.root, self.options = name, root, dict(options)
        self.data: GroupedDataset = self.source().load(0)

    def source(self) -> DatasetSource:
        return DATASETS.get(self.name)(self.root, **self.options)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def all_made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    made: dict[str, Made] = {}

    def get(case: str) -> Made:
        if case not in made:
            name, maker = TREES[case]
            root = tmp_path_factory.mktemp(name)
            made[case] = Made(name, root, maker(root))
        return made[case]

    return get


@pytest.fixture(params=list(TREES))
def made(
    request: pytest.FixtureRequest, all_made: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> Made:
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)
    return all_made(request.param)


def test_every_data_set_is_tested_here() -> None:
    assert {name for name, _ in TREES.values()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_declaration(name: str) -> None:
    kind = DATASETS.get(name)
    assert issubclass(kind, DatasetSource)
    assert kind.name == name
    assert kind.description and len(kind.description) < 120
    assert type(kind.version) is int and kind.version >= 1
    for option, declared in kind.options.items():
        assert isinstance(declared, HParam) and declared.doc, option
        declared.check(option, declared.default)
    info = kind().info()  # without a data folder: what `list` shows
    assert isinstance(info, DatasetInfo)
    assert info.splits[:2] == ("train", "val") and info.test_splits
    assert info.source and info.licence
    doc = inspect.getdoc(kind) or ""
    if kind(None).__class__.__module__.rpartition(".")[2] in PUBLISHED:
        for word in ("Source", "icence", "Layout"):
            assert word in doc, f"{name}: the docstring says no {word}"
        assert "ounts" in doc or name == "folder"


PUBLISHED = (
    "waterbirds",
    "celeba",
    "coco_on_places",
    "spawrious",
    "dogs_with_ties",
    "covid_xray",
    "nlm_cxr",
    "rsna",
    "ham10000",
    "chexpert",
    "chestxray14",
    "vindr_cxr",
    "folder",
    "imagenet",
)
#: Data sets that train on some of their classes, as RobustViT does.
TRAINED_ON_SOME_CLASSES = {"imagenet"}


def test_info_is_true(made: Made) -> None:
    info, splits = made.data.info, made.data.splits
    assert tuple(splits) == info.splits
    assert len(info.mean) == len(info.std) == info.image_size[0]
    for name, split in splits.items():
        assert split.image.shape == (len(split), *info.image_size) and split.image.dtype == np.uint8
        assert set(split.label.ravel().tolist()) <= set(
            range(2 if info.multi_label else len(info.label_names))
        )
        if split.confounder is not None:
            assert set(split.confounder.tolist()) <= set(range(len(info.confounder_names))), name
    train = splits["train"]
    if info.multi_label:
        assert train.label.any(0).all() and not train.label.all(0).any()
    elif made.name not in TRAINED_ON_SOME_CLASSES:
        assert set(train.label.tolist()) == set(range(len(info.label_names)))
    if info.environment_names:
        assert train.environment is not None
        assert set(train.environment.tolist()) == set(range(len(info.environment_names)))
    assert info.bias_splits is None or set(info.bias_splits) <= set(info.test_splits)


def test_provided_needs_are_there_and_others_are_not(made: Made) -> None:
    provides, splits = made.data.info.provides, made.data.splits
    train, val = splits["train"], splits["val"]
    assert provides.masks == (train.mask is not None)
    assert provides.val_masks == (val.mask is not None)
    assert provides.confounder == (train.confounder is not None)
    assert provides.groups == (provides.confounder and not made.data.info.multi_label)
    assert provides.val_groups == (val.confounder is not None)
    assert provides.environments == (train.environment is not None)
    assert not provides.teacher
    assert {f.name for f in fields(Needs)} >= set(provides.names())


def test_masks_have_both_sides(made: Made) -> None:
    for split in made.data.splits.values():
        if split.mask is not None:
            share = split.mask.mean(axis=(1, 2, 3))
            assert (share < 1).all() and share.max() > 0
            assert (share > 0).all() or made.source().masks_may_be_empty


def test_splits_share_no_picture_and_no_patient(made: Made) -> None:
    found = leaks(made.data)
    if made.name in MAY_REPEAT:
        found = [problem for problem in found if "equal image" not in problem]
    assert found == []


def test_nothing_is_odd(made: Made) -> None:
    """Repetitions and leaks are judged above; groups may be few in so small a data set."""
    source = made.source()
    found = oddities(
        made.data,
        masks_may_be_empty=source.masks_may_be_empty,
        classes_may_be_missing=source.classes_may_be_missing,
    )
    assert found == []
    assert made.source().problems() == [] and made.source().notes() == []
    if made.name not in MAY_REPEAT:
        assert repeats(made.data) == []


def test_pairs(made: Made) -> None:
    info = made.data.info
    if info.paired:
        assert info.bias_splits is not None
        one, other = (made.data.splits[name] for name in info.bias_splits)
        assert one.pair_id is not None and other.pair_id is not None
        assert np.array_equal(one.pair_id, other.pair_id) and np.array_equal(one.label, other.label)
        assert not np.array_equal(one.confounder, other.confounder)  # type: ignore[arg-type]


def test_biased_and_deceiving_are_what_they_are_called(made: Made) -> None:
    info = made.data.info
    # the folders of a user say it; the labels of cmnist are noisy
    if info.bias_splits and not info.multi_label and made.name not in ("folder", "cmnist"):
        tables = []
        for name in ("train", *info.bias_splits):
            split = made.data.splits[name]
            table = np.zeros((len(info.label_names), len(info.confounder_names)))
            np.add.at(table, (split.label, split.confounder), 1)
            tables.append(table)
        train, biased, deceiving = (table / table.sum() for table in tables)
        usual = train == train.max(axis=1, keepdims=True)
        assert biased[usual].sum() == pytest.approx(1)
        assert deceiving[usual].sum() == pytest.approx(0)


def test_the_same_trial_is_the_same_data_and_another_is_not(made: Made) -> None:
    again = made.source().load(0)
    assert same(again, made.data) and again.fingerprint == made.data.fingerprint
    one, other = made.data.splits["train"], made.source().load(1).splits["train"]
    fixed = made.name in ("folder", "listed", "celeba")
    if not fixed and (made.name, made.options.get("setting")) != ("waterbirds", None):
        assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_options_change_the_fingerprint(made: Made) -> None:
    for option, declared in type(made.source()).options.items():
        value: Any = made.options.get(option, declared.default)
        if isinstance(value, bool):
            changed: Any = not value
        elif isinstance(value, float):
            changed = 0.5 if value != 0.5 else 0.6
        elif isinstance(value, int):
            changed = next((c for c in declared.choices or (value + 4,) if c != value), None)
        else:
            continue
        try:
            source = DATASETS.get(made.name)(made.root, **{**made.options, option: changed})
            assert source.fingerprint() != made.data.fingerprint, option
        except UserError:
            continue  # the tree is too small for it


def test_names_are_json(made: Made) -> None:
    info = made.data.info
    names = [*info.label_names], [*info.confounder_names], [*info.environment_names]
    parts = [*names, dict(info.augmentation), info.source]
    assert json.loads(json.dumps(parts)) == parts


@pytest.mark.parametrize(
    "name",
    sorted(
        set(NAMES)
        - {"tiny", "digits_on_photos", "coloured_digits", "planted", "tagged", "generated_findings"}
    ),
)
def test_without_its_files_a_sentence_says_what_to_do(name: str, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(UserError) as error:
            DATASETS.get(name)(folder).check()
        text = str(error.value)
        assert name in text and text.endswith(".") and ";" in text and "\n" not in text
