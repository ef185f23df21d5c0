"""The accuracy of the audited model: average, worst group, every group, and the gap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.auditing.answers import predicted_classes, truth_of
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.paired_mean import PairedMean, paired_mean
from benchmark.core.dataset import GroupedDataset, Split
from benchmark.report.statistics.worst_group import clopper_pearson, worst_group_interval

_TAIL = 0.025


@dataclass(frozen=True)
class Accuracy:
    """An accuracy with its 95 % interval.

    Attributes:
        name: What it is the accuracy of.
        value: Share of correct answers.
        low: Lower bound.
        high: Upper bound.
        images: Number of images.
    """

    name: str
    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class SplitAccuracy:
    """The accuracy on one split.

    Attributes:
        split: Name of the split.
        average: Accuracy on all images.
        worst: Accuracy of the worst group; None if the confounder is unknown.
        groups: Accuracy of every group with images.
    """

    split: str
    average: Accuracy
    worst: Accuracy | None
    groups: tuple[Accuracy, ...]


@dataclass(frozen=True)
class Gap:
    """How much the confounder helps.

    Attributes:
        name: The two sets of images that are compared.
        estimate: Accuracy where the confounder helps minus accuracy where it does not.
    """

    name: str
    estimate: PairedMean


def correct_answers(model: AuditedModel, split: Split, multi_label: bool) -> np.ndarray:
    """Return whether each answer is correct, bool[N], or bool[N,K] for several labels."""
    pixels = np.asarray(split.image)
    scores = model.scores(pixels)
    predicted = predicted_classes(scores, multi_label)
    truth = truth_of(split.label, scores.shape[1])
    right = predicted == truth
    return right if multi_label else np.asarray(right.all(1))


def split_accuracy(name: str, data: GroupedDataset, correct: np.ndarray) -> SplitAccuracy:
    """Return the accuracies on one split.

    Args:
        name: the name of the split.
        data: the data.
        correct: the result of ``correct_answers``.
    """
    split = data.splits[name]
    per_image = correct if correct.ndim == 1 else correct.mean(1)
    average = _accuracy("all images", per_image)
    group = data.group(name)
    if group is None or correct.ndim == 2:
        return SplitAccuracy(name, average, None, ())
    names = data.info.group_names
    groups = []
    right = np.bincount(group[correct], minlength=len(names))
    total = np.bincount(group, minlength=len(names))
    for number in np.flatnonzero(total):
        groups.append(_accuracy(names[number], correct[group == number]))
    estimate = worst_group_interval(right, total)
    lowest = min(groups, key=lambda accuracy: accuracy.value)
    assert estimate.value is not None and estimate.low is not None and estimate.high is not None
    worst = Accuracy(lowest.name, estimate.value, estimate.low, estimate.high, len(split))
    return SplitAccuracy(name, average, worst, tuple(groups))


def _accuracy(name: str, correct: np.ndarray) -> Accuracy:
    count = len(correct)
    right = np.array([round(float(correct.sum()))])
    low, high = clopper_pearson(right, np.array([count]), _TAIL, _TAIL)
    return Accuracy(name, float(correct.mean()), float(low[0]), float(high[0]), count)


def confounder_gap(data: GroupedDataset, correct: Mapping[str, np.ndarray]) -> Gap | None:
    """Return the gap between images where the confounder helps and others; None if unknown.

    It is the difference between the biased and the deceiving split where the data have them.
    Otherwise, on the main test split, the confounder helps where its value is more frequent in the
    training images of the label than in all of them.

    Args:
        data: the data.
        correct: the results of ``correct_answers`` by split.
    """
    info = data.info
    if info.multi_label:
        return None
    if info.bias_splits is not None and all(name in correct for name in info.bias_splits):
        biased, deceiving = (correct[name].astype(float) for name in info.bias_splits)
        title = " − ".join(info.bias_splits)
        first, second = (data.splits[name].pair_id for name in info.bias_splits)
        if info.paired and first is not None and second is not None:
            _, rows, others = np.intersect1d(first, second, return_indices=True)
            return Gap(title, paired_mean(biased[rows] - deceiving[others]))
        return Gap(title, _difference(biased, deceiving))
    train = data.splits["train"]
    if train.confounder is None:
        return None
    counts = np.zeros((len(info.label_names), len(info.confounder_names)))
    np.add.at(counts, (train.label, train.confounder), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    helps = share > counts.sum(0) / max(counts.sum(), 1)
    for name in ("unbiased", "test", *info.test_splits):
        split = data.splits.get(name)
        if split is not None and split.confounder is not None and name in correct:
            aligned = helps[split.label, split.confounder]
            if aligned.any() and not aligned.all():
                values = correct[name].astype(float)
                title = f"{name}: aligned − conflicting images"
                return Gap(title, _difference(values[aligned], values[~aligned]))
    return None


def _difference(one: np.ndarray, other: np.ndarray) -> PairedMean:
    """Return the difference of two independent means with an interval, from pseudo-counts."""
    variance = 0.0
    for values in (one, other):
        raised = (values.sum() + 2) / (len(values) + 4)
        variance += raised * (1 - raised) / len(values)
    mean = float(one.mean() - other.mean())
    half = 1.96 * float(np.sqrt(variance))
    return PairedMean(mean, max(mean - half, -1.0), min(mean + half, 1.0), len(one) + len(other))
