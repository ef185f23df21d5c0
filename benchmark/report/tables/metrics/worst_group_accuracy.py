"""Worst-group accuracy: the lowest accuracy of a group of label and confounder."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from benchmark.core.counts import Ints, group_counts
from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import Predictions, PredictionStore
from benchmark.report.statistics.estimate import Estimate, without_interval
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.metrics._lowest_accuracy import LowestAccuracy


@METRICS.register
class WorstGroupAccuracy(LowestAccuracy):
    """The worst-group accuracy on a split, by default on the main test split."""

    name = "worst_group_accuracy"
    part: ClassVar[str] = "group"
    parts: ClassVar[str] = "groups"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return the column of the main test split, if the confounders are known."""
        if data.main_split is None or not data.confounder_names:
            return []
        return [cls(data.main_split)]

    @staticmethod
    def part_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
        """Return the correctly predicted images and all images of each group."""
        return group_counts(counts)

    @staticmethod
    def part_of_images(predictions: Predictions) -> np.ndarray | None:
        """Return the group of each image; None if its confounder is unknown."""
        if predictions.confounder is None:
            return None
        confounders = int(predictions.confounder.max()) + 1
        return predictions.label * confounders + predictions.confounder

    def parts_of(self, data: DataSummary) -> str:
        """Return what a group consists of."""
        several_labels = "label, present or not, and confounder"
        return f" ({several_labels if data.multi_label else 'label/confounder'})"

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the minimum; no value if the confounders are unknown."""
        if run.run.record is None or not run.run.record.data.confounder_names:
            return without_interval(None, "confounders are unknown, so there are no groups")
        return super().one_trial(run, predictions)

    def _note(self, total: Ints) -> str:
        return "only one group has images" if (total > 0).sum() == 1 else super()._note(total)
