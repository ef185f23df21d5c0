"""The second experiment: does a region of another image bring the answer of that image with it?

It needs no known mark. A region of an image is replaced by that of an image of another class (the
donor), and by that of another image of the same class. v is 1 if the model answers the donor's
class in the first case, minus the same for the second. It is near 0 for a model that ignores the
region, and for any model on data whose classes do not differ there.

A model that learned little may answer some class whenever it sees the region of some other one, and
this class may be the donor's by chance. With enough classes the effect is therefore compared with
**placebos**, for which v asks for the class that a random permutation assigns to the donor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.auditing.answers import AuditImages, answers
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.paired_mean import PairedMean, paired_mean
from benchmark.auditing.pull import FEW_CLASSES, placebo_assignments, placebo_p
from benchmark.auditing.regions import Region
from benchmark.core.seeds import seed_for


@dataclass(frozen=True)
class Transplant:
    """The result of the experiment for one region.

    Attributes:
        region: The region.
        values: float64[N], v of each image; NaN for images without a donor.
        estimate: Mean of ``values``. Its interval holds for all regions together (Bonferroni).
        placebos: Effects for permuted classes; empty if the classes are too few.
    """

    region: Region
    values: np.ndarray
    estimate: PairedMean
    placebos: tuple[float, ...] = ()

    @property
    def placebo_p(self) -> float:
        """The p of the effect among the placebos; 1 without placebos."""
        return placebo_p(float(np.nanmean(self.values)), self.placebos)


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
    assignments = _permuted_classes(images.truth.shape[1], seed)
    found = []
    for region in regions:
        values = np.full(len(images), np.nan)
        placebos: list[float] = []
        if usable.any():
            after = [
                _answers_after(model, images, region, usable, donor[usable])
                for donor in (donors.other, donors.same)
            ]
            wanted = donors.label[usable]
            absent = ~images.truth[usable]
            values[usable] = followed(after, wanted, absent)
            placebos = [
                float(np.nanmean(v))
                for classes in assignments
                if np.isfinite(v := followed(after, classes[wanted], absent)).any()
            ]
        estimate = paired_mean(values, images.cluster, level)
        found.append(Transplant(region, values, estimate, tuple(placebos)))
    return found


def followed(after: Sequence[np.ndarray], wanted: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Return how the answer for a class differs between the two donors.

    Args:
        after: answers bool[N,K] with the donor of another class, and with that of the same class.
        wanted: int64[N], the class.
        absent: bool[N,K], whether an image lacks a class.

    Returns:
        float64[N] in {−1, 0, 1}; NaN where the image has the class.
    """
    rows = np.arange(len(wanted))
    other, same = (answer[rows, wanted].astype(float) for answer in after)
    return np.where(absent[rows, wanted], other - same, np.nan)


def _answers_after(
    model: AuditedModel,
    images: AuditImages,
    region: Region,
    usable: np.ndarray,
    donor: np.ndarray,
) -> np.ndarray:
    """Return the answers for images with the region of their donors."""
    foreground = None
    if images.mask is not None:
        foreground = images.mask[usable] | images.mask[donor]
    moved = region.transplant(images.pixels[usable], images.pixels[donor], foreground)
    return answers(model, images, moved)


def _permuted_classes(classes: int, seed: int) -> list[np.ndarray]:
    """Return permutations of the classes without a fixed point, int64[K]; none for few classes."""
    if classes < FEW_CLASSES:
        return []
    every = range(classes)
    return [np.array(list(a.values())) for a in placebo_assignments(every, every, seed)]


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
