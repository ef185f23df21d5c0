"""The second experiment: does a region of another image bring the answer of that image with it?

It needs no known mark. A region of an image is replaced by that of an image of another class (the
donor), and by that of another image of the same class. v is 1 if the model answers the donor's
class in the first case, minus the same for the second. It is near 0 for a model that ignores the
region, and for any model on data whose classes do not differ there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.auditing.answers import AuditImages, answers
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.paired_mean import PairedMean, paired_mean
from benchmark.auditing.regions import Region
from benchmark.core.seeds import seed_for


@dataclass(frozen=True)
class Transplant:
    """The result of the experiment for one region.

    Attributes:
        region: The region.
        values: float64[N], v of each image; NaN for images without a donor.
        estimate: Mean of ``values``. Its interval holds for all regions together (Bonferroni).
    """

    region: Region
    values: np.ndarray
    estimate: PairedMean


def measure_transplants(
    model: AuditedModel, images: AuditImages, regions: Sequence[Region], seed: int = 0
) -> list[Transplant]:
    """Exchange regions between images and return how often answers follow them.

    Args:
        model: the model.
        images: images that may carry a shortcut.
        regions: the regions.
        seed: seed of the choice of donors, which all regions share.
    """
    donors = choose_donors(images.truth, images.cluster, seed)
    level = 1 - 0.05 / max(len(regions), 1)
    usable = donors.other >= 0
    found = []
    for region in regions:
        values = np.full(len(images), np.nan)
        if usable.any():
            image = images.pixels[usable]
            wanted = donors.label[usable]
            rows = np.arange(len(image))
            followed = []
            for donor in (donors.other, donors.same):
                chosen = donor[usable]
                foreground = None
                if images.mask is not None:
                    foreground = images.mask[usable] | images.mask[chosen]
                moved = region.transplant(image, images.pixels[chosen], foreground)
                followed.append(answers(model, images, moved)[rows, wanted])
            values[usable] = followed[0].astype(float) - followed[1]
        found.append(Transplant(region, values, paired_mean(values, images.cluster, level)))
    return found


@dataclass(frozen=True)
class Donors:
    """The donors of each image.

    Attributes:
        other: int64[N], row of a donor with another class; −1 if there is none.
        same: int64[N], row of a donor of the same class; −1 if there is none.
        label: int64[N], class of ``other`` that the image lacks.
    """

    other: np.ndarray
    same: np.ndarray
    label: np.ndarray


def choose_donors(truth: np.ndarray, cluster: np.ndarray | None, seed: int = 0) -> Donors:
    """Choose two donors of each image at random, from other patients.

    With several labels per image, ``other`` has a label that the image lacks, and ``same`` lacks
    it too.

    Args:
        truth: bool[N,K], the classes of the images.
        cluster: int64[N], equal for images of one patient, or None.
        seed: seed of the choice.
    """
    rng = np.random.default_rng(seed_for("audit donors", seed))
    count, classes = truth.shape
    patient = np.arange(count) if cluster is None else cluster
    other = np.full(count, -1)
    same = np.full(count, -1)
    label = np.zeros(count, np.int64)
    single = bool((truth.sum(1) == 1).all())
    for row in range(count):
        stranger = patient != patient[row]
        for candidate in rng.permutation(classes):
            if truth[row, candidate]:
                continue
            alike = truth[:, candidate] == 0
            if single:
                alike = (truth == truth[row]).all(1)
            from_other = np.flatnonzero(truth[:, candidate] & stranger)
            from_same = np.flatnonzero(alike & stranger)
            if len(from_other) and len(from_same):
                other[row] = rng.choice(from_other)
                same[row] = rng.choice(from_same)
                label[row] = candidate
                break
    return Donors(other, same, label)
