"""Findings on frontal chest X-rays of CheXpert, with the segmentations of CheXlocalize."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from benchmark.core.class_masks import LabelledShape, SparseClassMasks
from benchmark.core.dataset import UNKNOWN, DatasetInfo, Split
from benchmark.core.errors import UserError, shown
from benchmark.core.files import read_json
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource
from datasets._io.names import encode
from datasets._io.table import Row, read_table
from datasets._sources.coco import draw_segmentation, read_run_lengths
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
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
#: The five findings of the CheXpert competition.
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
#: CheXlocalize's name of a finding where it differs.
SEGMENTED_AS = {"Lung Opacity": "Airspace Opacity"}
FOLDERS = (
    "CheXpert-v1.0",
    "CheXpert-v1.0-small",
    "chexpert/CheXpert-v1.0",
    "chexpert/CheXpert-v1.0-small",
)
#: Folders of CheXlocalize's release, and those of the official test images in it.
LOCALIZE_FOLDERS = ("CheXlocalize", "CheXlocalize/CheXlocalize")
TEST_FOLDERS = ("CheXlocalize/CheXpert", "CheXpert", *FOLDERS)
TEST_TABLE = "test_labels.csv"
#: The labels of uncertain findings, by the option ``uncertain``.
UNCERTAIN_LABELS = {"zero": 0, "one": 1, "ignore": UNKNOWN}
_LABEL_OF_CELL = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
_UNCERTAIN_CELLS = ("-1", "-1.0")
VIEWS = ("Frontal", "Lateral")
#: The largest relative difference between the aspect ratios of an image and its segmentation. The
#: sides of the small images are rounded.
MAX_ASPECT_DIFFERENCE = 0.02
_PATH = re.compile(r"(?:.*/)?((?:train|valid|test)/(patient\d+)/(study\d+)/(\w+)\.jpg)")


class _Xrays(NamedTuple):
    """The frontal X-rays of a table.

    Attributes:
        files: The images, below the data folder.
        keys: CheXlocalize's name of each image, such as patient64541_study1_view1_frontal.
        label: int64[N,K] of 0 and 1, or UNKNOWN in training.
        patient: int64[N].
    """

    files: list[str]
    keys: list[str]
    label: np.ndarray
    patient: np.ndarray


@DATASETS.register
class CheXpert(ImageSource):
    """Frontal chest X-rays with several findings, labelled from reports.

    Source: Irvin et al. (2019), "CheXpert: A large chest radiograph dataset with uncertainty labels
    and expert comparison", AAAI; segmentations: Saporta et al. (2022), "Benchmarking saliency
    methods for chest X-ray interpretation", Nature Machine Intelligence 4. Licence: Stanford
    University Dataset Research Use Agreement.

    Layout: ``CheXpert-v1.0/`` or ``CheXpert-v1.0-small/``, also in ``chexpert/``, with
    ``train.csv`` and ``valid.csv`` (Path, Frontal/Lateral, 14 findings), ``train/`` and ``valid/``.
    Paths in the tables may begin with the name of either release. Optional:
    ``CheXlocalize/gt_segmentations_val.json``. With ``test=test`` also CheXlocalize's
    ``CheXpert/test_labels.csv`` (Path, 14 findings), ``CheXpert/test/`` and
    ``gt_segmentations_test.json``.

    Counts: 223,414 X-rays in ``train.csv``, of which 191,027 are frontal, and 234 in ``valid.csv``,
    of which 202 are frontal. ``train`` and ``val`` are 90 and 10 % of the patients of
    ``train.csv``, drawn in each trial. ``test`` is ``valid.csv``, which radiologists labelled.
    With ``test=test`` it is the official test of 500 studies, and the images of ``valid.csv`` are
    part of ``train``, so that their segmentations can guide (Sun et al. 2025).

    A finding is 1, 0, -1 for uncertain, or blank if the report does not mention it. The options
    ``uncertain`` and ``blank`` give the label of such findings. Labels that are ignored are no part
    of losses and validation. Only ``test`` has masks: the union of the segmentations of all
    selected findings, which is empty without a finding. The segmentations of each finding are its
    evidence.
    """

    name = "chexpert"
    title = "CheXpert"
    description = (
        "findings on frontal chest X-rays, several labels each (segmentations of the test)"
    )
    masks_may_be_empty = True
    option_titles: ClassVar[Mapping[str, str]] = {"test": "{value} split"}
    options: ClassVar[Mapping[str, HParam]] = {
        **xray_options(COMPETITION),
        "uncertain": HParam(
            "zero",
            doc="the label of uncertain findings (-1); ignore: it is not known",
            choices=tuple(UNCERTAIN_LABELS),
        ),
        "blank": HParam(
            "zero",
            doc="the label of findings that a report does not mention; ignore: it is not known",
            choices=("zero", "ignore"),
        ),
        "test": HParam(
            "valid",
            doc="the images of the test: valid.csv; or the official test, and valid.csv in train",
            choices=("valid", "test"),
        ),
    }
    later_options: ClassVar[frozenset[str]] = frozenset({"blank", "test"})

    _train: _Xrays
    _test: _Xrays
    #: Further training images, whose segmentations are known.
    _guiding: _Xrays | None
    #: The contents of CheXlocalize's files for ``_test`` and for ``_guiding``, or None.
    _published: dict[str, Any] | None
    _guiding_published: dict[str, Any] | None

    def info(self) -> DatasetInfo:
        return xray_info(
            self.chosen,
            self._labels(),
            ("train", *HOLDOUT, "test"),
            masks=False,
            class_masks=self._official_test,
            source="Irvin et al. (2019), CheXpert; Saporta et al. (2022), CheXlocalize",
            licence="Stanford University Dataset Research Use Agreement",
        )

    def metadata(self) -> list[Path]:
        tables = [self._table_path("train.csv"), self._table_path("valid.csv")]
        if self._official_test:
            candidates = [f"{folder}/{TEST_TABLE}" for folder in TEST_FOLDERS]
            how = "unpack CheXlocalize there, or use test=valid"
            tables.append(self.folder() / self.find(*candidates, how=how))
        return tables

    def read(self) -> dict[str, Pool]:
        train_table, valid_table, *official = self.metadata()
        test_table = official[0] if official else valid_table
        self._train = self._read_table(train_table)
        self._test = self._read_table(test_table)
        self._guiding = self._read_table(valid_table) if official else None
        if (self._test.label == UNKNOWN).any():
            raise UserError(
                f"{test_table} has findings that are uncertain or blank, and a test needs all "
                "labels; use the file as it was published, or uncertain=zero and blank=zero."
            )
        check_both_values(train_table, self._train.label, self._labels())
        recipe = xray_recipe(self.chosen)
        self._published = self._read_segmentations("test" if official else "val", self._test)
        drawn = self._segmentations(self._test, self._published)
        train_items = [Item(file) for file in self._train.files]
        self._guiding_published = None
        if self._guiding is not None:
            self._guiding_published = self._read_segmentations("val", self._guiding)
            # The segmentations of these items are part of the fingerprint, and no masks.
            texts = self._segmentations(self._guiding, self._guiding_published)
            pairs = zip(self._guiding.files, texts, strict=True)
            train_items += [Item(file, drawn=text) for file, text in pairs]
        if official and None in (self._published, self._guiding_published):
            raise UserError(
                f"{self.name}: test=test needs CheXlocalize's gt_segmentations_val.json and "
                "gt_segmentations_test.json; unpack them in CheXlocalize/, or use test=valid."
            )
        return {
            "train": Pool(train_items, recipe),
            "test": Pool(
                [
                    Item(file, drawn=segmentation)
                    for file, segmentation in zip(self._test.files, drawn, strict=True)
                ],
                recipe,
            ),
        }

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return _draw_union(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        train = self._train
        stratum = np.asarray((train.label == 1).any(axis=1), np.int64)
        rows_of_split = divide_by_cluster(seed, stratum, train.patient, HOLDOUT)
        label, patient = train.label, train.patient
        masks = None
        if self._guiding is not None:
            more = len(train.files) + np.arange(len(self._guiding.files))
            rows_of_split["train"] = np.concatenate([rows_of_split["train"], more])
            label = np.concatenate([label, self._guiding.label])
            patient = np.concatenate([patient, self._guiding.patient + patient.max() + 1])
            shapes = self._shapes(self._guiding, self._guiding_published)
            none: list[list[LabelledShape]] = [[]] * len(train.files)
            masks = self.class_masks("train", [*none, *shapes], label.shape[1])
        channels = self.chosen["channels"]
        splits = {
            name: self.split(
                "train",
                rows,
                label[rows],
                cluster=patient[rows],
                channels=channels,
                class_masks=masks,
            )
            for name, rows in rows_of_split.items()
        }
        test = self._test
        splits["test"] = self.split(
            "test",
            np.arange(len(test.files)),
            test.label,
            cluster=test.patient + patient.max() + 1,
            channels=channels,
            class_masks=self._evidence(),
        )
        return splits

    def _evidence(self) -> SparseClassMasks | None:
        """Return the segmentations of each selected finding on the test images."""
        if self._published is None:
            return None
        self.arrays("test")  # checks the segmentations
        shapes = self._shapes(self._test, self._published)
        return self.class_masks("test", shapes, len(self._labels()))

    def _shapes(
        self, xrays: _Xrays, published: Mapping[str, Any] | None
    ) -> list[list[LabelledShape]]:
        """Return the segmentations of the selected findings on each image."""
        names = {SEGMENTED_AS.get(name, name): k for k, name in enumerate(self._labels())}
        return [
            [
                LabelledShape(names[name], read_run_lengths(segmentation, file))
                for name, segmentation in (published or {}).get(key, {}).items()
                if name in names
            ]
            for key, file in zip(xrays.keys, xrays.files, strict=True)
        ]

    @property
    def _official_test(self) -> bool:
        """Whether the test is the official one instead of ``valid.csv``."""
        return bool(self.chosen["test"] == "test")

    @property
    def _blank(self) -> int:
        """The label of findings that a report does not mention."""
        return UNKNOWN if self.chosen["blank"] == "ignore" else 0

    def _labels(self) -> tuple[str, ...]:
        return select_findings(self.chosen["labels"], FINDINGS, self.name)

    def _read_table(self, path: Path) -> _Xrays:
        """Read the frontal X-rays of a table."""
        labels = self._labels()
        has_views = path.name != TEST_TABLE
        rows = read_table(path, ("Path", *(["Frontal/Lateral"] if has_views else []), *labels))
        folder = path.parent.relative_to(self.folder()).as_posix()
        first_row: dict[str, Row] = {}
        files = []
        keys = []
        patients = []
        values = []
        for row in rows:
            if has_views and row["Frontal/Lateral"] not in VIEWS:
                raise UserError(
                    f"{path}: Frontal/Lateral = {shown(row['Frontal/Lateral'])} in {row.place}, "
                    "expected Frontal or Lateral; use the file as it was published."
                )
            match = _PATH.fullmatch(row["Path"])
            if match is None:
                raise UserError(
                    f"{path}: Path = {shown(row['Path'])} in {row.place}, expected "
                    "…/train/patient…/study…/view….jpg; use the file as it was published."
                )
            first = first_row.setdefault(match[1], row)
            if first is not row:
                raise UserError(
                    f"{path} names {match[1]} in {first.place} and in {row.place}, expected each "
                    "image once; use the file as it was published."
                )
            is_frontal = (
                row["Frontal/Lateral"] == "Frontal" if has_views else match[4].endswith("_frontal")
            )
            if is_frontal:
                files.append(f"{folder}/{match[1]}")
                keys.append("_".join(match.groups()[1:]))
                patients.append(match[2])
                values.append([self._read_finding(path, row, name) for name in labels])
        if not files:
            raise UserError(f"{path} has no frontal X-ray; use the file as it was published.")
        return _Xrays(files, keys, np.array(values, np.int64), encode(patients))

    def _read_finding(self, path: Path, row: Row, name: str) -> int:
        """Return the label of a finding."""
        text = row[name]
        value = _LABEL_OF_CELL.get(text)
        if value is not None:
            return self._blank if not text else value
        if text not in _UNCERTAIN_CELLS:
            raise UserError(
                f"{path}: {name} = {shown(row[name])} in {row.place}, expected 1, 0, -1 or "
                "nothing; use the file as it was published."
            )
        return UNCERTAIN_LABELS[self.chosen["uncertain"]]

    def _read_segmentations(self, part: str, xrays: _Xrays) -> dict[str, Any] | None:
        """Return CheXlocalize's segmentations of a part, by image and finding; None without them.

        Args:
            part: ``val`` or ``test``.
            xrays: The images of that part.
        """
        candidates = (
            self.folder() / folder / f"gt_segmentations_{part}.json" for folder in LOCALIZE_FOLDERS
        )
        path = next((path for path in candidates if path.exists()), None)
        if path is None:
            return None
        try:
            published = read_json(path)
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is not JSON ({error}); unpack CheXlocalize again.") from None
        if not isinstance(published, dict) or not published.keys() & set(xrays.keys):
            kind = "validation" if part == "val" else "test"
            raise UserError(
                f"{path} has no segmentation of an image in the table; use CheXlocalize's file for "
                f"the {kind} images."
            )
        for key in xrays.keys:
            if not isinstance(published.get(key, {}), dict):
                raise UserError(
                    f"{path}: {key} has no segmentations by finding; unpack CheXlocalize again."
                )
        return published

    def _segmentations(self, xrays: _Xrays, published: Mapping[str, Any] | None) -> list[str]:
        """Return the segmentations of each image as JSON, or empty texts without a file."""
        if published is None:
            return [""] * len(xrays.keys)
        findings = [SEGMENTED_AS.get(name, name) for name in self._labels()]
        drawn = []
        for key in xrays.keys:
            segmented = published.get(key, {})
            drawn.append(json.dumps([segmented[name] for name in findings if name in segmented]))
        return drawn

    def _table_path(self, name: str) -> Path:
        candidates = [f"{folder}/{name}" for folder in FOLDERS]
        return self.folder() / self.find(*candidates, how="unpack CheXpert's archive there")


def _draw_union(drawn: str, size: tuple[int, int], where: str) -> Any:
    """Draw the union of segmentations, which may refer to a larger copy of the image.

    Args:
        drawn: JSON of a list of COCO's run lengths.
        size: Width and height of the image.
        where: The image, for messages.

    Raises:
        UserError: If a segmentation is invalid or has a different aspect ratio.
    """
    from PIL import Image, ImageChops

    union = Image.new("L", size)
    for segmentation in json.loads(drawn):
        try:
            height, width = (int(number) for number in segmentation["size"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"the segmentation of {where} has no size; unpack CheXlocalize again."
            ) from None
        aspect = width * size[1] / max(1, height * size[0])
        if abs(aspect - 1) > MAX_ASPECT_DIFFERENCE:
            raise UserError(
                f"the segmentation of {where} has {width}×{height} pixels, which is another aspect "
                f"ratio than that of the image with {size[0]}×{size[1]}; unpack CheXpert and "
                "CheXlocalize again."
            )
        mask = draw_segmentation(json.dumps(segmentation), (width, height), where)
        union = ImageChops.lighter(union, mask.resize(size, Image.Resampling.BILINEAR))
    return union
