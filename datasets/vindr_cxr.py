"""Local findings on the chest X-rays of VinDr-CXR, with the boxes of the radiologists."""

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
from datasets._io.table import Row, Table, read_table
from datasets._sources import boxes
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
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
)
NO_FINDING = "No finding"
FOLDERS = ("vindr-cxr/1.0.0", "vindr-cxr-1.0.0", "vindr-cxr", "VinDr-CXR")
PARTS = ("train", "test")
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
#: Names in lower case, since the capital letters of class names differ between releases.
_FINDING_OF_KEY = {name.lower(): name for name in (*FINDINGS, NO_FINDING)}


class _Annotation(NamedTuple):
    """A finding that a radiologist marked.

    Attributes:
        finding: Its name.
        box: Its bounding box in pixels of the image.
    """

    finding: str
    box: Box


@DATASETS.register
class VinDrCXR(ImageSource):
    """Frontal chest X-rays with several of 22 findings, marked by radiologists with boxes.

    Source: Nguyen et al. (2022), "VinDr-CXR: An open dataset of chest X-rays with radiologist's
    annotations", Scientific Data 9; PhysioNet, version 1.0.0. Licence: PhysioNet Credentialed
    Health Data License 1.5.0.

    Layout, in ``vindr-cxr/1.0.0/`` (or ``vindr-cxr-1.0.0/``, ``vindr-cxr/``, ``VinDr-CXR/``):
    ``annotations_train.csv`` and ``annotations_test.csv``, also in ``annotations/`` (image_id,
    class_name, x_min, y_min, x_max, y_max), and ``train/`` and ``test/`` with
    ``<image_id>.dicom``, which need pydicom. Images that were converted to ``<image_id>.png`` at
    their full size are used where there is no DICOM file.

    Counts: 15,000 images for training, each annotated by three radiologists, and 3,000 for the
    test, annotated by the consensus of five. ``train`` and ``val`` are 90 and 10 % of the former,
    drawn in each trial. The tables name no patients.

    A label is 1 if at least one radiologist marked the finding. A mask is the union of all boxes of
    the selected findings, and is empty without one. The boxes of a finding are its evidence.
    Windows of DICOM files are not applied.
    """

    name = "vindr_cxr"
    title = "VinDr-CXR"
    description = "22 findings on chest X-rays, several labels each, with radiologists' boxes"
    masks_may_be_empty = True
    options: ClassVar[Mapping[str, HParam]] = xray_options()

    #: int64[N,K] of each part.
    _label: dict[str, np.ndarray]
    #: The findings on each image of a part.
    _annotations: dict[str, list[list[_Annotation]]]

    def info(self) -> DatasetInfo:
        return xray_info(
            self.chosen,
            self._labels(),
            ("train", *HOLDOUT, "test"),
            masks=True,
            class_masks=True,
            source="Nguyen et al. (2022), VinDr-CXR, PhysioNet",
            licence="PhysioNet Credentialed Health Data License 1.5.0",
        )

    def metadata(self) -> list[Path]:
        return [self._table_path(part) for part in PARTS]

    def read(self) -> dict[str, Pool]:
        train_path, test_path = self.metadata()
        columns = ("image_id", "class_name", *BOX_COLUMNS)
        annotations = {
            "train": _read_annotations(read_table(train_path, columns)),
            "test": _read_annotations(read_table(test_path, columns)),
        }
        both = sorted(annotations["train"].keys() & annotations["test"].keys())
        if both:
            raise UserError(
                f"{train_path} and {test_path} have images in common ({len(both)}), the first is "
                f"{both[0]}; use the files as they were published."
            )
        self._annotations = {part: list(found.values()) for part, found in annotations.items()}
        self._label = {
            part: self._label_matrix(list(found.values())) for part, found in annotations.items()
        }
        check_both_values(train_path, self._label["train"], self._labels())
        return {part: self._pool(part, found) for part, found in annotations.items()}

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return boxes.draw_boxes(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        stratum = np.asarray(self._label["train"].any(axis=1), np.int64)
        rows_of_split = divide_by_cluster(seed, stratum, np.arange(len(stratum)), HOLDOUT)
        rows_of_split["test"] = np.arange(len(self._label["test"]))
        masks = {part: self._evidence(part) for part in PARTS}
        splits = {}
        for name, rows in rows_of_split.items():
            part = "test" if name == "test" else "train"
            splits[name] = self.split(
                part,
                rows,
                self._label[part][rows],
                channels=self.chosen["channels"],
                class_masks=masks[part],
            )
        return splits

    def _labels(self) -> tuple[str, ...]:
        return select_findings(self.chosen["labels"], FINDINGS, self.name)

    def _label_matrix(self, annotations: Sequence[Sequence[_Annotation]]) -> np.ndarray:
        """Return whether each image has each of the selected findings, int64[N,K]."""
        labels = []
        for annotations_of_image in annotations:
            found = {annotation.finding for annotation in annotations_of_image}
            labels.append([int(name in found) for name in self._labels()])
        return np.array(labels, np.int64)

    def _evidence(self, part: str) -> SparseClassMasks:
        """Return the boxes of each selected finding."""
        number = {name: k for k, name in enumerate(self._labels())}
        sizes = self.arrays(part).size.tolist()
        shapes = [
            [
                LabelledShape(number[found.finding], boxes.relative_box(found.box, size))
                for found in annotations
                if found.finding in number
            ]
            for annotations, size in zip(self._annotations[part], sizes, strict=True)
        ]
        return self.class_masks(part, shapes, len(number))

    def _pool(self, part: str, annotations: Mapping[str, Sequence[_Annotation]]) -> Pool:
        """Return the images of a part with the boxes of the selected findings."""
        folder = f"{self._root()}/{part}"
        selected = self._labels()
        items = []
        for name, annotations_of_image in annotations.items():
            marked = [found.box for found in annotations_of_image if found.finding in selected]
            file = self.image_file(f"{folder}/{name}.dicom")
            items.append(Item(file, drawn=boxes.to_json(marked)))
        return Pool(items, xray_recipe(self.chosen))

    def _root(self) -> str:
        """Return the folder of the release, below the data folder."""
        path = self._table_path("train").parent
        root = path.parent if path.name == "annotations" else path
        return root.relative_to(self.folder()).as_posix()

    def _table_path(self, part: str) -> Path:
        name = f"annotations_{part}.csv"
        candidates = [
            f"{folder}/{path}" for folder in FOLDERS for path in (f"annotations/{name}", name)
        ]
        how = "download version 1.0.0 of VinDr-CXR from PhysioNet, which needs an account"
        return self.folder() / self.find(*candidates, how=how)


def _read_annotations(table: Table) -> dict[str, list[_Annotation]]:
    """Return what radiologists marked on each image; nothing for ``No finding``."""
    annotations: dict[str, list[_Annotation]] = {}
    for row in table:
        finding = _read_finding(table.path, row)
        found = annotations.setdefault(row["image_id"], [])
        if finding == NO_FINDING:
            if any(row[column].strip() for column in BOX_COLUMNS):
                raise UserError(
                    f"{table.path} has a box in {row.place}, where class_name is {NO_FINDING}; use "
                    "the file as it was published."
                )
        else:
            box = boxes.read_box(table.path, row, BOX_COLUMNS, size=False)
            found.append(_Annotation(finding, box))
    return annotations


def _read_finding(path: Path, row: Row) -> str:
    """Return the finding of a row."""
    finding = _FINDING_OF_KEY.get(row["class_name"].strip().lower())
    if finding is None:
        raise UserError(
            f"{path}: class_name = {shown(row['class_name'])} in {row.place}, expected "
            f"{NO_FINDING} or one of {', '.join(FINDINGS)}; use the file as it was published."
        )
    if not row["image_id"]:
        raise UserError(f"{path} has no image_id in {row.place}; use the file as it was published.")
    return finding
