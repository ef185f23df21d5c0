"""The audit of a model: all experiments, and what they say together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.auditing.answers import AuditImages, balanced_rows, truth_of
from benchmark.auditing.examples import Examples, make_examples
from benchmark.auditing.groups import (
    Gap,
    SplitAccuracy,
    confounder_gap,
    correct_answers,
    split_accuracy,
)
from benchmark.auditing.heatmaps import Heatmaps, explain_marks
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.pull import MAX_CLASSES, Mark, Pull, marks_for, measure_pull, not_planted
from benchmark.auditing.regions import regions_of
from benchmark.auditing.transplant import Transplant, measure_transplants
from benchmark.auditing.verdict import Finding, Verdict, decide, judge_pull
from benchmark.core.dataset import DatasetInfo, DatasetSource, GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.named_options import NamedOptions

#: The data set whose images carry one of the project's marks.
_PLANTED = "planted"


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        model: Name of the model.
        data: Name of the data, with its options.
        labels: Names of the classes.
        probed: Classes that were given marks.
        accuracies: Accuracies on the test splits.
        gap: How much the confounder helps; None if it is unknown.
        pulls: Results of the first experiment.
        transplants: Results of the second experiment.
        heatmaps: Heatmaps of marked images; None if no mark was planted or no explainer suits.
        examples: Images with a mark, and the answers; None if no mark was planted.
        verdict: The verdict.
        seconds: Time that the audit took.
    """

    model: str
    data: str
    labels: tuple[str, ...]
    probed: tuple[int, ...]
    accuracies: tuple[SplitAccuracy, ...]
    gap: Gap | None
    pulls: tuple[Pull, ...]
    transplants: tuple[Transplant, ...]
    heatmaps: Heatmaps | None
    examples: Examples | None
    verdict: Verdict
    seconds: float


def audit(
    load: Callable[[GroupedDataset], AuditedModel],
    source: DatasetSource,
    *,
    most: int = 240,
    trial: int = 0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Audit a model on data.

    Args:
        load: loads the model for the classes and images of the data.
        source: the data.
        most: largest number of images of each experiment.
        trial: trial of the data.
        seed: seed of the choice of images, donors and placebos.
        tell: called with a line before each part.

    Raises:
        UserError: the model cannot be loaded or does not suit the data, or the data have a single
            class or no test split.
    """
    started = time.perf_counter()
    data = source.load(trial)
    info = data.info
    if len(info.label_names) < 2 and not info.multi_label:
        raise UserError(f"{source.name} has one class; an audit needs at least two.")
    tests = labelled_tests(info)
    if not tests:
        raise UserError(f"{source.name} has no test split with labels; an audit needs one.")
    model = load(data)
    tell("accuracy on the test splits")
    correct = {name: correct_answers(model, data.splits[name], info.multi_label) for name in tests}
    accuracies = tuple(split_accuracy(name, data, right) for name, right in correct.items())
    clean, mark = _without_marks(source, data, trial)
    images = _images(clean, most, seed)
    probed = _probed_classes(images)
    marks = _marks(images, mark) if len(probed) > 1 else []
    tried = {kind.kind for kind in marks}
    left_out = {name: why for name, why in not_planted(images).items() if name not in tried}
    pulls = []
    for kind in marks:
        tell(f"marks: {kind.kind}")
        pulls.append(measure_pull(model, images, kind, probed, seed))
    tell("exchange of regions")
    associated = _images(data, most, seed, _associated_split(data))
    regions = regions_of(*associated.pixels.shape[2:], masked=associated.mask is not None)
    transplants = measure_transplants(model, associated, regions, seed)
    tell("heatmaps")
    heatmaps, examples = _illustrations(model, images, pulls, probed, info.label_names)
    return Audit(
        model.name,
        str(NamedOptions(source.name, {k: str(v) for k, v in _changed_options(source).items()})),
        info.label_names,
        tuple(probed),
        accuracies,
        confounder_gap(data, correct),
        tuple(pulls),
        tuple(transplants),
        heatmaps,
        examples,
        decide(pulls, transplants, len(info.label_names), left_out),
        time.perf_counter() - started,
    )


def _marks(images: AuditImages, known: Mark | None) -> list[Mark]:
    """Return the marks to plant, the known mark of the data first."""
    if known is None:
        return marks_for(images)
    return [known, *(other for other in marks_for(images) if other.kind != known.kind)]


def _illustrations(
    model: AuditedModel,
    images: AuditImages,
    pulls: Sequence[Pull],
    probed: list[int],
    names: Sequence[str],
) -> tuple[Heatmaps | None, Examples | None]:
    """Return heatmaps and examples of the first mark on which the model relies, or of the first."""
    if not pulls:
        return None, None
    relied = [pull.mark for pull in pulls if judge_pull(pull).finding is Finding.RELIES]
    mark = relied[0] if relied else pulls[0].mark
    examples = make_examples(model, images, mark, probed[0], names)
    return explain_marks(model, images, mark, probed), examples


def _changed_options(source: DatasetSource) -> dict[str, object]:
    defaults = {name: option.default for name, option in source.options.items()}
    return {name: value for name, value in source.chosen.items() if value != defaults[name]}


def _without_marks(
    source: DatasetSource, data: GroupedDataset, trial: int
) -> tuple[GroupedDataset, Mark | None]:
    """Return the data before a mark was planted in them, and the mark."""
    if source.name != _PLANTED:
        return data, None
    base: DatasetSource = source.base  # type: ignore[attr-defined]
    chosen = source.chosen
    return base.load(trial), Mark(chosen["shortcut"], chosen["size"], chosen["opacity"])


def labelled_tests(info: DatasetInfo) -> list[str]:
    """Return the test splits whose labels are known."""
    return [name for name in info.test_splits if name not in info.unlabelled_splits]


def _main_split(data: GroupedDataset) -> str:
    """Return the test split for marks, if possible one without the shortcut of the data."""
    tests = labelled_tests(data.info)
    shifted = data.info.bias_splits or ()
    neutral = [name for name in tests if name not in shifted] or tests
    return next((name for name in ("unbiased", "test") if name in neutral), neutral[-1])


def _associated_split(data: GroupedDataset) -> str:
    """Return the test split on which a shortcut agrees with the label, if the data have one."""
    if data.info.bias_splits is not None:
        return data.info.bias_splits[0]
    return _main_split(data)


def _images(data: GroupedDataset, most: int, seed: int, name: str = "") -> AuditImages:
    split = data.splits[name or _main_split(data)]
    rows = balanced_rows(split.label, most, seed)
    return AuditImages(
        np.asarray(split.image[rows]),
        truth_of(split.label[rows], len(data.info.label_names)),
        None if split.mask is None else np.asarray(split.mask[rows]),
        None if split.cluster is None else split.cluster[rows],
        data.info.multi_label,
    )


def _probed_classes(images: AuditImages) -> list[int]:
    """Return the classes that are given marks: at most MAX_CLASSES, the most frequent ones."""
    frequency = images.truth.sum(0)
    present = np.flatnonzero(frequency)
    chosen = sorted(present, key=lambda label: -frequency[label])[:MAX_CLASSES]
    return sorted(int(label) for label in chosen)
