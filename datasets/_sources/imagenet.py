"""ImageNet's photographs and those of its test sets, in the layouts of their archives."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import UserError, shown
from datasets._io.image_pool import Item
from datasets._io.image_source import ImageSource
from datasets._io.table import read_table, read_text
from datasets._sources.imagenet_classes import NUMBERS, WNIDS

_ENDINGS = (".jpg", ".jpeg", ".png")
#: Folders that archives contain beside those of the classes.
_IGNORED_FOLDERS = ("__MACOSX",)
#: Pairs of classes that ImageNet-S merges, the first into the second.
MERGED = {
    "n04356056": "n04355933",
    "n04493381": "n02808440",
    "n03642806": "n03832673",
    "n04008634": "n03773504",
    "n03887697": "n15075141",
}
#: Where the labels are if validation images are in a single folder: Kaggle's table, the devkit.
KAGGLE_TABLE = "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12/data"


@dataclass(frozen=True)
class Photographs:
    """Photographs with their classes.

    Args:
        items: The images.
        label: int64[N], numbers of ImageNet's classes.
        accepted: bool[N,1000], the classes that count as correct; None if only the label does.
    """

    items: list[Item]
    label: np.ndarray
    accepted: np.ndarray | None = None

    @property
    def classes(self) -> np.ndarray:
        """The classes that are correct for at least one image, bool[1000]."""
        present = np.isin(np.arange(len(WNIDS)), self.label)
        return present if self.accepted is None else present | self.accepted.any(0)


def class_folders(
    source: ImageSource,
    root: str,
    numbers: Mapping[str, int],
    how: str,
    *,
    expected: int = 0,
    skip: Sequence[str] = (),
) -> Photographs:
    """Return the images in a folder that has a folder for each class.

    Args:
        source: The data set.
        root: The folder, below the data folder.
        numbers: The number of the class by the name of its folder.
        how: How to get the images; the end of messages.
        expected: The number of classes that must be present; 0 for any.
        skip: Names of folders that are left out.

    Raises:
        UserError: If a folder is not that of a class or is empty, or classes are missing.
    """
    path = source.folder() / root
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    names = [
        name
        for name in names
        if not name.startswith(".") and name not in _IGNORED_FOLDERS and name not in skip
    ]
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise UserError(
            f"{path} has the folder {shown(unknown[0])}, which is not a class of this data set, "
            f"expected one such as {min(numbers)}; {how}."
        )
    if not names or len(names) < expected:
        raise UserError(
            f"{path} has the folders of {len(names)} classes, expected "
            f"{expected or 'at least one'}; {how}."
        )
    items: list[Item] = []
    label: list[int] = []
    for name in sorted(names, key=lambda name: (numbers[name], name)):
        images = image_names(path / name)
        if not images:
            raise UserError(f"{path / name} holds no images; {how}.")
        items += [Item(f"{root}/{name}/{image}") for image in images]
        label += [numbers[name]] * len(images)
    return Photographs(items, np.array(label, np.int64))


def image_names(folder: Path) -> list[str]:
    """Return the names of the JPEG and PNG files in a folder, sorted."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(
        name for name in names if name.lower().endswith(_ENDINGS) and not name.startswith(".")
    )


def validation_images(source: ImageSource, root: str, how: str, expected: int) -> Photographs:
    """Return ImageNet's validation images.

    They are in a folder for each class (as torchvision and most code expects them), or in a single
    folder as published, with the labels in Kaggle's table or in the devkit.

    Args:
        source: The data set.
        root: The folder, below the data folder.
        how: How to get the images; the end of messages.
        expected: The number of folders of classes, if there are any.

    Raises:
        UserError: If classes or labels are missing.
    """
    path = source.folder() / root
    images = image_names(path)
    if not images:
        return class_folders(source, root, NUMBERS, how, expected=expected)
    table = _first_existing([path / KAGGLE_TABLE, *(p / KAGGLE_TABLE for p in _above(path))])
    if table is not None:
        label_of = _kaggle_labels(table)
    else:
        devkit = _first_existing([p / DEVKIT for p in (path, *_above(path))])
        if devkit is None:
            raise UserError(
                f"{path} has no folders of classes, so the labels must be in {KAGGLE_TABLE} or in "
                f"{DEVKIT} in it or above it, expected one of them; {how}."
            )
        label_of = _devkit_labels(devkit)
    missing = [name for name in images if Path(name).stem not in label_of]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(images)} images have no label, the first is "
            f"{missing[0]}; {how}."
        )
    label = np.array([label_of[Path(name).stem] for name in images], np.int64)
    return Photographs([Item(f"{root}/{name}") for name in images], label)


def _above(path: Path) -> list[Path]:
    """Return the three folders above, which may contain the labels."""
    return list(path.parents)[:4]


def _first_existing(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _kaggle_labels(path: Path) -> dict[str, int]:
    """Return the class of each image in ``LOC_val_solution.csv``: the wnid of its first box."""
    labels = {}
    for row in read_table(path, ("ImageId", "PredictionString")):
        wnid = row["PredictionString"].split(" ")[0]
        if wnid not in NUMBERS:
            raise UserError(
                f"{path} has PredictionString = {shown(row['PredictionString'])} in {row.place}, "
                "expected a wnid and a box; use the file as it was published."
            )
        labels[row["ImageId"]] = NUMBERS[wnid]
    return labels


def _devkit_labels(folder: Path) -> dict[str, int]:
    """Return the class of each image in the devkit of ILSVRC 2012."""
    from scipy.io import loadmat  # imported here because planning with other layouts needs no SciPy

    meta = folder / "meta.mat"
    truth = folder / "ILSVRC2012_validation_ground_truth.txt"
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        number_of = {
            int(synset["ILSVRC2012_ID"]): NUMBERS.get(str(synset["WNID"])) for synset in synsets
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{meta} cannot be read as the table of ILSVRC 2012's synsets ({error}); unpack "
            "ILSVRC2012_devkit_t12.tar.gz again."
        ) from None
    labels = {}
    for line, text in enumerate(read_text(truth).split(), start=1):
        number = number_of.get(int(text)) if text.isdecimal() else None
        if number is None:
            raise UserError(
                f"line {line} of {truth} is {shown(text)}, expected the ILSVRC2012_ID of one of "
                "the 1,000 classes; unpack ILSVRC2012_devkit_t12.tar.gz again."
            )
        labels[f"ILSVRC2012_val_{line:08d}"] = number
    return labels


def annotated_images(source: ImageSource, root: str, part: str, how: str) -> Photographs:
    """Return images of ImageNet-S with their masks.

    Args:
        source: The data set.
        root: The folder ``ImageNetS919``, below the data folder.
        part: ``train-semi`` or ``validation``.
        how: How to get the images; the end of messages.

    Returns:
        The images. Classes that ImageNet-S merges accept both of the pair.

    Raises:
        UserError: If images are missing.
    """
    masks = f"{root}/{part}-segmentation"
    if not (source.folder() / masks).is_dir():
        raise UserError(
            f"{source.name} needs the masks of ImageNet-S, but there is no folder {masks} in "
            f"{source.folder()}; {how}."
        )
    found = class_folders(source, f"{root}/{part}", NUMBERS, how)
    items = [
        Item(item.image, f"{masks}/{Path(item.image).parent.name}/{Path(item.image).stem}.png")
        for item in found.items
    ]
    accepted = np.eye(len(WNIDS), dtype=bool)
    for old, new in MERGED.items():
        accepted[NUMBERS[new], NUMBERS[old]] = True
    several = np.isin(found.label, [NUMBERS[new] for new in MERGED.values()]).any()
    return Photographs(items, found.label, accepted[found.label] if several else None)


def objectnet_images(source: ImageSource, root: str, how: str, *, first_only: bool) -> Photographs:
    """Return the images of ObjectNet's classes that ImageNet has.

    Args:
        source: The data set.
        root: The folder with ``images`` and ``mappings``, below the data folder.
        how: How to get the images; the end of messages.
        first_only: True to accept only the first of the classes that an object is mapped to.

    Raises:
        UserError: If mappings or images are missing, or mappings disagree.
    """
    mappings = source.folder() / root / "mappings"
    classes_of = _objectnet_classes(mappings)
    folder_of = {
        label: folder
        for folder, label in _read_mapping(mappings / "folder_to_objectnet_label.json").items()
    }
    unknown = sorted(set(classes_of) - set(folder_of))
    if unknown:
        raise UserError(
            f"{mappings}: folder_to_objectnet_label.json has no folder of {shown(unknown[0])}, "
            f"which objectnet_to_imagenet_1k.json maps; {how}."
        )
    items: list[Item] = []
    label: list[int] = []
    accepted: list[np.ndarray] = []
    for name, classes in sorted(classes_of.items(), key=lambda pair: folder_of[pair[0]]):
        folder = f"{root}/images/{folder_of[name]}"
        path = source.folder() / folder
        images = image_names(path) if path.is_dir() else []
        if not images:
            raise UserError(
                f"{source.name}: ObjectNet's class {name} has no images in {path}; {how}."
            )
        items += [Item(f"{folder}/{image}") for image in images]
        label += [classes[0]] * len(images)
        row = np.isin(np.arange(len(WNIDS)), classes[:1] if first_only else classes)
        accepted += [row] * len(images)
    return Photographs(items, np.array(label, np.int64), None if first_only else np.stack(accepted))


def _objectnet_classes(mappings: Path) -> dict[str, list[int]]:
    """Return the numbers of ImageNet's classes for each of ObjectNet's that has any."""
    lines = read_text(mappings / "imagenet_to_label_2012_v2").splitlines()
    rows_of: dict[str, list[int]] = {}
    for row, line in enumerate(lines):
        rows_of.setdefault(line.strip(), []).append(row)
    number_of = {
        row: int(number)
        for number, row in _read_mapping(mappings / "pytorch_to_imagenet_2012_id.json").items()
        if number.isdecimal() and int(number) < len(WNIDS)
    }
    classes_of = {}
    for name, text in _read_mapping(mappings / "objectnet_to_imagenet_1k.json").items():
        numbers: list[int] = []
        for label in str(text).split("; "):
            found = [number_of[row] for row in rows_of.get(label, ()) if row in number_of]
            if not found:
                raise UserError(
                    f"{mappings}: objectnet_to_imagenet_1k.json maps {shown(name)} to "
                    f"{shown(label)}, which imagenet_to_label_2012_v2 and "
                    "pytorch_to_imagenet_2012_id.json do not number; unpack ObjectNet again."
                )
            numbers += [number for number in found if number not in numbers]
        classes_of[name] = numbers
    return classes_of


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); unpack ObjectNet again.") from None
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path} is not a table of names; unpack ObjectNet again.")
    return value
