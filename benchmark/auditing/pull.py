"""The first experiment: does the mark of a class pull the answers towards the class?

Each class is given a mark, such as a tag of its own colour. For an image that does not have class
c, v is 1 if the model answers c when the image carries the mark of c, minus the share of the other
marks under which it answers c. Its mean over classes and images is the **pull**. A model that never
saw the marks has a pull near 0, also if marks hide the object and so change many answers.

A mark may still happen to resemble a class: a bright tint pulls a model that sorts by brightness.
So the shift of the scores is compared with those of **placebos**, random assignments of marks to
classes: of the same marks where there are enough classes, else of marks that no class has. The
scores are compared and not the answers, since a model that follows one red tag also answers by any
other reddish one, but less surely.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.auditing.answers import AuditImages, predicted_classes
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.paired_mean import PairedMean, paired_mean
from benchmark.core.seeds import seed_for

#: The marks that differ only in colour, or mostly, and cannot be told apart in grey images.
COLOURED = ("border", "colour", "background", "tie")
#: The mark that is on the object itself and tints it.
TINT = "colour"
#: The compression of the whole image. Its qualities are ordered, unlike the other marks: qualities
#: that no class has shift the scores in the same direction as those of the classes.
COMPRESSION = "jpeg"
#: The largest number of assignments of marks to classes that mean nothing. Two classes have 56.
PLACEBOS = 199
#: The number of marks that ``plant`` can tell apart by colour.
_PALETTE = 10
#: With fewer classes, placebos are marks that no class has; otherwise, those of other classes.
FEW_CLASSES = 5
#: The largest number of classes that are given marks.
MAX_CLASSES = 10
_GREY = 128


@dataclass(frozen=True)
class Mark:
    """A kind of mark.

    Args:
        kind: a shortcut of the data set ``planted``.
        size: size relative to the default.
        opacity: opacity relative to the default.
    """

    kind: str
    size: float = 1.0
    opacity: float = 1.0


@dataclass(frozen=True)
class Pull:
    """The result of the experiment for one kind of mark.

    Attributes:
        mark: The mark.
        values: float64[N], v of each image, averaged over classes; NaN where it is undefined.
        estimate: Mean of ``values`` with its interval.
        shift: Mean shift of the score of a class by its mark, in standard deviations of the score.
        placebos: Shifts of random assignments of marks to classes; empty if marks are too few.
        gap: Accuracy with the mark of the own class minus accuracy with another one.
        raw_flips: Share of answers that any mark changes.
        neutral_flips: Share of answers that a grey patch in the same place changes.
        area: Share of the image that the mark covers.
        classes: Number of classes that the model answered at all.
    """

    mark: Mark
    values: np.ndarray
    estimate: PairedMean
    shift: float
    placebos: tuple[float, ...]
    gap: float
    raw_flips: float
    neutral_flips: float
    area: float
    classes: int

    @property
    def largest_placebo(self) -> float:
        """The largest shift of an assignment that means nothing; −∞ without placebos."""
        return max(self.placebos, default=-math.inf)

    @property
    def placebo_p(self) -> float:
        """The p of the shift among the placebos, (1 + placebos with at least this shift) / (1 + n).

        It is 1 without placebos.
        """
        return placebo_p(self.shift, self.placebos)


def placebo_p(value: float, placebos: Sequence[float]) -> float:
    """Return the p of a value among placebos, (1 + placebos that are as large) / (1 + all)."""
    as_large = sum(not placebo < value for placebo in placebos)
    return (1 + as_large) / (1 + len(placebos))


def measure_pull(
    model: AuditedModel, images: AuditImages, mark: Mark, probed: Sequence[int], seed: int = 0
) -> Pull:
    """Measure the pull of one kind of mark.

    Args:
        model: the model.
        images: images without marks.
        mark: the kind of mark.
        probed: the classes that are given marks.
        seed: seed of the placebos.
    """
    classes = images.truth.shape[1]
    plain = model.scores(images.pixels)
    before = predicted_classes(plain, images.multi_label)
    scores: dict[int, np.ndarray] = {}
    after: dict[int, np.ndarray] = {}
    pasted = np.zeros(0)
    # Few classes have too few permutations of their own marks.
    few = len(probed) < FEW_CLASSES
    pool = list(range(classes, _PALETTE)) if few else []
    for number in [*probed, *pool]:
        planted = _plant(images, mark, number)
        pasted = planted.pasted
        scores[number] = model.scores(planted.image)
        after[number] = predicted_classes(scores[number], images.multi_label)
    own = {c: c for c in probed}
    values = pull_values(after, own, images.truth)
    neutral = model.scores(neutral_patch(images.pixels, pasted, mark))
    neutral_answers = predicted_classes(neutral, images.multi_label)
    marked = [after[number] for number in probed]
    return Pull(
        mark,
        values,
        paired_mean(values, images.cluster),
        shift_of(scores, own, plain, images.truth),
        tuple(
            shift_of(scores, assigned, plain, images.truth)
            for assigned in placebo_assignments(probed, pool or probed, seed)
        ),
        _gap(after, probed, images.truth),
        float(np.mean([(answer != before).any(1).mean() for answer in marked])),
        float((neutral_answers != before).any(1).mean()),
        float(pasted.mean()),
        int(before.any(0).sum()),
    )


def pull_values(
    after: Mapping[int, np.ndarray], assigned: Mapping[int, int], truth: np.ndarray
) -> np.ndarray:
    """Return v of each image, averaged over the classes that it does not have.

    Args:
        after: answers bool[N,K] under each mark.
        assigned: the mark of each class.
        truth: bool[N,K], the classes of the images.

    Returns:
        float64[N] in [−1, 1]; NaN for images that have every class.
    """
    total = np.zeros(len(truth))
    count = np.zeros(len(truth))
    for label, own in assigned.items():
        others = [mark for other, mark in assigned.items() if other != label]
        elsewhere = np.mean([after[mark][:, label] for mark in others], axis=0)
        absent = ~truth[:, label]
        total[absent] += (after[own][:, label] - elsewhere)[absent]
        count[absent] += 1
    return np.divide(total, count, out=np.full(len(truth), np.nan), where=count > 0)


def placebo_assignments(
    probed: Sequence[int], pool: Sequence[int], seed: int = 0
) -> list[dict[int, int]]:
    """Return up to PLACEBOS random assignments of marks to classes, none of them to its own class.

    Args:
        probed: the classes.
        pool: the marks to choose from.
        seed: seed of the choice.
    """
    if len(pool) < len(probed):
        return []
    rng = np.random.default_rng(seed_for("audit placebos", seed))
    drawn: dict[tuple[int, ...], None] = {}
    if math.perm(len(pool), len(probed)) <= 2 * PLACEBOS:
        every = list(itertools.permutations(pool, len(probed)))
        candidates = (every[row] for row in rng.permutation(len(every)))
    else:
        candidates = (
            tuple(rng.permutation(pool)[: len(probed)].tolist()) for _ in range(50 * PLACEBOS)
        )
    for marks in candidates:
        if all(mark != label for mark, label in zip(marks, probed, strict=True)):
            drawn.setdefault(marks)
        if len(drawn) == PLACEBOS:
            break
    return [dict(zip(probed, marks, strict=True)) for marks in drawn]


def shift_of(
    scores: Mapping[int, np.ndarray],
    assigned: Mapping[int, int],
    plain: np.ndarray,
    truth: np.ndarray,
) -> float:
    """Return the mean shift of the score of a class by its mark, in standard deviations.

    Args:
        scores: scores float[N,K] under each mark.
        assigned: the mark of each class.
        plain: scores float[N,K] without marks.
        truth: bool[N,K], the classes of the images.

    Returns:
        The mean over classes, and over the images without the class, of the score under its mark
        minus its mean under the other classes' marks; NaN if every image has every class.
    """
    shifts = []
    for label, own in assigned.items():
        absent = ~truth[:, label]
        if not absent.any():
            continue
        spread = plain[:, label].std() or 1.0  # a model that sees nothing but marks
        others = [scores[mark][absent, label] for other, mark in assigned.items() if other != label]
        difference = scores[own][absent, label] - np.mean(others, axis=0)
        shifts.append(float(difference.mean() / spread))
    return float(np.mean(shifts)) if shifts else math.nan


def _gap(after: Mapping[int, np.ndarray], probed: Sequence[int], truth: np.ndarray) -> float:
    own = []
    other = []
    for label in probed:
        present = truth[:, label]
        own += after[label][present, label].tolist()
        for mark in probed:
            if mark != label:
                other += after[mark][present, label].tolist()
    return float(np.mean(own) - np.mean(other)) if own and other else math.nan


def neutral_patch(pixels: np.ndarray, pasted: np.ndarray, mark: Mark) -> np.ndarray:
    """Return images with grey in the place of a mark.

    Args:
        pixels: uint8[N,C,H,W].
        pasted: bool[N,1,H,W], the place of the mark.
        mark: the mark; a tint is replaced by a half-transparent grey. Compression has no place, and
            the images stay as they are.
    """
    if mark.kind == COMPRESSION:
        return pixels
    grey = pixels // 2 + _GREY // 2 if mark.kind == TINT else np.uint8(_GREY)
    return np.where(pasted, grey, pixels).astype(np.uint8)


def marks_for(images: AuditImages) -> list[Mark]:
    """Return the kinds of marks that can be planted in images of this kind."""
    left_out = not_planted(images)
    return [Mark(kind) for kind in planting().SHORTCUTS if kind not in left_out]


def not_planted(images: AuditImages) -> dict[str, str]:
    """Return the kinds of marks that cannot be planted in images of this kind, and why."""
    reasons = {}
    for kind in planting().SHORTCUTS:
        if images.pixels.shape[1] != 3 and kind in COLOURED:
            reasons[kind] = "the images are grey"
        elif images.mask is None and kind == "background":
            reasons[kind] = "there are no masks"
        elif kind == COMPRESSION:
            reasons[kind] = "its qualities are ordered, so that no placebo is neutral"
    return reasons


def planted_image(images: AuditImages, mark: Mark, number: int) -> Any:
    """Return images that all carry the mark of a number; see ``plant`` of the data sets."""
    return _plant(images, mark, number)


def _plant(images: AuditImages, mark: Mark, number: int) -> Any:
    count = len(images)
    return planting().plant(
        images.pixels,
        np.full(count, number, np.int64),
        mark.kind,
        0,
        images.mask,
        size=mark.size,
        opacity=mark.opacity,
    )


def planting() -> Any:
    """Return the module of the data sets that plants shortcuts.

    It belongs to the package ``datasets``, which this package does not import statically.
    """
    return importlib.import_module("datasets._sources.shortcuts")
