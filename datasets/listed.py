"""Your own images listed in a table with a column per label; an image may have several labels."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import UNKNOWN
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import side_option
from datasets._io.image_tree import read_image_tree
from datasets._io.names import check_name, check_spelling, check_splits, normalise
from datasets._io.table import Origin, Row, Table, read_integer, read_table
from datasets._io.user_images import FITS, MASKS, Annotation, UserImages, bits_option

#: The labels of uncertain and of empty cells, by the options ``uncertain`` and ``blank``.
MEANINGS = {"zero": 0, "one": 1, "ignore": UNKNOWN}
_OPTION_OF_CELL = {"": "blank", "-1": "uncertain"}
REQUIRED_COLUMNS = ("file", "split")
#: Columns of the table that are not labels.
KNOWN_COLUMNS = (*REQUIRED_COLUMNS, "confounder", "environment", "patient")


@DATASETS.register
class Listed(UserImages):
    """Images named in a table that gives their split and each of their labels as 0 or 1.

    Source, licence: yours.

    Layout, in the data folder, below the name that ``path`` gives: ``labels.csv`` with the columns
    ``file`` (an image, relative to that folder) and ``split`` (train, val, or any other name for a
    test), and optionally ``confounder``, ``environment`` and ``patient``. Every other column is a
    label and holds 0 or 1. The options ``uncertain`` and ``blank`` also allow -1 and empty cells;
    labels that are ignored are no part of losses and validation, and tests need all labels. Masks
    of all images or of none: ``masks/<file>.png``, white for the foreground. A generalisation gap
    is reported if tests are called ``biased`` and ``deceiving``.
    """

    name = "listed"
    version = 2
    title = "Listed images"
    description = (
        "your own images in a table: several labels each, with optional masks and confounders"
    )
    multi_label = True
    options: ClassVar[Mapping[str, HParam]] = {
        "path": HParam(
            "my_table", doc="the folder of the table, below the data folder", form=r"[^/\\].*"
        ),
        "table": HParam("labels.csv", doc="the name of the table", form=r"[^/\\]+"),
        "labels": HParam("", doc="the columns that are labels, NAME;NAME; empty: all others"),
        "side": side_option(64),
        "fit": HParam("stretch", doc="how images become squares", choices=FITS),
        "channels": HParam(3, doc="1: grey; 3: colour", choices=(1, 3)),
        "bits": bits_option(),
        "uncertain": HParam(
            "refuse",
            doc="the meaning of labels -1: an error, absent, present, or not known",
            choices=("refuse", *MEANINGS),
        ),
        "blank": HParam(
            "refuse",
            doc="the meaning of empty labels: an error, absent, present, or not known",
            choices=("refuse", *MEANINGS),
        ),
    }
    later_options: ClassVar[frozenset[str]] = frozenset({"uncertain", "blank"})

    ignored_columns: tuple[str, ...] = ()

    def metadata(self) -> list[Path]:
        return [self.root() / self.chosen["table"]]

    def read(self) -> dict[str, Pool]:
        path = self.root() / self.chosen["table"]
        self.check_entries(MASKS)
        table = read_table(path, REQUIRED_COLUMNS, origin=Origin.USER)
        check_spelling(table.columns, KNOWN_COLUMNS, str(path), "column")
        self.splits = _read_splits(table)
        split_number = {name: number for number, name in enumerate(self.splits)}
        rows = sorted(table, key=lambda row: split_number[row["split"]])
        self.split_number = np.array([split_number[row["split"]] for row in rows])
        self._read_labels(table, rows)
        _check_repeated(path, rows)
        self._annotate(path, rows)
        files = [self._stored_name(row["file"]) for row in rows]
        masks = self.mask_files(files)
        items = [
            Item(f"{self.chosen['path']}/{file}", mask)
            for file, mask in zip(files, masks, strict=True)
        ]
        recipe = Recipe(
            self.chosen["side"],
            self.chosen["channels"],
            fit=self.chosen["fit"],
            bits=self.chosen["bits"],
        )
        return {self.name: Pool(items, recipe)}

    def notes(self) -> list[str]:
        self.pools()
        notes = self._unlisted_images()
        if self.ignored_columns:
            columns = ", ".join(self.ignored_columns)
            notes.append(f"left out: columns of {self.chosen['table']}: {columns}.")
        return [*notes, *super().notes()]

    def _annotate(self, path: Path, rows: Sequence[Row]) -> None:
        """Set the optional annotations."""
        confounders = self.column_values(rows, "confounder", path)
        environments = self.column_values(rows, "environment", path)
        patients = self.column_values(rows, "patient", path)
        self.confounder = None if confounders is None else Annotation.from_names(confounders)
        self.set_environment(environments, path)
        self.patient = None if patients is None else Annotation.from_names(patients)

    def _read_labels(self, table: Table, rows: Sequence[Row]) -> None:
        """Set the labels, each of which must have both values in train."""
        path = table.path
        self.labels = self._label_columns(table)
        self.label = np.array(
            [[self._read_label(path, row, name) for name in self.labels] for row in rows]
        )
        for k, name in enumerate(self.labels):
            if not {0, 1} <= set(self.label[self.split_number == 0, k].tolist()):
                raise UserError(
                    f"{path}: {name} is the same for all images of train; a label needs both 0 "
                    "and 1."
                )

    def _read_label(self, path: Path, row: Row, name: str) -> int:
        """Return a label: 0, 1 or UNKNOWN."""
        text = re.sub(r"\.0*$", "", row[name].strip())
        if text not in _OPTION_OF_CELL:
            return read_integer(path, row, name, (0, 1), Origin.USER)
        option = _OPTION_OF_CELL[text]
        meaning = self.chosen[option]
        if meaning == "refuse":
            raise UserError(
                f"{path}: {name} = {shown(row[name])} in {row.place}, expected one of 0, 1; "
                f"correct it, or say what {option} labels mean, such as {option}=ignore."
            )
        label = MEANINGS[meaning]
        if label == UNKNOWN and row["split"] not in ("train", "val"):
            raise UserError(
                f"{path}: {name} = {shown(row[name])} in {row.place}, which is an image of the "
                f"test {row['split']}, and a test needs all labels; fill it in, or leave the image "
                "out."
            )
        return label

    def _label_columns(self, table: Table) -> tuple[str, ...]:
        """Return the columns that are labels."""
        path = table.path
        available = [name for name in table.columns if name not in KNOWN_COLUMNS]
        asked = [normalise(name) for name in self.chosen["labels"].split(";") if normalise(name)]
        for name in asked:
            if name not in available:
                raise UserError(
                    f"{path} has no label {shown(name)}; its labels are "
                    f"{', '.join(available) or 'none'}."
                )
            if asked.count(name) > 1:
                raise UserError(f"{self.name}: labels names {shown(name)} more than once.")
        labels = asked or available
        if not labels:
            raise UserError(f"{path} has no label; add a column of 0 and 1 for each.")
        for name in labels:
            check_name(name, f"{path}: the label")
        self.ignored_columns = tuple(name for name in available if name not in labels)
        return tuple(labels)

    def _unlisted_images(self) -> list[str]:
        """Return a sentence about images in the folder that the table does not name."""
        table = self.chosen["table"]
        try:
            tree = read_image_tree(self.root(), skip=(MASKS,))
        except UserError as error:  # The table alone determines which files are needed.
            return [f"images that {table} does not name were not counted: {error}"]
        listed = {
            posixpath.normpath(item.image) for pool in self.pools().values() for item in pool.items
        }
        prefix = posixpath.normpath(self.chosen["path"])
        others = [name for name in tree.images if f"{prefix}/{name}" not in listed]
        if not others:
            return []
        count = f"{len(others):,} image{'s' * (len(others) != 1)}"
        return [f"left out: {count} that {table} does not name, the first is {others[0]}."]

    def _stored_name(self, file: str) -> str:
        """Return the name of a file as stored on the disk, perhaps with decomposed accents."""
        for form in (file, unicodedata.normalize("NFD", file)):
            if self.files.stat(f"{self.chosen['path']}/{form}") is not None:
                return form
        return file


def _read_splits(table: Table) -> tuple[str, ...]:
    """Return train, val and the tests in the order of the table."""
    path = table.path
    for row in table:
        for column in REQUIRED_COLUMNS:
            if not row[column]:
                raise UserError(f"{path} has no {column} in {row.place}; fill it in.")
    present = dict.fromkeys(row["split"] for row in table)
    for name in present:
        check_name(name, f"{path}: the split")
    check_splits(list(present), str(path))
    for name in ("train", "val"):
        if name not in present:
            raise UserError(
                f"{path} has no image in the split {name}; expected train, val and at least one "
                "test."
            )
    tests = [name for name in present if name not in ("train", "val")]
    if not tests:
        raise UserError(
            f"{path} has train and val and no test; give some images another split, such as test."
        )
    return ("train", "val", *tests)


def _check_repeated(path: Path, rows: Sequence[Row]) -> None:
    """Check that no image is named twice in a split, in any spelling of its path."""
    first_row: dict[tuple[str, str], Row] = {}
    for row in rows:
        first = first_row.setdefault((row["split"], posixpath.normpath(row["file"])), row)
        if first is not row:
            raise UserError(
                f"{path} names {row['file']} in {row['split']} more than once, in {first.place} "
                f"and in {row.place}; expected each image once."
            )
