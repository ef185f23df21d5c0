"""CelebA: the colour of the hair, which goes with the sex."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from datasets._sources.group_environments import environments

#: Where torchvision, WILDS and group_DRO keep it.
FOLDERS = ("celeba", "celebA_v1.0", "celebA/data", "celebA", "CelebA")
PICTURES = "img_align_celeba"
LABELS, SEXES = ("not_blond", "blond"), ("female", "male")
ATTRIBUTES = ("Blond_Hair", "Male")
SPLITS = ("train", "val", "test")
#: Environments of eX2L's Table 4: shares of not_blond/female, not_blond/male, blond/female and blond/male.
ENVIRONMENTS = {"balanced": (41.77, 46.94, 10.20, 1.08), "less_males": (46.79, 35.19, 17.36, 0.66)}
#: The square in the middle of the 178×218 photographs (group_DRO).
MIDDLE = 178


@DATASETS.register
class CelebA(ImageSource):
    """Faces of celebrities: blond or not, female or male.

    Source: Liu, Luo, Wang and Tang (2015), "Deep learning face attributes in the wild"; the task is that of Sagawa et
    al. (2020), "Distributionally robust neural networks for group shifts". Licence: non-commercial research only.

    Layout: ``celeba/`` (torchvision), ``celebA_v1.0/`` (WILDS) or ``celebA/data/`` (group_DRO), with
    ``img_align_celeba/000001.jpg`` …, and ``list_attr_celeba`` and ``list_eval_partition`` as .txt (as published) or
    .csv (as Kaggle has them). To get it: the authors' page, torchvision, WILDS, or Kaggle. Counts (not blond female,
    not blond male, blond female, blond male): train 71,629, 66,874, 22,880, 1,387; val 8,535, 8,276, 2,874, 182; test
    9,767, 7,535, 2,480, 180. There are no masks.

    Settings:
        standard: the published partition.
        ex2l: the published training images in two environments with the proportions of eX2L's Table 4; the published
            validation and test. (The paper does not say from which images its environments are drawn.)
    """

    name = "celeba"
    title = "faces: blond hair goes with the sex (Liu et al. 2015, Sagawa et al. 2020)"
    options: ClassVar[Mapping[str, HParam]] = {
        "setting": HParam(
            "standard",
            doc="the partition, or eX2L's environments too",
            choices=("standard", "ex2l"),
        ),
        "side": side_option(64),
    }

    def info(self) -> DatasetInfo:
        side, divided = self.chosen["side"], self.chosen["setting"] == "ex2l"
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=SEXES,
            environment_names=tuple(ENVIRONMENTS) if divided else (),
            image_size=(3, side, side),
            splits=SPLITS,
            provides=Needs(confounder=True, groups=True, environments=divided, val_groups=True),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation={"flip": 0.5},
            source="Liu et al. (2015), Deep learning face attributes in the wild",
            licence="non-commercial research only",
        )

    def metadata(self) -> list[Path]:
        return [self._list("list_attr_celeba"), self._list("list_eval_partition")]

    def read(self) -> dict[str, Pool]:
        attributes, partition = (_read_list(path) for path in self.metadata())
        lacking = [name for name in ATTRIBUTES if name not in attributes[0]]
        if lacking:
            raise UserError(
                f"{self.metadata()[0]} has no attribute {lacking[0]}; take the file as it was published."
            )
        columns = [attributes[0].index(name) for name in ATTRIBUTES]
        names = list(attributes[1])
        if set(names) != set(partition[1]):
            odd = sorted(set(names) ^ set(partition[1]))
            raise UserError(
                f"list_attr_celeba and list_eval_partition do not name the same images ({len(odd)} are in one only, "
                f"such as {odd[0]}); take both files as they were published."
            )
        part = _numbers(
            self.metadata()[1], [partition[1][name][0] for name in names], {"0": 0, "1": 1, "2": 2}
        )
        for number, split in enumerate(SPLITS):
            if not (part == number).any():
                raise UserError(
                    f"{self.metadata()[1]} gives no image to {split} ({number}); take it as published."
                )
        order = np.argsort(part, kind="stable")  # so that every split is one piece of the cache
        values = {"-1": 0, "0": 0, "1": 1}
        self.label, self.sex = (
            _numbers(self.metadata()[0], [attributes[1][name][c] for name in names], values)[order]
            for c in columns
        )
        self.part = part[order]
        folder = self.metadata()[0].parent.relative_to(self.folder()).as_posix()
        items = [Item(f"{folder}/{PICTURES}/{names[i]}") for i in order]
        return {self.name: Pool(items, Recipe(self.chosen["side"], middle=MIDDLE))}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows = {name: np.flatnonzero(self.part == number) for number, name in enumerate(SPLITS)}
        environment: dict[str, np.ndarray] = {}
        if self.chosen["setting"] == "ex2l":
            group = np.where(self.part == 0, 2 * self.label + self.sex, -1)
            parts = environments(seed, group, list(ENVIRONMENTS.values()), holdout=0.0)
            rows["train"], environment["train"] = parts["train"]
        return {
            name: self.split(self.name, r, self.label[r], self.sex[r], environment.get(name))
            for name, r in rows.items()
        }

    def _list(self, stem: str) -> Path:
        folder = self.find(
            *FOLDERS, how="fetch it from the authors' page, with torchvision, or from Kaggle"
        )
        found = self.find(
            f"{folder}/{stem}.txt",
            f"{folder}/{stem}.csv",
            how="put the list beside the folder of images",
        )
        return self.folder() / found


def _read_list(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the columns and the values of every image, from a .txt as published or a .csv."""
    if path.suffix == ".csv":
        table = read_table(path, ("image_id",))
        columns = [name for name in table.columns if name != "image_id"]
        return columns, _once(path, [(row["image_id"], [row[n] for n in columns]) for row in table])
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    columns = ["partition"]
    if lines and len(lines[0]) == 1:  # the number of images, then the names of the attributes
        promised, columns, lines = lines[0][0], lines[1] if len(lines) > 1 else [], lines[2:]
        if promised != str(len(lines)):
            raise UserError(
                f"{path} promises {promised} images and names {len(lines)}; take it as it was published."
            )
    for line in lines:
        if len(line) != 1 + len(columns):
            raise UserError(
                f"{path}: the line of {line[0]} has {len(line) - 1} values, expected {len(columns)}; take the file as "
                "it was published."
            )
    return columns, _once(path, [(line[0], line[1:]) for line in lines])


def _once(path: Path, named: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """The values of every image, each of which may be named once."""
    out = dict(named)
    if len(out) < len(named):
        twice = next(name for name, times in Counter(n for n, _ in named).items() if times > 1)
        raise UserError(f"{path} names {twice} more than once; take the file as it was published.")
    return out


def _numbers(path: Path, values: list[str], allowed: Mapping[str, int]) -> np.ndarray:
    """The values as int64[N]."""
    odd = set(values) - set(allowed)
    if odd:
        raise UserError(
            f"{path} has the value {sorted(odd)[0]!r}, expected one of {', '.join(allowed)}."
        )
    return np.array([allowed[value] for value in values], np.int64)
