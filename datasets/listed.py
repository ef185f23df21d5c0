"""Your own pictures, listed in a table with a column per label: an image may have several labels, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
from datasets._io.image_source import OWN, Item, Pool, numbered, read_table, side_option, whole
from datasets._io.user_images import OwnPictures

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
    }

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
        rows = read_table(path, KNOWN[:2], how=OWN)
        self.splits = _splits(path, rows)
        rows.sort(key=lambda row: self.splits.index(row["split"]))
        self.part = np.array([self.splits.index(row["split"]) for row in rows])
        self.labels = self._labels(path, rows)
        self.label = np.array(
            [[_answer(path, i, name, row) for name in self.labels] for i, row in enumerate(rows)]
        )
        for k, name in enumerate(self.labels):
            if len(set(self.label[self.part == 0, k].tolist())) < 2:
                raise UserError(
                    f"{path}: {name} is the same for all pictures of train; a label needs both 0 and 1."
                )
        twice = [
            key
            for key, times in Counter((row["split"], row["file"]) for row in rows).items()
            if times > 1
        ]
        if twice:
            raise UserError(
                f"{path} names {twice[0][1]} in {twice[0][0]} more than once; expected each picture once."
            )
        columns = {
            name: told for name in KNOWN[2:] if (told := self.told(rows, name, path)) is not None
        }
        self.confounders, self.confounder = _coded(columns.get("confounder"))
        self.divide(columns.get("environment"), path)
        self.patient = numbered(columns["patient"]) if "patient" in columns else None
        files = [f"{self.chosen['path']}/{row['file']}" for row in rows]
        masks = self.masks_of([row["file"] for row in rows])
        recipe = Recipe(self.chosen["side"], self.chosen["channels"], fit=self.chosen["fit"])
        return {
            self.name: Pool(
                [Item(file, mask) for file, mask in zip(files, masks, strict=True)], recipe
            )
        }

    def _labels(self, path: Path, rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
        others = [name for name in rows[0] if name not in KNOWN]
        asked = [name.strip() for name in self.chosen["labels"].split(";") if name.strip()]
        for name in asked:
            if name not in others:
                raise UserError(
                    f"{path} has no label {name!r}; its labels are {', '.join(others) or 'none'}."
                )
        if not (asked or others):
            raise UserError(f"{path} has no label; add a column of 0 and 1 for each.")
        return tuple(asked or others)


def _splits(path: Path, rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    present = dict.fromkeys(row["split"] for row in rows)
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


def _answer(path: Path, row: int, name: str, values: Mapping[str, str]) -> int:
    text = values[name] or ""
    return whole(path, row, name, text[:-2] if text.endswith(".0") else text, (0, 1), OWN)


def _coded(names: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray | None]:
    """The different names, sorted, and every picture's number among them."""
    return ((), None) if names is None else (tuple(sorted(set(names))), numbered(names))
