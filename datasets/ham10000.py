"""Seven kinds of pigmented skin lesions, with segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.names import encode
from datasets._io.table import Row, Table, read_table
from datasets._sources.holdout import check_clusters, divide_by_cluster

#: The diagnoses: the names in the table and those in reports.
DIAGNOSES = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
FOLDERS = ("HAM10000", "ham10000", "dataverse_files")
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
IMAGES = ("HAM10000_images_part_1", "HAM10000_images_part_2", "images")
SEGMENTATIONS = ("HAM10000_segmentations_lesion_tschandl", "segmentations")
#: The shares of the lesions for validation and test.
SHARES = {"val": 0.1, "test": 0.1}


@DATASETS.register
class HAM10000(ImageSource):
    """Dermatoscopic images of seven kinds of lesions, some lesions in several images.

    Source: Tschandl, Rosendahl and Kittler (2018), "The HAM10000 dataset, a large collection of
    multi-source dermatoscopic images of common pigmented skin lesions", Scientific Data 5;
    segmentations: Tschandl et al. (2020), "Human-computer collaboration for skin cancer
    recognition", Nature Medicine 26. Licence: CC BY-NC 4.0.

    Layout, in ``HAM10000/`` (or ``dataverse_files/``): ``HAM10000_metadata.csv`` (lesion_id,
    image_id, dx), ``HAM10000_images_part_1/`` and ``HAM10000_images_part_2/`` (or ``images/``) with
    ``<image_id>.jpg``, and optionally ``HAM10000_segmentations_lesion_tschandl/`` (or
    ``segmentations/``) with ``<image_id>_segmentation.png``, white for the lesion.

    Counts: 10,015 images of 7,470 lesions: 327 akiec, 514 bcc, 1,099 bkl, 115 df, 1,113 mel, 6,705
    nv and 142 vasc. Train, val and test have 80, 10 and 10 % of the lesions of each class, drawn in
    each trial. All images of a lesion are in the same split. (The code of NEMt divides by image.)
    """

    name = "ham10000"
    title = "HAM10000"
    description = "seven kinds of skin lesions, divided by lesion, with segmentations"
    options: ClassVar[Mapping[str, HParam]] = {"side": side_option(224)}

    label: np.ndarray
    lesion: np.ndarray

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        masks = self.data_dir is None or self._segmentation_folder() != ""
        return DatasetInfo(
            label_names=tuple(DIAGNOSES.values()),
            confounder_names=(),
            environment_names=(),
            image_size=(3, side, side),
            splits=("train", *SHARES),
            provides=Needs(masks=masks, val_masks=masks),
            mean=(0.763, 0.546, 0.57),
            std=(0.141, 0.153, 0.17),
            augmentation={"flip": 0.5, "translate": 0.1, "rotate": 90.0},
            source="Tschandl, Rosendahl and Kittler (2018), The HAM10000 dataset",
            licence="CC BY-NC 4.0",
        )

    def metadata(self) -> list[Path]:
        return [self._table_path()]

    def read(self) -> dict[str, Pool]:
        table = read_table(self._table_path(), ("lesion_id", "image_id", "dx"))
        _check_table(table)
        classes = {name: number for number, name in enumerate(DIAGNOSES)}
        self.label = np.array([classes[row["dx"]] for row in table], np.int64)
        self.lesion = encode([row["lesion_id"] for row in table])
        names = tuple(DIAGNOSES.values())
        check_clusters(table.path, self.label, names, self.lesion, "lesions")
        root = table.path.parent.relative_to(self.folder()).as_posix()
        segmentations = self._segmentation_folder()
        items = []
        for row in table:
            name = row["image_id"]
            mask = f"{segmentations}/{name}_segmentation.png" if segmentations else ""
            items.append(Item(self._image(root, name), mask))
        return {self.name: Pool(items, Recipe(self.chosen["side"]))}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows_of_split = divide_by_cluster(seed, self.label, self.lesion, SHARES)
        return {
            name: self.split(self.name, rows, self.label[rows], cluster=self.lesion[rows])
            for name, rows in rows_of_split.items()
        }

    def _image(self, root: str, name: str) -> str:
        """Return the file of an image, in the first folder if it is missing."""
        files = [f"{root}/{folder}/{name}.jpg" for folder in IMAGES]
        return next((file for file in files if self.files.stat(file) is not None), files[0])

    def _segmentation_folder(self) -> str:
        """Return the folder of the segmentations, below the data folder; empty without one."""
        for folder in FOLDERS:
            for name in SEGMENTATIONS:
                if (self.folder() / folder / name).is_dir():
                    return f"{folder}/{name}"
        return ""

    def _table_path(self) -> Path:
        candidates = [f"{folder}/{name}" for folder in FOLDERS for name in TABLES]
        how = "unpack the archives of HAM10000 of the Harvard Dataverse (doi:10.7910/DVN/DBW86T)"
        return self.folder() / self.find(*candidates, how=f"{how} there")


def _check_table(table: Table) -> None:
    """Check that diagnoses are known, and that no image is repeated or lacks its lesion."""
    first_row: dict[str, Row] = {}
    for row in table:
        if row["dx"] not in DIAGNOSES:
            raise UserError(
                f"{table.path} has dx = {shown(row['dx'])} in {row.place}, expected one of "
                f"{', '.join(DIAGNOSES)}; use the file as it was published."
            )
        if not row["lesion_id"]:
            raise UserError(
                f"{table.path} has no lesion_id in {row.place}; use the file as it was published."
            )
        first = first_row.setdefault(row["image_id"], row)
        if first is not row:
            raise UserError(
                f"{table.path} names the image {row['image_id']} in {first.place} and in "
                f"{row.place}, expected each image once; use the file as it was published."
            )
