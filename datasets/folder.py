"""Your own pictures: a tree of folders, ``split/label/confounder/*.png``."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import side_option
from datasets._io.names import check_spelling, check_splits, clean
from datasets._io.picture_tree import Tree, read_tree
from datasets._io.table import Origin, Row, not_utf8, read_table
from datasets._io.user_images import MASKS, OwnPictures, bits_option, coded

TABLE, ABOUT = "metadata.csv", "SOURCE.txt"
COLUMNS = ("file", "environment", "patient")
FITS = ("stretch", "crop", "pad")


#: The order of tests in tables; others follow by name.
_ORDER = {"biased": 0, "unbiased": 1, "deceiving": 2, "test": 3}


@DATASETS.register
class Folder(OwnPictures):
    """Any pictures, sorted into folders; the folders' names are the splits, the classes and the confounders.

    Source, licence: yours; the first two lines of a file ``SOURCE.txt`` in the tree are shown in reports.

    Layout, in the data folder, under the name that ``path`` gives: ``split/label/confounder/*.png`` (or .jpg, .tif,
    .dcm …), where train and val must be there and every other split is a test; or ``split/label/*.png`` where
    confounders are unknown. Folders may be links. Names count without white space around them. Masks of all pictures
    or of none: ``masks/split/label/confounder/<same name>.png``, white for foreground. ``metadata.csv`` may say more:
    file (such as train/cat/sofa/1.png), and environment or patient or both. A generalisation gap is reported where
    tests are called ``biased`` and ``deceiving``. The guide with an example is docs/data.md.
    """

    name = "folder"
    version = 2
    title = "your own pictures in folders: split/label/confounder, masks if there are any"
    options: ClassVar[Mapping[str, HParam]] = {
        "path": HParam("my_data", doc="the tree's folder, below the data folder", form=r"[^/\\].*"),
        "side": side_option(64),
        "fit": HParam(
            "stretch",
            doc="to the square: stretch, crop the middle, or pad with black",
            choices=FITS,
        ),
        "channels": HParam(3, doc="1: grey; 3: colour", choices=(1, 3)),
        "equalise": HParam(False, doc="equalise the histogram of each picture; for channels=1"),
        "bits": bits_option(),
    }

    tree: Tree
    about: tuple[str, str]
    ignored: tuple[str, ...] = ()

    def info(self) -> DatasetInfo:
        side, channels = self.chosen["side"], self.chosen["channels"]
        info = DatasetInfo(
            label_names=(), confounder_names=(), environment_names=(), image_size=(channels, side, side),
            splits=("train", "val", "test"),
            provides=Needs(
                masks=True, confounder=True, groups=True, environments=True, val_groups=True, val_masks=True
            ),
            mean=(0.5,) * channels, std=(0.25,) * channels, source="yours", licence="yours",
        )  # fmt: skip
        if self.data_dir is None or not (Path(self.data_dir) / self.chosen["path"]).is_dir():
            return info  # what a tree may have
        masks = next(iter(self.pools().values())).masked
        known, divided = self.confounder is not None, len(self.environments) > 1
        paired = {"biased", "deceiving"} <= set(self.splits)
        source, licence = self.about
        return replace(
            info,
            label_names=self.labels,
            confounder_names=self.confounders,
            environment_names=self.environments if divided else (),
            splits=self.splits,
            provides=Needs(
                masks=masks,
                confounder=known,
                groups=known,
                environments=divided,
                val_groups=known,
                val_masks=masks,
            ),
            source=source,
            licence=licence,
            bias_splits=("biased", "deceiving") if paired else None,
        )

    def metadata(self) -> list[Path]:
        return [self.root() / name for name in (TABLE, ABOUT) if self.has(name)]

    def read(self) -> dict[str, Pool]:
        if self.chosen["equalise"] and self.chosen["channels"] != 1:
            raise UserError(f"{self.name}: equalise=true is for grey pictures; add channels=1.")
        root = self.root()
        self.check_entries(MASKS, TABLE, ABOUT)
        self.tree = read_tree(root, skip=(MASKS, TABLE, ABOUT))
        files = [_Found(name) for name in self.tree.pictures]
        if not files:
            raise UserError(
                f"{root} holds no pictures; expected train/<label>/<confounder>/*.png and others in it."
            )
        depths = Counter(len(found.parts) for found in files)
        if not depths.keys() <= {3, 4} or len(depths) > 1:
            usual = max({3, 4}, key=lambda depth: depths[depth])
            odd = next(found for found in files if len(found.parts) != usual)
            raise UserError(
                f"{root / odd.name} is {len(odd.parts) - 1} folders deep in {root}; all pictures must be in "
                "split/label/confounder/, or all in split/label/."
            )
        present = sorted({found.parts[0] for found in files})
        check_splits(present, str(root))
        tests = sorted({*present} - {"train", "val"}, key=lambda name: (_ORDER.get(name, 9), name))
        for name in ("train", "val"):
            if name not in present:
                raise UserError(
                    f"{root} has no pictures in {name}/; expected train, val and at least one test."
                )
        if not tests:
            raise UserError(
                f"{root} has train and val and no test; put pictures in test/, or biased/ and deceiving/."
            )
        self.splits = ("train", "val", *tests)
        position = {name: number for number, name in enumerate(self.splits)}
        files.sort(key=lambda found: (position[found.parts[0]], found.name))
        self.part = np.array([position[found.parts[0]] for found in files])
        self._annotate(files)
        self.about = self._about()
        masks = self.masks_of([found.name for found in files])
        items = [
            Item(f"{self.chosen['path']}/{f.name}", mask)
            for f, mask in zip(files, masks, strict=True)
        ]
        recipe = Recipe(
            self.chosen["side"],
            self.chosen["channels"],
            fit=self.chosen["fit"],
            equalise=self.chosen["equalise"],
            bits=self.chosen["bits"],
        )
        return {self.name: Pool(items, recipe)}

    def _annotate(self, files: list[_Found]) -> None:
        """What the folders' names and the table say of every picture."""
        root = self.root()
        self.labels, label = coded([found.parts[1] for found in files])
        assert label is not None
        self.label = label
        if len(self.labels) < 2:
            raise UserError(
                f"{root} has one class only, {self.labels[0]}; expected two folders or more in each split."
            )
        absent = set(range(len(self.labels))) - set(self.label[self.part == 0].tolist())
        if absent:
            name = self.labels[min(absent)]
            raise UserError(
                f"{root} has the class {name} in a test or in val, but not in train/; add it there."
            )
        known = len(files[0].parts) == 4
        self.confounders, self.confounder = coded(
            [found.parts[2] for found in files] if known else None
        )
        rows = self._rows(files)
        self.divide(self.told(rows, "environment", root / TABLE), root / TABLE)
        self.patients, self.patient = coded(self.told(rows, "patient", root / TABLE))

    def _rows(self, files: list[_Found]) -> list[Row]:
        """The table's row of every picture, or nothing where there is no table."""
        path = self.root() / TABLE
        if not self.has(TABLE):
            return []
        table = read_table(path, ("file",), origin=Origin.OWN)
        check_spelling(table.columns, COLUMNS, str(path), "column")
        if not {"environment", "patient"} & set(table.columns):
            has = ", ".join(map(repr, table.columns))
            raise UserError(
                f"{path} has neither 'environment' nor 'patient', its columns are {has}; add one of them."
            )
        self.ignored = tuple(name for name in table.columns if name not in COLUMNS)
        by_name: dict[str, Row] = {}
        for row in table:
            name = "/".join(map(clean, row["file"].split("/")))
            if not name:
                raise UserError(f"{path} names no picture in {row.place}; fill in its file.")
            if name in by_name:
                raise UserError(
                    f"{path} names {name} more than once, in {by_name[name].place} and in {row.place}; expected each "
                    "picture once."
                )
            by_name[name] = row
        for one, other in itertools.pairwise(sorted(files, key=lambda found: found.key)):
            if one.key == other.key:
                raise UserError(
                    f"{path} cannot tell {one.name!r} from {other.name!r}, which differ in white space or in how "
                    "accents are stored; rename one of them."
                )
        unnamed = [found.name for found in files if found.key not in by_name]
        if unnamed:
            raise UserError(
                f"{path} does not name {len(unnamed)} of {len(files)} pictures, the first is {unnamed[0]}; add them, "
                "or take the table away."
            )
        absent = by_name.keys() - {found.key for found in files}
        if absent:
            raise UserError(
                f"{path} names {len(absent)} of {len(table)} pictures that are not there, the first is {min(absent)}; "
                "add them, or take their rows away."
            )
        return [by_name[found.key] for found in files]

    def problems(self) -> list[str]:
        self.pools()
        return [*self.tree.problems(self.root()), *super().problems()]

    def notes(self) -> list[str]:
        self.pools()
        ignored = (
            [f"left out: columns of {TABLE} that have no use here: {', '.join(self.ignored)}."]
            if self.ignored
            else []
        )
        return [*self.tree.notes(self.root()), *ignored, *super().notes()]

    def _about(self) -> tuple[str, str]:
        """Source and licence: the first two lines of a text.

        Raises:
            UserError: it is not UTF-8.
        """
        path = self.root() / ABOUT
        if not self.has(ABOUT):
            return "yours", "yours"
        content = path.read_bytes()
        if wrong := not_utf8(content):
            raise UserError(f"{path} cannot be read: {wrong}.")
        lines = [clean(line) for line in content.decode("utf-8-sig").splitlines()]
        return lines[0] if lines else "yours", lines[1] if len(lines) > 1 else "yours"


class _Found:
    """A picture of the tree: its name with / between the parts, the parts cleaned, and together as a key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts = tuple(map(clean, name.split("/")))
        self.key = "/".join(self.parts)
