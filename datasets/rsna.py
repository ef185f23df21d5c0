"""Pneumonia on chest X-rays, with the bounding boxes of the RSNA challenge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from benchmark.core.class_masks import LabelledShape, SparseClassMasks
from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.names import encode
from datasets._io.table import Row, Table, read_integer, read_table
from datasets._sources import boxes
from datasets._sources.compositing import Box
from datasets._sources.holdout import check_clusters, divide_by_cluster

LABELS = ("no pneumonia", "pneumonia")
FOLDERS = ("rsna-pneumonia-detection-challenge", "rsna")
TABLE = "stage_2_train_labels.csv"
IMAGES = "stage_2_train_images"
BOX_COLUMNS = ("x", "y", "width", "height")
#: The shares of the patients for validation and test.
SHARES = {"val": 0.1, "test": 0.1}


@DATASETS.register
class RSNAPneumonia(ImageSource):
    """Frontal chest X-rays with or without pneumonia (lung opacities), one per patient.

    Source: Shih et al. (2019), "Augmenting the National Institutes of Health chest radiograph
    dataset with expert annotations of possible pneumonia", Radiology: Artificial Intelligence 1(1);
    the RSNA Pneumonia Detection Challenge 2018 on Kaggle, stage 2. Licence: the terms of the
    challenge, for research and education.

    Layout, in ``rsna-pneumonia-detection-challenge/`` or ``rsna/``: ``stage_2_train_labels.csv``
    (patientId, x, y, width, height, Target; a row per box) and
    ``stage_2_train_images/<patientId>.dcm``, which needs pydicom. Images that were converted to
    ``<patientId>.png`` at their full size are used where there is no DICOM file.

    Counts: 26,684 patients, 6,012 with pneumonia, which have 9,555 boxes. The published test images
    have no labels. Train, val and test are therefore random parts of the labelled images, 80, 10
    and 10 % of the patients of each class, drawn in each trial.

    A mask is the union of all boxes of an image, and is empty without pneumonia. (The code of NEMt
    uses the first box only.)
    """

    name = "rsna"
    title = "RSNA pneumonia"
    description = "pneumonia on chest X-rays, with boxes of the opacities (RSNA challenge 2018)"
    masks_may_be_empty = True
    options: ClassVar[Mapping[str, HParam]] = {
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three equal channels, for pretrained backbones", choices=(1, 3)
        ),
        "equalise": HParam(False, doc="equalise the histogram of each X-ray"),
    }

    label: np.ndarray
    patient: np.ndarray
    _boxes: list[list[Box]]

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        channels = self.chosen["channels"]
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=(),
            environment_names=(),
            image_size=(channels, side, side),
            splits=("train", *SHARES),
            provides=Needs(masks=True, class_masks=True, val_masks=True),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            augmentation={"translate": 0.1, "rotate": 10.0},
            source="Shih et al. (2019), RSNA Pneumonia Detection Challenge 2018",
            licence="terms of the challenge, for research and education",
        )

    def metadata(self) -> list[Path]:
        return [self._table_path()]

    def read(self) -> dict[str, Pool]:
        table = read_table(self._table_path(), ("patientId", *BOX_COLUMNS, "Target"))
        boxes_of = _read_boxes(table)
        patients = list(boxes_of)
        self._boxes = list(boxes_of.values())
        self.label = np.array([int(bool(boxes_of[name])) for name in patients], np.int64)
        self.patient = encode(patients)
        check_clusters(table.path, self.label, LABELS, self.patient, "patients")
        folder = PurePosixPath(table.path.parent.relative_to(self.folder()).as_posix()) / IMAGES
        items = [
            Item(self.image_file(f"{folder}/{name}.dcm"), drawn=boxes.to_json(boxes_of[name]))
            for name in patients
        ]
        recipe = Recipe(self.chosen["side"], channels=1, equalise=self.chosen["equalise"])
        return {self.name: Pool(items, recipe)}

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return boxes.draw_boxes(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows_of_split = divide_by_cluster(seed, self.label, self.patient, SHARES)
        masks = self._evidence()
        return {
            name: self.split(
                self.name,
                rows,
                self.label[rows],
                cluster=self.patient[rows],
                channels=self.chosen["channels"],
                class_masks=masks,
            )
            for name, rows in rows_of_split.items()
        }

    def _evidence(self) -> SparseClassMasks:
        """Return the boxes of pneumonia. There is no evidence for its absence."""
        pneumonia = LABELS.index("pneumonia")
        sizes = self.arrays(self.name).size.tolist()
        shapes = [
            [LabelledShape(pneumonia, boxes.relative_box(box, size)) for box in boxes_of_image]
            for boxes_of_image, size in zip(self._boxes, sizes, strict=True)
        ]
        return self.class_masks(self.name, shapes, len(LABELS))

    def _table_path(self) -> Path:
        candidates = [f"{folder}/{TABLE}" for folder in FOLDERS]
        how = "unpack rsna-pneumonia-detection-challenge.zip of Kaggle there"
        return self.folder() / self.find(*candidates, how=how)


def _read_boxes(table: Table) -> dict[str, list[Box]]:
    """Return the boxes of each patient, none without pneumonia.

    Raises:
        UserError: If a patient has contradictory or repeated rows, or a row with pneumonia has no
            box, or one without pneumonia has a box.
    """
    boxes_of: dict[str, list[Box]] = {}
    first_row: dict[str, Row] = {}
    for row in table:
        patient = row["patientId"]
        first = first_row.setdefault(patient, row)
        target = read_integer(table.path, row, "Target", (0, 1))
        found = boxes_of.setdefault(patient, [])
        if first is not row and (target == 0 or not found):
            raise UserError(
                f"{table.path} names the patient {patient} in {first.place} and {row.place}, "
                "expected a single row of each patient without pneumonia; use the file as it was "
                "published."
            )
        has_cells = any(row[column].strip() for column in BOX_COLUMNS)
        if has_cells != bool(target):
            raise UserError(
                f"{table.path} has {'a' if has_cells else 'no'} box in {row.place}, where Target "
                f"is {target}, expected a box exactly for Target 1; use the file as it was "
                "published."
            )
        if target:
            found.append(boxes.read_box(table.path, row, BOX_COLUMNS, size=True))
    return boxes_of
