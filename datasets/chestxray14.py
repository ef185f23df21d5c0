"""Fourteen findings on the chest X-rays of the NIH, divided by the official lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from benchmark.core.class_masks import LabelledShape, SparseClassMasks
from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource
from datasets._io.names import encode
from datasets._io.table import Row, Table, read_table, read_text
from datasets._sources import boxes
from datasets._sources.bias_assignment import random_stream
from datasets._sources.compositing import Box
from datasets._sources.findings import (
    HOLDOUT,
    check_both_values,
    select_findings,
    xray_info,
    xray_options,
    xray_recipe,
)
from datasets._sources.holdout import divide_by_cluster

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"
#: The findings that have boxes.
LOCATED = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
#: Names in the table of boxes that differ from those in the table of images.
SPELLINGS = {"Infiltrate": "Infiltration"}
_KNOWN = {*FINDINGS, NO_FINDING}
FOLDERS = ("ChestX-ray14", "CXR8", "chestxray14", "NIH")
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAINING_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
BOXES = "BBox_List_2017.csv"
IMAGE_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
#: The coordinates of a box, as the header ``Bbox [x,y,w,h]`` is divided at its commas.
BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
#: The split of the test images that have boxes.
WITH_BOXES = "boxes"


class _Part(NamedTuple):
    """The images of an official list.

    Attributes:
        names: The names of the files.
        label: int64[N,K] of 0 and 1.
        patient: int64[N].
    """

    names: list[str]
    label: np.ndarray
    patient: np.ndarray


class _LocatedFinding(NamedTuple):
    """A finding with its box.

    Attributes:
        finding: Its name.
        box: Its bounding box in pixels of the image.
    """

    finding: str
    box: Box


@DATASETS.register
class ChestXray14(ImageSource):
    """Frontal chest X-rays with several of fourteen findings, labelled from reports.

    Source: Wang et al. (2017), "ChestX-ray8: Hospital-scale chest X-ray database and benchmarks on
    weakly-supervised classification and localization of common thorax diseases", CVPR. Licence:
    free use, with citation and a link to the NIH Clinical Center.

    Layout, in ``ChestX-ray14/`` (or ``CXR8/``, ``NIH/``): ``Data_Entry_2017.csv`` or
    ``Data_Entry_2017_v2020.csv`` (Image Index, Finding Labels joined by |, Patient ID),
    ``train_val_list.txt``, ``test_list.txt``, ``BBox_List_2017.csv``, and the images in ``images/``
    or ``images_0*/images/``.

    Counts: 112,120 images of 30,805 patients: 86,524 in the official list for training and 25,596
    in that for the test. ``train`` and ``val`` are 90 and 10 % of the patients of the former, drawn
    in each trial. 984 boxes on 880 images locate eight of the findings.

    ``boxes`` has the test images with a box of a selected finding, and is the only split with
    masks: the union of all boxes of an image. Other images are not known to have no visible sign.
    There is no such split if no selected finding has boxes. The boxes of each finding are its
    evidence in all splits.

    In the official lists, images with boxes may all be in the test. ``guiding=0.4`` moves two in
    five of the test patients with boxes to the list for training, the same in every trial, so that
    their boxes can guide a method.
    """

    name = "chestxray14"
    title = "ChestX-ray14"
    description = "fourteen findings on chest X-rays of the NIH, several labels each (some boxes)"
    options: ClassVar[Mapping[str, HParam]] = {
        **xray_options(),
        "guiding": HParam(
            0.0,
            doc="share of the test patients with boxes that are moved to train",
            low=0.0,
            high=0.9,
        ),
    }
    later_options: ClassVar[frozenset[str]] = frozenset({"guiding"})

    _train: _Part
    _test: _Part
    #: The boxes of the selected findings, by image.
    _boxes: dict[str, list[_LocatedFinding]]
    #: Rows of the test with a box of a selected finding, int64[n].
    _located: np.ndarray
    _num_unused: int
    _num_unlisted: int

    def info(self) -> DatasetInfo:
        has_boxes = not set(self._labels()).isdisjoint(LOCATED)
        return xray_info(
            self.chosen,
            self._labels(),
            ("train", *HOLDOUT, "test", *([WITH_BOXES] if has_boxes else [])),
            masks=False,
            class_masks=has_boxes and self.chosen["guiding"] > 0,
            source="Wang et al. (2017), ChestX-ray8",
            licence="free use, with citation and a link to the NIH Clinical Center",
        )

    def metadata(self) -> list[Path]:
        table = self._table_path()
        return [table, *(table.parent / name for name in (TRAINING_LIST, TEST_LIST, BOXES))]

    def read(self) -> dict[str, Pool]:
        table_path, training_list, test_list, boxes_path = self.metadata()
        rows = _rows_by_name(read_table(table_path, IMAGE_COLUMNS))
        training_names = _read_list(training_list, table_path, rows)
        test_names = _read_list(test_list, table_path, rows)
        _check_lists(training_names, test_names, training_list, test_list)
        self._num_unlisted = len(rows) - len(training_names) - len(test_names)
        patients = encode([row["Patient ID"] for row in rows.values()]).tolist()
        patient_of = dict(zip(rows, patients, strict=True))
        boxes_of = self._boxes = self._read_boxes(boxes_path, rows)
        self._num_unused = len(boxes_of.keys() - set(test_names))
        moved = self._guiding_patients(
            [patient_of[name] for name in test_names if name in boxes_of]
        )
        training_names += [name for name in test_names if patient_of[name] in moved]
        test_names = [name for name in test_names if patient_of[name] not in moved]
        self._train = self._part(table_path, training_names, rows, patient_of)
        self._test = self._part(table_path, test_names, rows, patient_of)
        check_both_values(table_path, self._train.label, self._labels())
        is_located = [name in boxes_of for name in test_names]
        self._located = np.flatnonzero(is_located)
        folder = table_path.parent
        recipe = xray_recipe(self.chosen)
        pools = {
            "train": Pool([Item(file) for file in self._files(folder, training_names)], recipe),
            "test": Pool([Item(file) for file in self._files(folder, test_names)], recipe),
        }
        if WITH_BOXES in self.info().splits:
            if not len(self._located):
                raise UserError(
                    f"{boxes_path} has no box of a selected finding on an image of {test_list}; "
                    "use the files as they were published."
                )
            names = [test_names[i] for i in self._located]
            items = [
                Item(file, drawn=boxes.to_json([located.box for located in boxes_of[name]]))
                for file, name in zip(self._files(folder, names), names, strict=True)
            ]
            pools[WITH_BOXES] = Pool(items, recipe)
        return pools

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return boxes.draw_boxes(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        pools = self.pools()
        train = self._train
        test = self._test
        stratum = np.asarray(train.label.any(axis=1), np.int64)
        rows_of_split = divide_by_cluster(seed, stratum, train.patient, HOLDOUT)
        channels = self.chosen["channels"]
        masks = self._evidence("train", train.names)
        splits = {
            name: self.split(
                "train",
                rows,
                train.label[rows],
                cluster=train.patient[rows],
                channels=channels,
                class_masks=masks,
            )
            for name, rows in rows_of_split.items()
        }
        rows = np.arange(len(test.names))
        splits["test"] = self.split(
            "test",
            rows,
            test.label,
            cluster=test.patient,
            channels=channels,
            class_masks=self._evidence("test", test.names),
        )
        if WITH_BOXES in pools:
            splits[WITH_BOXES] = self.split(
                WITH_BOXES,
                np.arange(len(self._located)),
                test.label[self._located],
                cluster=test.patient[self._located],
                channels=channels,
                class_masks=self._evidence(WITH_BOXES, [test.names[i] for i in self._located]),
            )
        return splits

    def _guiding_patients(self, located: Sequence[int]) -> frozenset[int]:
        """Return the patients that are moved to train, of those with boxes in the test."""
        patients = np.unique(np.array(located, np.int64))
        order = random_stream(0, "guiding").permutation(patients)
        return frozenset(order[: round(self.chosen["guiding"] * len(order))].tolist())

    def _evidence(self, pool: str, names: Sequence[str]) -> SparseClassMasks:
        """Return the boxes of each selected finding on the images of a pool."""
        number = {name: k for k, name in enumerate(self._labels())}
        sizes = self.arrays(pool).size.tolist()
        shapes = [
            [
                LabelledShape(number[located.finding], boxes.relative_box(located.box, size))
                for located in self._boxes.get(name, ())
            ]
            for name, size in zip(names, sizes, strict=True)
        ]
        return self.class_masks(pool, shapes, len(number))

    def notes(self) -> list[str]:
        self.pools()
        notes = []
        if self._num_unused:
            notes.append(
                f"left out: boxes on images that {TEST_LIST} does not name ({self._num_unused:,})."
            )
        if self._num_unlisted:
            notes.append(f"left out: images that neither list names ({self._num_unlisted:,}).")
        return [*notes, *super().notes()]

    def _labels(self) -> tuple[str, ...]:
        return select_findings(self.chosen["labels"], FINDINGS, self.name)

    def _part(
        self,
        table: Path,
        names: list[str],
        rows: Mapping[str, Row],
        patient_of: Mapping[str, int],
    ) -> _Part:
        """Return the images of a list with their labels and patients."""
        selected = self._labels()
        label = []
        for name in names:
            found = _read_findings(table, rows[name])
            label.append([int(finding in found) for finding in selected])
        patient = np.array([patient_of[name] for name in names], np.int64)
        return _Part(names, np.array(label, np.int64), patient)

    def _read_boxes(self, path: Path, rows: Mapping[str, Row]) -> dict[str, list[_LocatedFinding]]:
        """Return the boxes of the selected findings, by image."""
        selected = self._labels()
        boxes_of: dict[str, list[_LocatedFinding]] = {}
        for row in read_table(path, ("Image Index", "Finding Label", *BOX_COLUMNS)):
            name = row["Image Index"]
            finding = SPELLINGS.get(row["Finding Label"], row["Finding Label"])
            if name not in rows:
                raise UserError(
                    f"{path} has a box of {shown(name)} in {row.place}, which the table of images "
                    "does not name; use the files as they were published."
                )
            if finding not in LOCATED:
                raise UserError(
                    f"{path}: Finding Label = {shown(row['Finding Label'])} in {row.place}, "
                    f"expected one of {', '.join(LOCATED)}; use the file as it was published."
                )
            box = boxes.read_box(path, row, BOX_COLUMNS, size=True)
            if finding in selected:
                boxes_of.setdefault(name, []).append(_LocatedFinding(finding, box))
        return boxes_of

    def _files(self, folder: Path, names: Sequence[str]) -> list[str]:
        """Return the file of each image, in ``images/`` if it is missing."""
        image_folders = [folder / "images", *sorted(folder.glob("images_0*/images"))]
        below = [path.relative_to(self.folder()).as_posix() for path in image_folders]
        files = []
        for name in names:
            candidates = [f"{parent}/{name}" for parent in below]
            found = (file for file in candidates if self.files.stat(file) is not None)
            files.append(next(found, candidates[0]))
        return files

    def _table_path(self) -> Path:
        candidates = [f"{folder}/{name}" for folder in FOLDERS for name in TABLES]
        how = "unpack the archives of ChestX-ray14 of the NIH Clinical Center there"
        return self.folder() / self.find(*candidates, how=how)


def _rows_by_name(table: Table) -> dict[str, Row]:
    """Return the row of each image."""
    rows: dict[str, Row] = {}
    for row in table:
        first = rows.setdefault(row["Image Index"], row)
        if first is not row:
            raise UserError(
                f"{table.path} names {row['Image Index']} in {first.place} and in {row.place}, "
                "expected each image once; use the file as it was published."
            )
    return rows


def _read_list(path: Path, table: Path, rows: Mapping[str, Row]) -> list[str]:
    """Return the images of an official list."""
    names = read_text(path).split()
    if not names:
        raise UserError(f"{path} is empty; use the file as it was published.")
    if len(set(names)) < len(names):
        raise UserError(f"{path} names an image twice; use the file as it was published.")
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise UserError(
            f"{path} names images that {table} does not ({len(unknown)}), the first is "
            f"{shown(unknown[0])}; use the files as they were published."
        )
    return names


def _check_lists(
    training_names: Sequence[str], test_names: Sequence[str], training_list: Path, test_list: Path
) -> None:
    """Check that no image is in both lists."""
    both = sorted(set(training_names) & set(test_names))
    if both:
        raise UserError(
            f"{training_list} and {test_list} have images in common ({len(both)}), the first is "
            f"{both[0]}; use the files as they were published."
        )


def _read_findings(table: Path, row: Row) -> set[str]:
    """Return the findings on an image, none for ``No Finding``."""
    findings = set(row["Finding Labels"].split("|"))
    if not findings <= _KNOWN or (NO_FINDING in findings and len(findings) > 1):
        raise UserError(
            f"{table}: Finding Labels = {shown(row['Finding Labels'])} in {row.place}, expected "
            f"{NO_FINDING} or some of {', '.join(FINDINGS)}; use the file as it was published."
        )
    return findings - {NO_FINDING}
