"""Tuberculosis on X-rays of two hospitals: the hospital is tied to the label in training."""

from __future__ import annotations

from collections import Counter
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
from datasets._io.table import Origin, Table, read_table
from datasets._sources import bias_assignment

NEITHER = "neither"
LABELS = ("normal", "tuberculosis")
HOSPITALS = ("montgomery", "shenzhen")
FOLDER = "nlm_cxr"
#: The splits if the hospital is tied to no label.
UNTIED_SPLITS = ("train", "val", "test")
#: The largest share of each of the four groups that is used for training and for validation. The
#: rest are tests.
MAX_SHARES = {"train": 0.5, "val": 0.15}
#: The smallest size of a group.
MIN_GROUP_SIZE = 4


@DATASETS.register
class NLMChestXrays(ImageSource):
    """X-rays from Montgomery County (USA) and Shenzhen (China): normal or tuberculosis.

    Source: Jaeger et al. (2014), "Two public chest X-ray datasets for computer-aided screening of
    pulmonary diseases", Quantitative Imaging in Medicine and Surgery 4(6). Licence: free for
    research and education, cite the source. There is one X-ray per patient, and a lung mask for
    each that is used. Counts of the complete collections: Montgomery 80 normal and 58 tuberculosis;
    Shenzhen 326 and 336, of which 279 and 287 have a lung mask.

    Layout: ``nlm_cxr/metadata.csv`` with the columns filename, label (normal, tuberculosis) and
    hospital (montgomery, shenzhen); ``nlm_cxr/images/<filename>`` and ``nlm_cxr/masks/<filename>``,
    white for the lung. To get it: fetch both sets from the National Library of Medicine (merge
    Montgomery's two masks per image; Shenzhen's masks are those of Stirenko et al. 2018) and write
    the table.

    In train and val, a share ``bias`` of each class is from the hospital of that class (``tied``
    names the one with tuberculosis), and the rest from the other. ``biased`` and ``deceiving`` have
    X-rays from the hospital of the class and from the other one, ``unbiased`` equally many of each
    of the four groups, all of patients that train and val do not contain. Grey values are equalised
    before anything else, as in the TEA paper (F.2).

    With ``tied=neither`` the hospital is tied to no label: all X-rays are used, half of each label
    and hospital in ``train``, 15 % in ``val``, the rest in ``test``.
    """

    name = "nlm_cxr"
    title = "NLM chest X-rays"
    description = (
        "tuberculosis on chest X-rays; the hospital is tied to the label, reversed in the test "
        "(lung masks)"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.95),
        "tied": HParam(
            "shenzhen",
            doc="the hospital whose X-rays show tuberculosis in training; neither: all X-rays of "
            "both, whatever the bias, and one test",
            choices=(*HOSPITALS, NEITHER),
        ),
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three equal channels, for pretrained backbones", choices=(1, 3)
        ),
        "equalise": HParam(True, doc="equalise the histogram of each X-ray"),
    }

    label: np.ndarray
    hospital: np.ndarray

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        channels = self.chosen["channels"]
        untied = self.chosen["tied"] == NEITHER
        bias = 1.0 if untied else self.chosen["bias"]
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=HOSPITALS,
            environment_names=bias_assignment.environment_names(bias),
            image_size=(channels, side, side),
            splits=UNTIED_SPLITS if untied else bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias),
            mean=(0.5,) * channels,
            std=(0.29,) * channels,  # an equalised histogram is uniform: √(1/12)
            augmentation={"translate": 0.1, "rotate": 10.0},
            source="Jaeger et al. (2014), Two public chest X-ray datasets, "
            "National Library of Medicine",
            licence="free for research and education, with citation",
            bias_splits=None if untied else ("biased", "deceiving"),
        )

    def metadata(self) -> list[Path]:
        return [self._table_path()]

    def read(self) -> dict[str, Pool]:
        columns = ("filename", "label", "hospital")
        table = read_table(self._table_path(), columns, origin=Origin.USER)
        _check_table(table)
        self.label = np.array([LABELS.index(row["label"]) for row in table])
        self.hospital = np.array([HOSPITALS.index(row["hospital"]) for row in table])
        small = [
            f"{LABELS[label]}/{HOSPITALS[hospital]}"
            for label in (0, 1)
            for hospital in (0, 1)
            if ((self.label == label) & (self.hospital == hospital)).sum() < MIN_GROUP_SIZE
        ]
        if small:
            raise UserError(
                f"{table.path} has fewer than {MIN_GROUP_SIZE} X-rays of {', '.join(small)}; add "
                "some to each group."
            )
        items = [
            Item(f"{FOLDER}/images/{row['filename']}", f"{FOLDER}/masks/{row['filename']}")
            for row in table
        ]
        recipe = Recipe(self.chosen["side"], channels=1, equalise=self.chosen["equalise"])
        return {self.name: Pool(items, recipe)}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        rows_of_split = self._rows(seed)
        splits = {}
        for name in self.info().splits:
            rows = rows_of_split[name]
            label = self.label[rows]
            hospital = self.hospital[rows]
            environment = None
            if self.chosen["tied"] != NEITHER:
                environment = bias_assignment.bias_environments(
                    name, label, self._class_of(hospital), self.chosen["bias"]
                )
            splits[name] = self.split(
                self.name,
                rows,
                label,
                hospital,
                environment,
                cluster=rows,
                channels=self.chosen["channels"],
            )
        return splits

    def _class_of(self, hospital: np.ndarray) -> np.ndarray:
        """Return the class that each hospital is tied to."""
        return hospital if self.chosen["tied"] == "shenzhen" else 1 - hospital

    def _rows(self, seed: int) -> dict[str, np.ndarray]:
        """Return the rows of every split; train, val and the tests have different patients."""
        if self.chosen["tied"] == NEITHER:
            return self._untied_rows(seed)
        aligned: list[np.ndarray] = []  # unused rows of each class from its own hospital
        conflicting: list[np.ndarray] = []  # and from the other hospital
        rows: dict[str, list[np.ndarray]] = {"train": [], "val": []}
        is_aligned = self._class_of(self.hospital) == self.label
        for label, name in enumerate(LABELS):
            own = self._shuffled(seed, name, (self.label == label) & is_aligned, aligned=True)
            other = self._shuffled(seed, name, (self.label == label) & ~is_aligned, aligned=False)
            counts = {part: self._counts(len(own), len(other), part) for part in rows}
            for part, (num_own, num_other) in counts.items():
                rows[part] += [own[:num_own], other[:num_other]]
                own = own[num_own:]
                other = other[num_other:]
            aligned.append(own)
            conflicting.append(other)
        groups = [*aligned, *conflicting]
        smallest = min(len(group) for group in groups)
        tests = {
            "biased": aligned,
            "unbiased": [group[:smallest] for group in groups],
            "deceiving": conflicting,
        }
        return {name: np.sort(np.concatenate(parts)) for name, parts in {**rows, **tests}.items()}

    def _untied_rows(self, seed: int) -> dict[str, np.ndarray]:
        """Divide the X-rays of each label and hospital by MAX_SHARES; the rest are the test."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in UNTIED_SPLITS}
        for label, name in enumerate(LABELS):
            for hospital in range(len(HOSPITALS)):
                of_group = (self.label == label) & (self.hospital == hospital)
                order = self._shuffled(seed, name, of_group, aligned=bool(hospital))
                first = round(len(order) * MAX_SHARES["train"])
                second = first + round(len(order) * MAX_SHARES["val"])
                parts = (order[:first], order[first:second], order[second:])
                for part, members in zip(UNTIED_SPLITS, parts, strict=True):
                    rows[part].append(members)
        return {name: np.sort(np.concatenate(parts)) for name, parts in rows.items()}

    def _shuffled(self, seed: int, label: str, mask: np.ndarray, *, aligned: bool) -> np.ndarray:
        rng = bias_assignment.random_stream(seed, "divide", label, aligned)
        return rng.permutation(np.flatnonzero(mask))

    def _counts(self, num_own: int, num_other: int, part: str) -> tuple[int, int]:
        """Return how many X-rays of a class a part gets from its own and from the other hospital.

        They are as many as this bias allows.
        """
        bias = self.chosen["bias"]
        limits = [
            int(available * MAX_SHARES[part]) / share
            for available, share in ((num_own, bias), (num_other, 1 - bias))
            if share > 0
        ]
        total = max(1, int(min(limits)))
        conflicting = bias_assignment.num_conflicting(total, bias)
        return total - conflicting, conflicting

    def _table_path(self) -> Path:
        table = self.find(
            f"{FOLDER}/metadata.csv", how="the layout is in the docstring of datasets/nlm_cxr.py"
        )
        return self.folder() / table


def _check_table(table: Table) -> None:
    """Check that labels and hospitals are known and that no X-ray is repeated."""
    for row in table:
        for column, allowed in (("label", LABELS), ("hospital", HOSPITALS)):
            if row[column] not in allowed:
                raise UserError(
                    f"line {row.line} of {table.path} has the {column} {row[column]!r}, "
                    f"expected {' or '.join(allowed)}."
                )
    counts = Counter(row["filename"] for row in table)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise UserError(f"{table.path} names {repeated[0]} twice; expected each X-ray once.")
