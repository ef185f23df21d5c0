"""COVID-19, pneumonia or normal chest X-rays: each class from one hospital, tested elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.names import encode
from datasets._sources.bias_assignment import random_stream
from datasets._sources.xrays import COLLECTIONS, Xray

LABELS = ("normal", "pneumonia", "covid")
TRAINING = ("brixia", "chexpert")
TESTS = ("bimcv", "chestxray14", "montgomery", "shenzhen")
#: The share of the training patients that is used for validation.
HOLDOUT = 0.25
MASKS = "covid_xray/masks"


class _Annotation(NamedTuple):
    """The annotation of one image.

    Attributes:
        label: Its index in LABELS.
        collection: Its index in COLLECTIONS.
        patient: The name of the patient.
    """

    label: int
    collection: int
    patient: str


@DATASETS.register
class CovidXray(ImageSource):
    """COVID-19 from Italy, pneumonia and normal from the USA; the tests from four other sources.

    Source: Bassi, Dertkigil and Cavalli (2024), "Improving deep neural network generalization and
    robustness to background bias via layer-wise relevance propagation optimization" (ISNet), as the
    TEA paper describes it (D.3). Licences: those of the six collections, all for research.

    Layout, each collection as it is published, in the data folder:
        Brixia: ``brixia/metadata_global_v2.csv`` (;), ``brixia/dicom_clean/*.dcm``. Score above 0.
            Needs pydicom.
        CheXpert: ``CheXpert-v1.0[-small]/train.csv`` and ``train/``. As many normal X-rays (one per
            patient) and as many with pneumonia as Brixia has, at random, the same in all trials.
            Uncertain labels are negative. AP and PA.
        BIMCV-COVID19+ iterations 1 and 2: ``covid19_posi/participants.tsv``,
            ``derivatives/labels``, ``derivatives/EHR``, ``sub-*/ses-*/mod-rx/*.png``. A positive
            test and a report with the label COVID 19.
        ChestX-ray14: ``ChestX-ray14/Data_Entry_2017[_v2020].csv``, ``images/`` or
            ``images_0*/images/``. Pneumonia.
        Montgomery and Shenzhen: ``MontgomerySet/``, ``ChinaSet_AllFiles/`` with ``CXR_png/``,
            ``ClinicalReadings/``.
        Lung masks, optional: ``covid_xray/masks/<path of the image>.png`` for every image, white
            for the lung. (The authors' masks are predictions of a U-Net, thresholded at 0.4.)

    Counts: 4,644 of each class for training and validation, divided 75 to 25 by patient (10,449 and
    3,483). Test: 1,515 COVID-19 (BIMCV), 1,295 pneumonia (ChestX-ray14), 80 and 326 normal
    (Montgomery, Shenzhen), 3,216 in total. Patients below 18 are left out. Grey values are
    equalised, then images are resized (F.2). Test images are padded to a square first, so that
    their shape reveals nothing. Training images are not, so that black borders do not become a
    bias.
    """

    name = "covid_xray"
    title = "COVID-19 X-rays"
    description = (
        "COVID-19, pneumonia or normal X-rays, one hospital per class, tested elsewhere "
        "(ISNet, TEA D.3)"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three equal channels, for pretrained backbones", choices=(1, 3)
        ),
    }

    _annotations: dict[str, list[_Annotation]]

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        channels = self.chosen["channels"]
        masks = self.data_dir is None or self._has_masks()
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=tuple(COLLECTIONS),
            environment_names=(),
            image_size=(channels, side, side),
            splits=("train", "val", "test"),
            provides=Needs(
                masks=masks, confounder=True, groups=True, val_groups=True, val_masks=masks
            ),
            mean=(0.0,) * channels,  # TEA, F.2: pixels in [0, 1] without further normalisation
            std=(1.0,) * channels,
            augmentation={"flip": 0.5, "translate": 0.125, "rotate": 40.0},  # 28 of 224 pixels
            source="Brixia, CheXpert, BIMCV-COVID19+, ChestX-ray14, Montgomery and Shenzhen, "
            "as Bassi et al. mix them",
            licence="those of the six collections, for research",
        )

    def read(self) -> dict[str, Pool]:
        xrays = {name: read_collection(self) for name, read_collection in COLLECTIONS.items()}
        for name, selected in xrays.items():
            if not selected:
                raise UserError(
                    f"{self.name}: no X-ray of {name} is left after the selection; unpack the "
                    "complete collection again."
                )
        xrays["chexpert"] = _sample(xrays["chexpert"], len(xrays["brixia"]))
        numbers = {name: number for number, name in enumerate(COLLECTIONS)}
        pools = {}
        self._annotations = {}
        for part, collections in (("train", TRAINING), ("test", TESTS)):
            items = []
            annotations = []
            for name in collections:
                for xray in xrays[name]:
                    items.append(Item(xray.file, self._mask(xray)))
                    label = LABELS.index(xray.finding)
                    annotations.append(_Annotation(label, numbers[name], xray.patient))
            fit = "pad" if part == "test" else "stretch"
            recipe = Recipe(self.chosen["side"], channels=1, fit=fit, equalise=True)
            pools[part] = Pool(items, recipe)
            self._annotations[part] = annotations
        return pools

    def content(self) -> str:
        self.pools()
        annotations = json.dumps(self._annotations)
        return super().content() + hashlib.sha256(annotations.encode()).hexdigest()[:16]

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        label, collection, patient = _to_arrays(self._annotations["train"])
        patients, first = np.unique(patient, return_index=True)
        held_out = []
        for finding in range(len(LABELS)):
            # A patient with several findings counts for the first one.
            with_finding = patients[label[first] == finding]
            shuffled = random_stream(seed, "divide", finding).permutation(with_finding)
            held_out.append(shuffled[: max(1, round(HOLDOUT * len(shuffled)))])
        in_val = np.isin(patient, np.concatenate(held_out))
        splits = {}
        for name, rows in (("train", np.flatnonzero(~in_val)), ("val", np.flatnonzero(in_val))):
            splits[name] = self.split(
                "train",
                rows,
                label[rows],
                collection[rows],
                cluster=patient[rows],
                channels=self.chosen["channels"],
            )
        test_label, test_collection, test_patient = _to_arrays(self._annotations["test"])
        splits["test"] = self.split(
            "test",
            np.arange(len(test_label)),
            test_label,
            test_collection,
            cluster=test_patient + patient.max() + 1,  # patients of other hospitals
            channels=self.chosen["channels"],
        )
        return splits

    def _has_masks(self) -> bool:
        return self.data_dir is not None and (Path(self.data_dir) / MASKS).is_dir()

    def _mask(self, xray: Xray) -> str:
        if not self._has_masks():
            return ""
        return f"{MASKS}/{PurePosixPath(xray.file).with_suffix('.png')}"


def _sample(xrays: list[Xray], count: int) -> list[Xray]:
    """Draw normal X-rays of different patients and X-rays with pneumonia.

    Args:
        xrays: The X-rays of CheXpert.
        count: The number of each kind; fewer if there are fewer.
    """
    sample: list[Xray] = []
    for finding in ("normal", "pneumonia"):
        order = random_stream(0, "chexpert", finding).permutation(len(xrays))
        shuffled = [xrays[i] for i in order if xrays[i].finding == finding]
        if finding == "normal":
            shuffled = list({xray.patient: xray for xray in reversed(shuffled)}.values())
        sample += sorted(shuffled[:count])
    return sample


def _to_arrays(rows: Sequence[_Annotation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, collections and patients, int64[N] each."""
    label = np.array([row.label for row in rows], np.int64)
    collection = np.array([row.collection for row in rows], np.int64)
    return label, collection, encode([row.patient for row in rows])
