"""The lowest accuracy of the parts of a split: what worst-group and worst-class accuracy share."""

from __future__ import annotations

import statistics
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from benchmark.core.counts import Ints
from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import Predictions, PredictionStore
from benchmark.report.statistics.estimate import Estimate, without_interval
from benchmark.report.statistics.worst_group import (
    GroupAccuracy,
    accuracy_of_counts,
    accuracy_of_images,
    worst_group_interval,
    worst_group_over_trials,
    worst_group_variance,
)
from benchmark.report.tables.metric import Metric


class LowestAccuracy(Metric):
    """The lowest accuracy of a part that has images, with an interval from the counts.

    Attributes:
        part: "group" or "class".
        parts: Its plural.
    """

    part: ClassVar[str]
    parts: ClassVar[str]
    position: ClassVar[int] = 20
    continues_caption: ClassVar[bool] = True
    shows_bounds: ClassVar[bool] = True
    sampling_kind: ClassVar[str] = "binomial of the worst groups"

    def __init__(self, split: str) -> None:
        super().__init__((split,), (f"worst {self.part}", f"({split})"))

    @staticmethod
    @abstractmethod
    def part_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
        """Return the correctly predicted images and all images of each part."""

    @staticmethod
    @abstractmethod
    def part_of_images(predictions: Predictions) -> np.ndarray | None:
        """Return the number of each image's part, int[n]; None if it is unknown."""

    @abstractmethod
    def parts_of(self, data: DataSummary) -> str:
        """Return in brackets what a part is, with a leading space; empty if it is obvious."""

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the minimum with an envelope of exact binomial bounds."""
        correct, total = self.part_counts(run.at.counts[self.splits[0]])
        if not total.any():
            return without_interval(None, "the split has no images")
        return replace(worst_group_interval(correct, total), note=self._note(total))

    def over_trials(
        self,
        runs: Sequence[SelectedRun],
        values: Sequence[float],
        predictions: PredictionStore | None = None,
    ) -> Estimate:
        """Return the mean of the minima, with the uncertainty of trials and test images."""
        correct, total = self._all_counts(runs)
        if len({len(sizes) for sizes in total}) > 1:
            return super().over_trials(runs, values, predictions)
        groups = self.part_accuracy(runs, predictions)
        return replace(worst_group_over_trials(correct, total, groups), note="")

    def part_accuracy(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore | None = None
    ) -> GroupAccuracy | None:
        """Return the accuracy of the parts; None if the runs have different parts."""
        correct, total = self._all_counts(runs)
        if len({len(sizes) for sizes in total}) > 1 or not (np.array(total) > 0).all(0).any():
            return None
        if predictions is not None and len(runs) > 1:
            split = self.splits[0]
            table = predictions.matrix(runs, split)
            first = predictions.get(runs[0], split)
            if table is not None and first is not None and first.label.ndim == 1:
                part = self.part_of_images(first)
                if part is not None:
                    return accuracy_of_images(table, part)
        return accuracy_of_counts(correct, total)

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        """Return the binomial variance of the mean of the trials' minima.

        Trials err alike, since they share their images, so it does not shrink with their number.
        """
        return statistics.fmean(map(worst_group_variance, *self._all_counts(runs)))

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        """Return the number of parts that have images, and what a part is."""
        counts = runs[0].at.counts.get(self.splits[0])
        if counts is None or not counts.any():
            return ""
        sizes = self.part_counts(counts)[1]
        sizes = sizes[sizes > 0]
        parts = f"{len(sizes)} {self.parts}{self.parts_of(data)}"
        smallest = f"the smallest of which has {int(sizes.min()):,} images"
        over = ", mean over trials" if several_trials else ""
        return (
            f"worst {self.part}: the lowest accuracy among {parts}, {smallest}{over}; a minimum "
            f"tends to lie below the true value if {self.parts} are many or small, so bounds are "
            "printed"
        )

    def _all_counts(self, runs: Sequence[SelectedRun]) -> tuple[list[Ints], list[Ints]]:
        counts = [self.part_counts(run.at.counts[self.splits[0]]) for run in runs]
        return [correct for correct, _ in counts], [total for _, total in counts]

    def _note(self, total: Ints) -> str:
        empty = int((total == 0).sum())
        return (
            f"{empty} of {len(total)} {self.parts} have no images and are left out" if empty else ""
        )
