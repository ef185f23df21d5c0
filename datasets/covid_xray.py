"""COVID-19, pneumonia or neither on chest X-rays, each class from another hospital, tested in hospitals never seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

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
from datasets._sources.bias_assignment import stream
from datasets._sources.xrays import SOURCES, Shot

LABELS = ("normal", "pneumonia", "covid")
TRAINING, TESTS = ("brixia", "chexpert"), ("bimcv", "chestxray14", "montgomery", "shenzhen")
#: Share of the patients of training that are for validation.
HELD = 0.25
MASKS = "covid_xray/masks"


@DATASETS.register
class CovidXray(ImageSource):
    """The mixed-source set: COVID-19 from Italy, pneumonia and normal from the USA; tests from four other sources.

    Source: Bassi, Dertkigil and Cavalli (2024), "Improving deep neural network generalization and robustness to
    background bias via layer-wise relevance propagation optimization" (ISNet), as the TEA paper describes it (D.3).
    Licences: those of the six collections, all for research.

    Layout, each collection as it is published, in the data folder:
        Brixia: ``brixia/metadata_global_v2.csv`` (;), ``brixia/dicom_clean/*.dcm``. Score above 0. Needs pydicom.
        CheXpert: ``CheXpert-v1.0[-small]/train.csv`` and ``train/``. As many normal X-rays (one a patient) and as many
            with pneumonia as Brixia has, at random, the same in all trials; uncertain labels are negative; AP and PA.
        BIMCV-COVID19+ iterations 1 and 2: ``covid19_posi/participants.tsv``, ``derivatives/labels``,
            ``derivatives/EHR``, ``sub-*/ses-*/mod-rx/*.png``. A positive test, and a report that says COVID 19.
        ChestX-ray14: ``ChestX-ray14/Data_Entry_2017[_v2020].csv``, ``images/`` or ``images_0*/images/``. Pneumonia.
        Montgomery and Shenzhen: ``MontgomerySet/``, ``ChinaSet_AllFiles/`` with ``CXR_png/``, ``ClinicalReadings/``.
        Lung masks, if you have them: ``covid_xray/masks/<path of the image>.png`` for every image, white for lung. (The
        authors' are a U-Net's answers, cut at 0.4.)

    Counts: 4,644 of each class for training and validation, divided 75 to 25 by patient (10,449 and 3,483); test 1,515
    COVID-19 (BIMCV), 1,295 pneumonia (ChestX-ray14), 80 and 326 normal (Montgomery, Shenzhen): 3,216. Patients below
    18 are left out. Grey values are equalised, then resized (F.2); test images alone are padded to a square first, so
    that their shape tells nothing, and training images are not, so that black borders do not become a bias.
    """

    name = "covid_xray"
    title = "COVID-19, pneumonia or normal X-rays, one hospital per class, tested elsewhere (ISNet, TEA D.3)"
    options: ClassVar[Mapping[str, HParam]] = {
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three times the same, for pretrained backbones", choices=(1, 3)
        ),
    }

    def info(self) -> DatasetInfo:
        side, channels = self.chosen["side"], self.chosen["channels"]
        masks = self.data_dir is None or self._has_masks()
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=tuple(SOURCES),
            environment_names=(),
            image_size=(channels, side, side),
            splits=("train", "val", "test"),
            provides=Needs(
                masks=masks, confounder=True, groups=True, val_groups=True, val_masks=masks
            ),
            mean=(0.0,) * channels,  # TEA, F.2: pixels in [0, 1] and no other normalisation
            std=(1.0,) * channels,
            augmentation={"flip": 0.5, "translate": 0.125, "rotate": 40.0},  # 28 of 224 pixels
            source="Brixia, CheXpert, BIMCV-COVID19+, ChestX-ray14, Montgomery and Shenzhen, as Bassi et al. mix them",
            licence="those of the six collections, for research",
        )

    def read(self) -> dict[str, Pool]:
        found = {name: reader(self) for name, reader in SOURCES.items()}
        empty = [name for name, shots in found.items() if not shots]
        if empty:
            raise UserError(
                f"{self.name}: no X-ray of {empty[0]} is left after selection; unpack it again, whole."
            )
        found["chexpert"] = _sample(found["chexpert"], len(found["brixia"]))
        pools = {}
        self._known: dict[str, list[tuple[int, int, str]]] = {}
        for part, sources in (("train", TRAINING), ("test", TESTS)):
            shots = [(shot, name) for name in sources for shot in found[name]]
            items = [Item(shot.file, self._mask(shot)) for shot, _ in shots]
            fit = "pad" if part == "test" else "stretch"
            pools[part] = Pool(
                items, Recipe(self.chosen["side"], channels=1, fit=fit, equalise=True)
            )
            self._known[part] = [
                (LABELS.index(s.finding), list(SOURCES).index(n), s.patient) for s, n in shots
            ]
        return pools

    def content(self) -> str:
        self.pools()
        known = json.dumps(self._known)
        return super().content() + hashlib.sha256(known.encode()).hexdigest()[:16]

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        label, source, patient = _columns(self._known["train"])
        patients, first = np.unique(patient, return_index=True)
        held = []
        for finding in range(
            len(LABELS)
        ):  # a patient with several findings counts as one of the first
            mixed = stream(seed, "divide", finding).permutation(patients[label[first] == finding])
            held.append(mixed[: max(1, round(HELD * len(mixed)))])
        val = np.isin(patient, np.concatenate(held))
        splits = {}
        for name, rows in (("train", np.flatnonzero(~val)), ("val", np.flatnonzero(val))):
            splits[name] = self.split(
                "train",
                rows,
                label[rows],
                source[rows],
                cluster=patient[rows],
                channels=self.chosen["channels"],
            )
        label, source, other = _columns(self._known["test"])
        rows = np.arange(len(label))
        cluster = other + patient.max() + 1  # patients of other hospitals
        splits["test"] = self.split(
            "test", rows, label, source, cluster=cluster, channels=self.chosen["channels"]
        )
        return splits

    def _has_masks(self) -> bool:
        return self.data_dir is not None and (Path(self.data_dir) / MASKS).is_dir()

    def _mask(self, shot: Shot) -> str:
        return (
            f"{MASKS}/{PurePosixPath(shot.file).with_suffix('.png')}" if self._has_masks() else ""
        )


def _sample(shots: list[Shot], count: int) -> list[Shot]:
    """``count`` normal X-rays, each of another patient, and ``count`` with pneumonia, or as many as there are."""
    chosen: list[Shot] = []
    for finding in LABELS[:2]:
        order = stream(0, "chexpert", finding).permutation(len(shots))
        mixed = [shots[i] for i in order if shots[i].finding == finding]
        if finding == "normal":
            mixed = list({shot.patient: shot for shot in reversed(mixed)}.values())
        chosen += sorted(mixed[:count])
    return chosen


def _columns(rows: list[tuple[int, int, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, sources and patients, int64[N]."""
    label, source, patient = zip(*rows, strict=True)
    return np.array(label, np.int64), np.array(source, np.int64), encode(patient)
