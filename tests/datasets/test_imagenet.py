"""ImageNet and its test sets: files and labels agree, class sets, crops, and damage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from benchmark.cli.data_checks import members
from benchmark.core.dataset import GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets import imagenet
from datasets._io.decode import Recipe, decode_array
from datasets._sources.imagenet_classes import NAMES, NUMBERS, WNIDS
from datasets._sources.si_score import CLASSES
from tests.support import imagenet_tree as tree

pytest.importorskip("h5py")

COLOURED = (
    "imagenet", "imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_v2", "objectnet",
    "si_score_location", "si_score_rotation", "si_score_size", "imagenet_s",
)  # fmt: skip
Place = tuple[Path, Mapping[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def fewer_classes() -> Iterator[None]:
    """Expect the classes of the small tree instead of 1,000 or 200."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SHORTCUTBED_CACHE", raising=False)
        for name, test in imagenet.TEST_SETS.items():
            if test.classes:
                patch.setitem(imagenet.TEST_SETS, name, test._replace(classes=tree.CLASSES))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("imagenet")
    return root, tree.everything(root)


@pytest.fixture(scope="module")
def data(whole: Place) -> GroupedDataset:
    root, options = whole
    return load(root, options)


def load(root: Path, options: Mapping[str, Any], trial: int = 0, **more: Any) -> GroupedDataset:
    return DATASETS.get("imagenet")(root, **{**options, **more}).load(trial)  # type: ignore[no-any-return]


def test_the_classes() -> None:
    assert imagenet.ImageNet(None).tests() == ("imagenet",)
    assert len(WNIDS) == len(set(NAMES)) == len(NUMBERS) == 1000
    assert list(WNIDS) == sorted(WNIDS)
    assert (NAMES[0], NAMES[437], NAMES[999]) == ("tench", "beacon", "toilet tissue")
    assert len(CLASSES) == 112 and NAMES[CLASSES["taxi"]] == "cab"


@pytest.mark.parametrize("name", COLOURED)
def test_files_and_labels_agree(data: GroupedDataset, name: str) -> None:
    split = data.splits[name]
    assert np.array_equal(tree.number_of(split.image), split.label)
    assert (split.mask is None) == (name != "imagenet_s")


def test_folders_of_imagenet_v2_are_class_numbers(data: GroupedDataset) -> None:
    assert data.splits["imagenet_v2"].label.tolist() == list(range(tree.CLASSES))


def test_train_and_val_have_different_classes(whole: Place, data: GroupedDataset) -> None:
    train, val = data.splits["train"], data.splits["val"]
    assert np.array_equal(tree.number_of(train.image), train.label)
    assert np.array_equal(tree.number_of(val.image), val.label)
    assert np.bincount(train.label)[np.unique(train.label)].tolist() == [3] * 6
    assert len(val) == len(set(val.label.tolist())) == 4
    used = {*train.label.tolist(), *val.label.tolist()}
    assert used == {NUMBERS[wnid] for wnid in WNIDS[10:20]}, "merged classes are left out"
    root, options = whole
    other = load(root, options, trial=1, tests="imagenet_s", per_class=1)
    assert len(other.splits["train"]) == 6
    assert set(other.splits["train"].label.tolist()) != set(train.label.tolist())


def test_masks_are_red_plus_256_green(data: GroupedDataset) -> None:
    """Categories, also one with red = 0, are foreground; other (0) and ignored (1000) are not."""
    train, test = data.splits["train"], data.splits["imagenet_s"]
    assert train.mask is not None and test.mask is not None
    expected = np.zeros((10, 12), np.uint8)
    expected[:, :6] = 255
    stretched = np.asarray(Image.fromarray(expected).resize((8, 8), Image.Resampling.BILINEAR))
    assert all(np.array_equal(mask[0], stretched > 127) for mask in train.mask)
    assert test.mask[:, 0, :, :3].all() and not test.mask[:, 0, :, 5:].any()


def test_objectnet(whole: Place, data: GroupedDataset) -> None:
    split = data.splits["objectnet"]
    assert not (split.image[:, 0] == 255).any(), "the red border is cut off"
    assert split.label.tolist() == [409, 409, 954, 954, 423, 423]
    assert split.accepted is not None
    sets = [np.flatnonzero(row).tolist() for row in split.accepted[::2]]
    assert sets == [[409, 530], [954], [423, 559, 765]]
    assert split.scored is None
    root, options = whole
    tests = "imagenet_a+objectnet"
    subset = load(root, options, scoring="subset", tests=tests).splits
    scored = subset["objectnet"].scored
    assert scored is not None
    assert np.flatnonzero(scored).tolist() == [409, 423, 530, 559, 765, 954]
    assert subset["imagenet_a"].scored is not None
    assert np.flatnonzero(subset["imagenet_a"].scored).tolist() == list(
        range(100, 100 + tree.CLASSES)
    )
    first = load(root, options, scoring="subset", objectnet="first", tests="objectnet")
    assert first.splits["objectnet"].accepted is None
    found = first.splits["objectnet"].scored
    assert found is not None and np.flatnonzero(found).tolist() == [409, 423, 954]
    assert first.fingerprint != data.fingerprint


def test_merged_classes_of_imagenet_s_accept_both(data: GroupedDataset) -> None:
    split = data.splits["imagenet_s"]
    assert split.accepted is not None
    row = split.label.tolist().index(NUMBERS["n04355933"])
    accepted = np.flatnonzero(split.accepted[row]).tolist()
    assert accepted == [NUMBERS["n04355933"], NUMBERS["n04356056"]]
    assert split.accepted[0].sum() == 1


def test_imagenet_segmentation(whole: Place, data: GroupedDataset) -> None:
    split = data.splits["imagenet_segmentation"]
    assert split.mask is not None and len(split) == 3
    assert split.image[:, 0, 4, 4].tolist() == [0, 1, 2]
    assert split.mask[:, 0, :, :3].all() and not split.mask[:, 0, :, 5:].any()
    assert data.info.unlabelled_splits == ("imagenet_segmentation",)
    assert {k: len(v) for k, v in members(data, "imagenet_segmentation").items()} == {
        "unlabelled": 3
    }
    root, options = whole
    source = DATASETS.get("imagenet")(root, **options)
    assert source.file_of("imagenet_segmentation", split, 2) == "image 2 of gtsegs_ijcv.mat"
    assert source.file_of("imagenet_a", data.splits["imagenet_a"], 0).startswith("imagenet-a/n0")


def test_the_usual_crop() -> None:
    """224 of 256 pixels of the shorter side, around the centre, inside the border."""
    array = np.zeros((258, 402, 3), np.uint8)
    array[1 + 16 : 1 + 240, 1 + 88 : 1 + 312] = 200
    recipe = Recipe(224, fit="crop", share=224 / 256, border=1)
    assert (decode_array(array, recipe).image == 200).all()
    assert "share" not in Recipe(224).to_json() and recipe.to_json()["border"] == 1


def flat(root: Path) -> Path:
    """Move ImageNet's validation images into one folder, as published."""
    folder = root / "imagenet/ILSVRC2012_img_val"
    folder.mkdir(parents=True)
    for number in range(3):
        tree.put(folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG", tree.picture(number + 5))
    return folder.parent


def test_validation_labels_of_kaggle(tmp_path: Path) -> None:
    options = tree.small(tmp_path)
    rows = [f"ILSVRC2012_val_{n + 1:08d},{WNIDS[n + 5]} 1 2 3 4 " for n in (2, 0, 1)]
    table = flat(tmp_path) / "LOC_val_solution.csv"
    table.write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    assert load(tmp_path, options, tests="imagenet").splits["imagenet"].label.tolist() == [5, 6, 7]
    table.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n1 1 2 3 4\n")
    with pytest.raises(UserError, match="PredictionString = 'n1 1 2 3 4' in row 2"):
        load(tmp_path, options, tests="imagenet")


def test_validation_labels_of_the_devkit(tmp_path: Path) -> None:
    options = tree.small(tmp_path)
    folder = flat(tmp_path) / "ILSVRC2012_devkit_t12/data"
    folder.mkdir(parents=True)
    order = np.random.default_rng(1).permutation(1000)
    synsets = np.zeros(1000, [("ILSVRC2012_ID", object), ("WNID", object)])
    for row, number in enumerate(order):
        synsets[row] = (row + 1, WNIDS[number])
    savemat(folder / "meta.mat", {"synsets": synsets})
    place = {int(number): row + 1 for row, number in enumerate(order)}
    truth = folder / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{place[n]}\n" for n in (5, 6, 7)))
    assert load(tmp_path, options, tests="imagenet").splits["imagenet"].label.tolist() == [5, 6, 7]
    truth.write_text("5\n1001\n")
    with pytest.raises(UserError, match=r"line 2 of .*'1001'.*ILSVRC2012_ID"):
        load(tmp_path, options, tests="imagenet")
    truth.write_text(f"{place[5]}\n")
    with pytest.raises(UserError, match=r"2 of 3 images .*ILSVRC2012_val"):
        load(tmp_path, options, tests="imagenet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tests": "imagenet_q"}, "unknown test set imagenet_q; did you mean imagenet"),
        ({"tests": "si_score+si_score_size"}, "names a test set twice"),
        ({"tests": "a b"}, "has the wrong form"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        DATASETS.get("imagenet")(None, **options).info()


def mapping(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        path = root / "objectnet-1.0/mappings" / name
        value = json.loads(path.read_text())
        change(value)
        path.unlink()
        path.write_text(json.dumps(value))

    return damage


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (root / name).unlink()
        (root / name).write_bytes(content)

    return damage


def removed(name: str) -> Callable[[Path], object]:
    return lambda root: shutil.rmtree(root / name)


#: The test set, the damage, and words that the message must contain.
DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no ImageNet-S": ("imagenet", removed("ImageNetS919"), "datapreparation_train.py"),
    "no annotations": (
        "imagenet", removed("ImageNetS919/train-semi-segmentation"), "needs the masks of ImageNet-S"
    ),
    "a mask is gone": (
        "imagenet_s",
        lambda r: next((r / "ImageNetS919/train-semi-segmentation").glob("n*/*.png")).unlink(),
        "1 of 30 masks are not in",
    ),
    "a mask is of another size": (
        "imagenet_s",
        replaced(
            f"ImageNetS919/train-semi-segmentation/{WNIDS[10]}/{WNIDS[10]}_0.png",
            tree.picture(1, 5, 5),
        ),
        "must have the size of its image",
    ),
    "a class of ImageNet-A is gone": (
        "imagenet_a", removed(f"imagenet-a/{WNIDS[100]}"), "folders of 39 classes, expected 40"
    ),
    "a class of ImageNet-R is empty": (
        "imagenet_r",
        lambda r: (r / f"imagenet-r/{WNIDS[200]}/art_0.jpg").unlink(),
        "holds no images; unpack imagenet-r.tar again",
    ),
    "a folder is no class": (
        "imagenet_a", lambda r: (r / "imagenet-a/n99999999").mkdir(), "the folder 'n99999999'"
    ),
    "a folder of V2 is a wnid": (
        "imagenet_v2",
        lambda r: (r / "imagenetv2-matched-frequency-format-val/n01440764").mkdir(),
        "expected one such as 0",
    ),
    "no ImageNet-Sketch": ("imagenet_sketch", lambda r: None, "ImageNet-Sketch.zip"),
    "no labels": (
        "imagenet",
        flat,
        "the labels must be in LOC_val_solution.csv",
    ),
    "ObjectNet: no mappings": (
        "objectnet", removed("objectnet-1.0/mappings"), "imagenet_to_label_2012_v2 does not exist"
    ),
    "ObjectNet: an unknown label": (
        "objectnet",
        mapping("objectnet_to_imagenet_1k.json", lambda v: v.update(Banana="plantain")),
        "maps 'Banana' to 'plantain'",
    ),
    "ObjectNet: an unknown class": (
        "objectnet",
        mapping("folder_to_objectnet_label.json", lambda v: v.pop("banana")),
        "no folder of 'Banana'",
    ),
    "ObjectNet: a class is gone": (
        "objectnet", removed("objectnet-1.0/images/chair"), "class Chair has no images"
    ),
    "ObjectNet: a mapping is cut off": (
        "objectnet",
        replaced("objectnet-1.0/mappings/objectnet_to_imagenet_1k.json", b'{"a": '),
        "is not JSON",
    ),
    "SI-Score: an unknown class": (
        "si_score", lambda r: (r / "si-score/area/dragon").mkdir(), "the folder 'dragon'"
    ),
    "ImageNet-Segmentation: another file": (
        "imagenet_segmentation", replaced("gtsegs_ijcv.mat", b"x" * 99), "is damaged or another"
    ),
    "no class is left for validation": (
        "imagenet_s",
        lambda r: [
            shutil.rmtree(p) for w in WNIDS[12:20] for p in (r / "ImageNetS919").glob(f"*/{w}")
        ],
        "train_classes = 6 leaves no class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(DAMAGE))
def test_damage_is_a_user_error(case: str, whole: Place, tmp_path: Path) -> None:
    tests, damage, words = DAMAGE[case]
    root, options = whole
    needed = {
        "imagenet_a": "imagenet-a", "imagenet_r": "imagenet-r", "objectnet": "objectnet-1.0",
        "imagenet_v2": "imagenetv2-matched-frequency-format-val", "si_score": "si-score",
        "imagenet_segmentation": "gtsegs_ijcv.mat",
    }  # fmt: skip
    for name in ("ImageNetS919", *filter(None, [needed.get(tests)])):
        source, target = root / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link)
        else:
            os.link(source, target)
    damage(tmp_path)
    with pytest.raises(UserError) as error:
        load(tmp_path, options, tests=tests)
    text = str(error.value)
    assert words in text
    assert text.endswith(".") and "\n" not in text and 40 < len(text) < 700
