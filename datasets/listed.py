"""Your own pictures, listed in a table with a column per label: an image may have several labels, or none."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import side_option
from datasets._io.names import check_name, check_spelling, check_splits, clean
from datasets._io.picture_tree import read_tree
from datasets._io.table import Origin, Row, Table, read_table, whole
from datasets._io.user_images import MASKS, OwnPictures, bits_option, coded

#: Columns of the table that are no labels; the first two must be there.
KNOWN = ("file", "split", "confounder", "environment", "patient")


@DATASETS.register
class Listed(OwnPictures):
    """Any pictures, named in a table that says their split and, yes or no, each of their labels.

    Source, licence: yours.

    Layout, in the data folder, under the name that ``path`` gives: ``labels.csv`` with the columns ``file`` (a picture,
    from that folder on), ``split`` (train, val, or any other name for a test), and if known ``confounder``,
    ``environment`` and ``patient``; every other column is a label and holds 0 or 1. Masks of all pictures or of none:
    ``masks/<file>.png``, white for foreground. A generalisation gap is reported where tests are called ``biased`` and
    ``deceiving``.
    """

    name = "listed"
    version = 2
    title = (
        "your own pictures in a table: several labels each, masks and confounders if there are any"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        "path": HParam(
            "my_table", doc="the folder of the table, below the data folder", form=r"[^/\\].*"
        ),
        "table": HParam("labels.csv", doc="the table's name", form=r"[^/\\]+"),
        "labels": HParam(
            "", doc="the columns that are labels, NAME;NAME; empty: all that are nothing else"
        ),
        "side": side_option(64),
        "fit": HParam("stretch", doc="to the square", choices=("stretch", "crop", "pad")),
        "channels": HParam(3, doc="1: grey; 3: colour", choices=(1, 3)),
        "bits": bits_option(),
    }

    unused: tuple[str, ...] = ()

    def info(self) -> DatasetInfo:
        side, channels = self.chosen["side"], self.chosen["channels"]
        info = DatasetInfo(
            label_names=(), confounder_names=(), environment_names=(), image_size=(channels, side, side),
            splits=("train", "val", "test"),
            provides=Needs(masks=True, confounder=True, environments=True, val_groups=True, val_masks=True),
            mean=(0.5,) * channels, std=(0.25,) * channels, source="yours", licence="yours", multi_label=True,
        )  # fmt: skip
        if self.data_dir is None or not (Path(self.data_dir) / self.chosen["path"]).is_dir():
            return info  # what a table may have
        masks = next(iter(self.pools().values())).masked
        known, divided = self.confounder is not None, len(self.environments) > 1
        return replace(
            info,
            label_names=self.labels,
            confounder_names=self.confounders,
            environment_names=self.environments if divided else (),
            splits=self.splits,
            provides=Needs(
                masks=masks,
                confounder=known,
                environments=divided,
                val_groups=known,
                val_masks=masks,
            ),
            bias_splits=("biased", "deceiving")
            if {"biased", "deceiving"} <= set(self.splits)
            else None,
        )

    def metadata(self) -> list[Path]:
        return [self.root() / self.chosen["table"]]

    def read(self) -> dict[str, Pool]:
        path = self.root() / self.chosen["table"]
        self.check_entries(MASKS)
        table = read_table(path, KNOWN[:2], origin=Origin.OWN)
        check_spelling(table.columns, KNOWN, str(path), "column")
        self.splits = _splits(table)
        position = {name: number for number, name in enumerate(self.splits)}
        rows = sorted(table, key=lambda row: position[row["split"]])
        self.part = np.array([position[row["split"]] for row in rows])
        self.labels = self._labels(table)
        self.label = np.array(
            [[whole(path, row, name, (0, 1), Origin.OWN) for name in self.labels] for row in rows]
        )
        for k, name in enumerate(self.labels):
            if len(set(self.label[self.part == 0, k].tolist())) < 2:
                raise UserError(
                    f"{path}: {name} is the same for all pictures of train; a label needs both 0 and 1."
                )
        _check_once(path, rows)
        columns = {
            name: told for name in KNOWN[2:] if (told := self.told(rows, name, path)) is not None
        }
        self.confounders, self.confounder = coded(columns.get("confounder"))
        self.divide(columns.get("environment"), path)
        self.patients, self.patient = coded(columns.get("patient"))
        files = [self._stored(row["file"]) for row in rows]
        masks = self.masks_of(files)
        recipe = Recipe(
            self.chosen["side"],
            self.chosen["channels"],
            fit=self.chosen["fit"],
            bits=self.chosen["bits"],
        )
        items = [
            Item(f"{self.chosen['path']}/{file}", mask)
            for file, mask in zip(files, masks, strict=True)
        ]
        return {self.name: Pool(items, recipe)}

    def notes(self) -> list[str]:
        self.pools()
        table = self.chosen["table"]
        unused = [f"left out: columns of {table}: {', '.join(self.unused)}."] if self.unused else []
        return [*self._unnamed(), *unused, *super().notes()]

    def _unnamed(self) -> list[str]:
        """A sentence about pictures in the folder that the table does not name."""
        try:
            tree = read_tree(self.root(), skip=(MASKS,))
        except UserError as error:  # the table alone says what is needed
            return [f"pictures that {self.chosen['table']} does not name were not counted: {error}"]
        named = {
            posixpath.normpath(item.image) for pool in self.pools().values() for item in pool.items
        }
        prefix = posixpath.normpath(self.chosen["path"])
        others = [name for name in tree.pictures if f"{prefix}/{name}" not in named]
        if not others:
            return []
        pictures = f"{len(others):,} picture{'s' * (len(others) != 1)}"
        return [
            f"left out: {pictures} that {self.chosen['table']} does not name, the first is {others[0]}."
        ]

    def _stored(self, file: str) -> str:
        """The name of a file as the disk has it, where accents may be stored as characters of their own."""
        for form in (file, unicodedata.normalize("NFD", file)):
            if self.files.stat(f"{self.chosen['path']}/{form}") is not None:
                return form
        return file

    def _labels(self, table: Table) -> tuple[str, ...]:
        path = table.path
        others = [name for name in table.columns if name not in KNOWN]
        asked = [clean(name) for name in self.chosen["labels"].split(";") if clean(name)]
        for name in asked:
            if name not in others:
                raise UserError(
                    f"{path} has no label {shown(name)}; its labels are {', '.join(others) or 'none'}."
                )
            if asked.count(name) > 1:
                raise UserError(f"{self.name}: labels names {shown(name)} more than once.")
        if not (asked or others):
            raise UserError(f"{path} has no label; add a column of 0 and 1 for each.")
        for name in asked or others:
            check_name(name, f"{path}: the label")
        self.unused = tuple(name for name in others if asked and name not in asked)
        return tuple(asked or others)


def _splits(table: Table) -> tuple[str, ...]:
    path = table.path
    for row in table:
        if not row["split"] or not row["file"]:
            lacking = "file" if not row["file"] else "split"
            raise UserError(f"{path} has no {lacking} in {row.place}; fill it in.")
    present = dict.fromkeys(row["split"] for row in table)
    for name in present:
        check_name(name, f"{path}: the split")
    check_splits(list(present), str(path))
    for name in ("train", "val"):
        if name not in present:
            raise UserError(
                f"{path} has no picture in the split {name}; expected train, val and at least one test."
            )
    tests = [name for name in present if name not in ("train", "val")]
    if not tests:
        raise UserError(
            f"{path} has train and val and no test; give some pictures another split, such as test."
        )
    return ("train", "val", *tests)


def _check_once(path: Path, rows: Sequence[Row]) -> None:
    """Refuse a picture that is named twice in a split, also by way of another spelling of its path."""
    seen: dict[tuple[str, str], Row] = {}
    for row in rows:
        other = seen.setdefault((row["split"], posixpath.normpath(row["file"])), row)
        if other is not row:
            raise UserError(
                f"{path} names {row['file']} in {row['split']} more than once, in {other.place} and in {row.place}; "
                "expected each picture once."
            )
