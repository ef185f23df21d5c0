"""Your own images in a tree of folders: ``split/label/confounder/*.png``."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import side_option
from datasets._io.image_tree import ImageTree, read_image_tree
from datasets._io.names import check_spelling, check_splits, normalise
from datasets._io.table import Origin, Row, read_table, utf8_problem
from datasets._io.user_images import (
    FITS,
    MASKS,
    About,
    Annotation,
    UserImages,
    bits_option,
)

TABLE = "metadata.csv"
SOURCE_FILE = "SOURCE.txt"
COLUMNS = ("file", "environment", "patient")
#: The order of tests in tables. Other tests follow by name.
_TEST_ORDER = {"biased": 0, "unbiased": 1, "deceiving": 2, "test": 3}


class _ImagePath:
    """The path of an image in the tree.

    Attributes:
        name: The path with / between the parts, as stored on the disk.
        parts: The parts, normalised.
        key: The normalised path.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts = tuple(map(normalise, name.split("/")))
        self.key = "/".join(self.parts)

    @property
    def split(self) -> str:
        return self.parts[0]


@DATASETS.register
class Folder(UserImages):
    """Images sorted into folders whose names are the splits, the classes and the confounders.

    Source, licence: yours. The first two lines of a file ``SOURCE.txt`` in the tree are shown in
    reports.

    Layout, in the data folder, below the name that ``path`` gives: ``split/label/confounder/*.png``
    (or .jpg, .tif, .dcm …), where train and val are required and every other split is a test. If
    confounders are unknown: ``split/label/*.png``. Folders may be links, and white space around
    names is ignored. Masks of all images or of none: ``masks/split/label/confounder/<name>.png``,
    white for the foreground. ``metadata.csv`` may add the columns environment and patient; its
    column file holds paths such as train/cat/sofa/1.png. A generalisation gap is reported if tests
    are called ``biased`` and ``deceiving``. The guide with an example is docs/data.md.
    """

    name = "folder"
    version = 2
    title = "Images in folders"
    description = "your own images in folders: split/label/confounder, with optional masks"
    options: ClassVar[Mapping[str, HParam]] = {
        "path": HParam("my_data", doc="the folder, below the data folder", form=r"[^/\\].*"),
        "side": side_option(64),
        "fit": HParam(
            "stretch",
            doc="how images become squares: stretch, crop the middle, or pad with black",
            choices=FITS,
        ),
        "channels": HParam(3, doc="1: grey; 3: colour", choices=(1, 3)),
        "equalise": HParam(False, doc="equalise the histogram of each image; requires channels=1"),
        "bits": bits_option(),
    }

    tree: ImageTree
    ignored_columns: tuple[str, ...] = ()

    def metadata(self) -> list[Path]:
        return [self.root() / name for name in (TABLE, SOURCE_FILE) if self.has_file(name)]

    def read(self) -> dict[str, Pool]:
        if self.chosen["equalise"] and self.chosen["channels"] != 1:
            raise UserError(f"{self.name}: equalise=true is for grey images; add channels=1.")
        root = self.root()
        self.check_entries(MASKS, TABLE, SOURCE_FILE)
        self.tree = read_image_tree(root, skip=(MASKS, TABLE, SOURCE_FILE))
        images = [_ImagePath(name) for name in self.tree.images]
        _check_depths(root, images)
        self.splits = _read_splits(root, images)
        split_number = {name: number for number, name in enumerate(self.splits)}
        images.sort(key=lambda image: (split_number[image.split], image.name))
        self.split_number = np.array([split_number[image.split] for image in images])
        self._annotate(images)
        self.about = self._read_about()
        masks = self.mask_files([image.name for image in images])
        items = [
            Item(f"{self.chosen['path']}/{image.name}", mask)
            for image, mask in zip(images, masks, strict=True)
        ]
        recipe = Recipe(
            self.chosen["side"],
            self.chosen["channels"],
            fit=self.chosen["fit"],
            equalise=self.chosen["equalise"],
            bits=self.chosen["bits"],
        )
        return {self.name: Pool(items, recipe)}

    def problems(self) -> list[str]:
        self.pools()
        return [*self.tree.problems(self.root()), *super().problems()]

    def notes(self) -> list[str]:
        self.pools()
        notes = self.tree.notes(self.root())
        if self.ignored_columns:
            columns = ", ".join(self.ignored_columns)
            notes.append(f"left out: columns of {TABLE} that are not used: {columns}.")
        return [*notes, *super().notes()]

    def _annotate(self, images: Sequence[_ImagePath]) -> None:
        """Set the annotations from the names of folders and from the table."""
        root = self.root()
        label = Annotation.from_names([image.parts[1] for image in images])
        self.labels = label.names
        self.label = label.numbers
        if len(self.labels) < 2:
            raise UserError(
                f"{root} has one class only, {self.labels[0]}; expected two or more folders in "
                "each split."
            )
        in_train = set(self.label[self.split_number == 0].tolist())
        missing = set(range(len(self.labels))) - in_train
        if missing:
            name = self.labels[min(missing)]
            raise UserError(
                f"{root} has the class {name} in a test or in val, but not in train/; add it there."
            )
        self.confounder = None
        if len(images[0].parts) == 4:
            self.confounder = Annotation.from_names([image.parts[2] for image in images])
        rows = self._table_rows(images)
        self.set_environment(self.column_values(rows, "environment", root / TABLE), root / TABLE)
        patients = self.column_values(rows, "patient", root / TABLE)
        self.patient = None if patients is None else Annotation.from_names(patients)

    def _table_rows(self, images: Sequence[_ImagePath]) -> list[Row]:
        """Return the table's row of every image, or nothing if there is no table."""
        path = self.root() / TABLE
        if not self.has_file(TABLE):
            return []
        table = read_table(path, ("file",), origin=Origin.USER)
        check_spelling(table.columns, COLUMNS, str(path), "column")
        if not {"environment", "patient"} & set(table.columns):
            columns = ", ".join(map(repr, table.columns))
            raise UserError(
                f"{path} has neither 'environment' nor 'patient', its columns are {columns}; add "
                "one of them."
            )
        self.ignored_columns = tuple(name for name in table.columns if name not in COLUMNS)
        row_of: dict[str, Row] = {}
        for row in table:
            key = "/".join(map(normalise, row["file"].split("/")))
            if not key:
                raise UserError(f"{path} names no image in {row.place}; fill in its file.")
            if key in row_of:
                raise UserError(
                    f"{path} names {key} more than once, in {row_of[key].place} and in "
                    f"{row.place}; expected each image once."
                )
            row_of[key] = row
        _check_same_images(path, images, row_of)
        return [row_of[image.key] for image in images]

    def _read_about(self) -> About:
        """Return the source and the licence: the first two lines of a text.

        Raises:
            UserError: If it is not UTF-8.
        """
        path = self.root() / SOURCE_FILE
        if not self.has_file(SOURCE_FILE):
            return About()
        content = path.read_bytes()
        if problem := utf8_problem(content):
            raise UserError(f"{path} cannot be read: {problem}.")
        lines = [normalise(line) for line in content.decode("utf-8-sig").splitlines()]
        return About(*lines[:2])


def _check_depths(root: Path, images: Sequence[_ImagePath]) -> None:
    """Check that all images are in split/label/confounder/, or all in split/label/."""
    if not images:
        raise UserError(
            f"{root} holds no images; expected train/<label>/<confounder>/*.png and other splits."
        )
    depths = Counter(len(image.parts) for image in images)
    if depths.keys() <= {3, 4} and len(depths) == 1:
        return
    usual = max({3, 4}, key=lambda depth: depths[depth])
    other = next(image for image in images if len(image.parts) != usual)
    raise UserError(
        f"{root / other.name} is {len(other.parts) - 1} folders deep in {root}; all images must be "
        "in split/label/confounder/, or all in split/label/."
    )


def _read_splits(root: Path, images: Sequence[_ImagePath]) -> tuple[str, ...]:
    """Return train, val and the tests in the order of tables."""
    present = sorted({image.split for image in images})
    check_splits(present, str(root))
    for name in ("train", "val"):
        if name not in present:
            raise UserError(
                f"{root} has no images in {name}/; expected train, val and at least one test."
            )
    tests = sorted(
        {*present} - {"train", "val"},
        key=lambda name: (_TEST_ORDER.get(name, len(_TEST_ORDER)), name),
    )
    if not tests:
        raise UserError(
            f"{root} has train and val and no test; put images in test/, or in biased/ and "
            "deceiving/."
        )
    return ("train", "val", *tests)


def _check_same_images(path: Path, images: Sequence[_ImagePath], row_of: Mapping[str, Row]) -> None:
    """Check that the table names exactly the images of the tree."""
    ordered = sorted(images, key=lambda image: image.key)
    for first, second in itertools.pairwise(ordered):
        if first.key == second.key:
            raise UserError(
                f"{path} cannot distinguish {first.name!r} from {second.name!r}, which differ in "
                "white space or in how accents are stored; rename one of them."
            )
    unnamed = [image.name for image in images if image.key not in row_of]
    if unnamed:
        raise UserError(
            f"{path} does not name {len(unnamed)} of {len(images)} images, the first is "
            f"{unnamed[0]}; add them, or remove the table."
        )
    missing = row_of.keys() - {image.key for image in images}
    if missing:
        raise UserError(
            f"{path} names {len(missing)} of {len(row_of)} images that do not exist, the first is "
            f"{min(missing)}; add them, or remove their rows."
        )
