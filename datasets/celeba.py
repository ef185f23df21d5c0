"""CelebA: the colour of the hair is tied to the sex."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.table import read_table, read_text
from datasets._sources.group_environments import assign_environments
from datasets._sources.photographs import IMAGENET_MEAN, IMAGENET_STD

#: Folders used by torchvision, WILDS and group_DRO.
FOLDERS = ("celeba", "celebA_v1.0", "celebA/data", "celebA", "CelebA")
IMAGE_FOLDER = "img_align_celeba"
ATTRIBUTE_LIST = "list_attr_celeba"
PARTITION_LIST = "list_eval_partition"
LABELS = ("not_blond", "blond")
SEXES = ("female", "male")
#: The attributes of the label and of the confounder.
ATTRIBUTES = ("Blond_Hair", "Male")
SPLITS = ("train", "val", "test")
#: The environments of eX2L's Table 5.
ENVIRONMENTS = ("balanced", "less_males")
#: The share of not_blond/female, not_blond/male, blond/female and blond/male in the first
#: environment. With the counts of the whole release these give the percentages of the table.
BALANCED_SHARES = (0.45, 0.55, 0.35, 0.60)
#: The side of the central square of the 178×218 photographs (group_DRO).
MIDDLE = 178


@DATASETS.register
class CelebA(ImageSource):
    """Faces of celebrities: blond or not, female or male.

    Source: Liu, Luo, Wang and Tang (2015), "Deep learning face attributes in the wild"; the task is
    that of Sagawa et al. (2020), "Distributionally robust neural networks for group shifts".
    Licence: non-commercial research only.

    Layout: ``celeba/`` (torchvision), ``celebA_v1.0/`` (WILDS) or ``celebA/data/`` (group_DRO)
    with ``img_align_celeba/000001.jpg`` …, and ``list_attr_celeba`` and ``list_eval_partition`` as
    .txt (as published) or .csv (Kaggle). To get it: the authors' page, torchvision, WILDS, or
    Kaggle. Counts (not blond female, not blond male, blond female, blond male): train 71,629,
    66,874, 22,880, 1,387; val 8,535, 8,276, 2,874, 182; test 9,767, 7,535, 2,480, 180. There are no
    masks.

    Settings:
        standard: The published partition.
        ex2l: All 202,599 images in two environments with the percentages of eX2L's Table 5:
            ``balanced`` has 45 % of the women and 55 % of the men who are not blond, 35 % of the
            blond women and 60 % of the blond men; ``less_males`` has the others. The published
            parts are kept, since no person is in two of them, and each is divided with these
            shares, so the percentages of the training part differ by at most 0.4 points. The test
            is the published one. The paper does not describe its test set.
    """

    name = "celeba"
    title = "CelebA"
    description = "faces: blond hair is tied to the sex (Liu et al. 2015, Sagawa et al. 2020)"
    option_titles: ClassVar[Mapping[str, str]] = {"setting": "setting {value}"}
    options: ClassVar[Mapping[str, HParam]] = {
        "setting": HParam(
            "standard",
            doc="the published partition, or eX2L's environments in addition",
            choices=("standard", "ex2l"),
        ),
        "side": side_option(64),
    }

    label: np.ndarray
    sex: np.ndarray
    part: np.ndarray

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        divided = self.chosen["setting"] == "ex2l"
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=SEXES,
            environment_names=ENVIRONMENTS if divided else (),
            image_size=(3, side, side),
            splits=SPLITS,
            provides=Needs(confounder=True, groups=True, environments=divided, val_groups=True),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            augmentation={"flip": 0.5},
            source="Liu et al. (2015), Deep learning face attributes in the wild",
            licence="non-commercial research only",
        )

    def metadata(self) -> list[Path]:
        return [self._list_path(ATTRIBUTE_LIST), self._list_path(PARTITION_LIST)]

    def content(self) -> str:
        """Extend the digest by the environments, which old runs had drawn from fewer images."""
        content = super().content()
        return f"{content} {BALANCED_SHARES}" if self.chosen["setting"] == "ex2l" else content

    def read(self) -> dict[str, Pool]:
        attributes, partition = (_read_list(path) for path in self.metadata())
        for name in ATTRIBUTES:
            if name not in attributes.columns:
                raise UserError(
                    f"{attributes.path} has no attribute {name}; use the file as it was published."
                )
        if set(attributes.values) != set(partition.values):
            differing = sorted(set(attributes.values) ^ set(partition.values))
            raise UserError(
                f"{ATTRIBUTE_LIST} and {PARTITION_LIST} do not name the same images "
                f"({len(differing)} are in one only, such as {differing[0]}); use both files as "
                "they were published."
            )
        names = list(attributes.values)
        part = partition.encoded(names, 0, {"0": 0, "1": 1, "2": 2})
        for number, split in enumerate(SPLITS):
            if not (part == number).any():
                raise UserError(
                    f"{partition.path} assigns no image to {split} ({number}); use the published "
                    "file."
                )
        order = np.argsort(part, kind="stable")  # so that every split is one piece of the cache
        values = {"-1": 0, "0": 0, "1": 1}
        self.label, self.sex = (
            attributes.encoded(names, attributes.columns.index(name), values)[order]
            for name in ATTRIBUTES
        )
        self.part = part[order]
        folder = attributes.path.parent.relative_to(self.folder()).as_posix()
        items = [Item(f"{folder}/{IMAGE_FOLDER}/{names[i]}") for i in order]
        return {self.name: Pool(items, Recipe(self.chosen["side"], middle=MIDDLE))}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows = {name: np.flatnonzero(self.part == number) for number, name in enumerate(SPLITS)}
        environment: np.ndarray | None = None
        if self.chosen["setting"] == "ex2l":
            group = 2 * self.label + self.sex
            environment = assign_environments(seed, self.part, group, BALANCED_SHARES)
        return {
            name: self.split(
                self.name,
                r,
                self.label[r],
                self.sex[r],
                None if environment is None or name == "test" else environment[r],
            )
            for name, r in rows.items()
        }

    def _list_path(self, stem: str) -> Path:
        folder = self.find(
            *FOLDERS, how="fetch it from the authors' page, with torchvision, or from Kaggle"
        )
        path = self.find(
            f"{folder}/{stem}.txt",
            f"{folder}/{stem}.csv",
            how="put the list beside the folder of images",
        )
        return self.folder() / path


@dataclass(frozen=True)
class _ImageList:
    """A list of images with values.

    Args:
        path: The file.
        columns: The names of the values.
        values: The values of each image.
    """

    path: Path
    columns: Sequence[str]
    values: Mapping[str, Sequence[str]]

    def encoded(self, names: Sequence[str], column: int, numbers: Mapping[str, int]) -> np.ndarray:
        """Return the values of a column as numbers, int64[N].

        Raises:
            UserError: If a value is not a key of ``numbers``.
        """
        values = [self.values[name][column] for name in names]
        unknown = sorted(set(values) - set(numbers))
        if unknown:
            raise UserError(
                f"{self.path} has the value {unknown[0]!r}, expected one of {', '.join(numbers)}."
            )
        return np.array([numbers[value] for value in values], np.int64)


def _read_list(path: Path) -> _ImageList:
    """Read a list as published (.txt) or as a table (.csv)."""
    if path.suffix == ".csv":
        table = read_table(path, ("image_id",))
        columns = [name for name in table.columns if name != "image_id"]
        rows = [(row["image_id"], [row[name] for name in columns]) for row in table]
        return _ImageList(path, columns, _unique(path, rows))
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    columns = ["partition"]
    if lines and len(lines[0]) == 1:  # the number of images, then the names of the attributes
        promised = lines[0][0]
        columns = lines[1] if len(lines) > 1 else []
        lines = lines[2:]
        if promised != str(len(lines)):
            raise UserError(
                f"{path} promises {promised} images and names {len(lines)}; use the file as it was "
                "published."
            )
    for line in lines:
        if len(line) != 1 + len(columns):
            raise UserError(
                f"{path}: the line of {line[0]} has {len(line) - 1} values, expected "
                f"{len(columns)}; use the file as it was published."
            )
    return _ImageList(path, columns, _unique(path, [(line[0], line[1:]) for line in lines]))


def _unique(path: Path, rows: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Return the values of each image, which must be named once."""
    values = dict(rows)
    if len(values) < len(rows):
        counts = Counter(name for name, _ in rows)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise UserError(
            f"{path} names {repeated} more than once; use the file as it was published."
        )
    return values
