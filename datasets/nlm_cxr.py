"""Tuberculosis on X-rays of two hospitals: the hospital is tied to the label in training, reversed in the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.table import Origin, read_table
from datasets._sources import bias_assignment

LABELS = ("normal", "tuberculosis")
HOSPITALS = ("montgomery", "shenzhen")
FOLDER = "nlm_cxr"
#: Shares of each of the four groups that training and validation may take at most; the rest is for the tests.
SHARES = {"train": 0.5, "val": 0.15}


@DATASETS.register
class NLMChestXrays(ImageSource):
    """Montgomery County (USA) and Shenzhen (China): normal or tuberculosis, with lung masks; one X-ray per patient.

    Source: Jaeger et al. (2014), "Two public chest X-ray datasets for computer-aided screening of pulmonary diseases",
    Quantitative Imaging in Medicine and Surgery 4(6). Licence: free for research and education, cite the source.
    Counts where all are there: Montgomery 80 normal and 58 tuberculosis, Shenzhen 326 and 336, of which 279 and 287
    have a lung mask.

    Layout: ``nlm_cxr/metadata.csv`` with the columns filename, label (normal, tuberculosis) and hospital (montgomery,
    shenzhen); ``nlm_cxr/images/<filename>`` and ``nlm_cxr/masks/<filename>``, white for lung. To get it: fetch both
    sets from the National Library of Medicine (Montgomery's two masks per image united; Shenzhen's masks are those of
    Stirenko et al. 2018) and write the table.

    A share ``bias`` of the training images of each class is from the hospital of that class (``tied`` says which one
    has the tuberculosis), the rest from the other. ``biased`` and ``deceiving`` hold X-rays of the class's own and of
    the other hospital, ``unbiased`` equally many of each of the four groups; none is of a patient seen before. Grey
    values are equalised before anything else, as in the TEA paper (F.2).
    """

    name = "nlm_cxr"
    title = "tuberculosis on chest X-rays; the hospital is tied to the label, reversed in the test (lung masks)"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.95),
        "tied": HParam(
            "shenzhen",
            doc="the hospital whose X-rays show tuberculosis in training",
            choices=HOSPITALS,
        ),
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three times the same, for pretrained backbones", choices=(1, 3)
        ),
        "equalise": HParam(True, doc="equalise the histogram of each X-ray"),
    }

    def info(self) -> DatasetInfo:
        side, channels, bias = (self.chosen[name] for name in ("side", "channels", "bias"))
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=HOSPITALS,
            environment_names=bias_assignment.environment_names(bias),
            image_size=(channels, side, side),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provides(bias),
            mean=(0.5,) * channels,
            std=(0.29,) * channels,  # an equalised histogram is flat: √(1/12)
            augmentation={"translate": 0.1, "rotate": 10.0},
            source="Jaeger et al. (2014), Two public chest X-ray datasets, National Library of Medicine",
            licence="free for research and education, with citation",
            bias_splits=("biased", "deceiving"),
        )

    def metadata(self) -> list[Path]:
        return [self._table()]

    def read(self) -> dict[str, Pool]:
        rows = read_table(self._table(), ("filename", "label", "hospital"), origin=Origin.USER)
        for row in rows:
            for column, allowed in (("label", LABELS), ("hospital", HOSPITALS)):
                if row[column] not in allowed:
                    raise UserError(
                        f"line {row.line} of {self._table()} has the {column} {row[column]!r}, "
                        f"expected {' or '.join(allowed)}."
                    )
        names = [row["filename"] for row in rows]
        twice = (
            sorted({name for name in names if names.count(name) > 1})
            if len(set(names)) < len(names)
            else []
        )
        if twice:
            raise UserError(
                f"{self._table()} names {twice[0]} twice; each X-ray may be there once."
            )
        self.label = np.array([LABELS.index(row["label"]) for row in rows])
        self.hospital = np.array([HOSPITALS.index(row["hospital"]) for row in rows])
        lacking = [
            f"{LABELS[y]}/{HOSPITALS[z]}"
            for y in (0, 1)
            for z in (0, 1)
            if self._group(y, z).sum() < 4
        ]
        if lacking:
            raise UserError(
                f"{self._table()} has fewer than 4 X-rays of {', '.join(lacking)}; each group needs some."
            )
        items = [Item(f"{FOLDER}/images/{name}", f"{FOLDER}/masks/{name}") for name in names]
        recipe = Recipe(self.chosen["side"], channels=1, equalise=self.chosen["equalise"])
        return {self.name: Pool(items, recipe)}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows = self._rows(seed)
        splits = {}
        for name in bias_assignment.SPLITS:
            label, hospital = self.label[rows[name]], self.hospital[rows[name]]
            environment = bias_assignment.environments(
                name, label, self._own(hospital), self.chosen["bias"]
            )
            splits[name] = self.split(
                self.name,
                rows[name],
                label,
                hospital,
                environment,
                rows[name],
                self.chosen["channels"],
            )
        return splits

    def _own(self, hospital: np.ndarray) -> np.ndarray:
        """The class that each hospital is tied to."""
        return hospital if self.chosen["tied"] == "shenzhen" else 1 - hospital

    def _group(self, label: int, hospital: int) -> np.ndarray:
        return (self.label == label) & (self.hospital == hospital)

    def _rows(self, seed: int) -> dict[str, np.ndarray]:
        """Rows of every split, each patient in one of training, validation and tests."""
        left: dict[tuple[int, bool], np.ndarray] = {}  # class, whether from its own hospital
        rows: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        for label in (0, 1):
            for own in (True, False):
                chosen = np.flatnonzero(
                    (self.label == label) & ((self._own(self.hospital) == label) == own)
                )
                left[label, own] = bias_assignment.stream(
                    seed, "divide", LABELS[label], own
                ).permutation(chosen)
            counts = {
                part: self._counts(left[label, True], left[label, False], part) for part in rows
            }
            for part, (ours, others) in counts.items():
                for own, count in ((True, ours), (False, others)):
                    taken, left[label, own] = np.split(left[label, own], [count])
                    rows[part].append(taken)
        fewest = min(len(group) for group in left.values())
        tests = {
            "biased": [left[label, True] for label in (0, 1)],
            "unbiased": [group[:fewest] for group in left.values()],
            "deceiving": [left[label, False] for label in (0, 1)],
        }
        return {name: np.sort(np.concatenate(parts)) for name, parts in {**rows, **tests}.items()}

    def _counts(self, ours: np.ndarray, others: np.ndarray, part: str) -> tuple[int, int]:
        """How many X-rays of a class ``part`` gets from its own and from the other hospital: as many as can be had
        at this bias."""
        bias, share = self.chosen["bias"], SHARES[part]
        limits = [
            int(len(group) * share) / p for group, p in ((ours, bias), (others, 1 - bias)) if p > 0
        ]
        total = max(1, int(min(limits)))
        conflicting = round((1 - bias) * total)
        if 0 < bias < 1 and total > 1:
            conflicting = min(max(conflicting, 1), total - 1)
        return total - conflicting, conflicting

    def _table(self) -> Path:
        table = self.find(
            f"{FOLDER}/metadata.csv", how="the layout is in the docstring of datasets/nlm_cxr.py"
        )
        return self.folder() / table
