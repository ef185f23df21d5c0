"""Worst-class accuracy: the lowest recall of a class, for data without groups."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from benchmark.core.counts import Ints, class_counts
from benchmark.core.summaries import DataSummary
from benchmark.report.records.predictions import Predictions
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.metrics._lowest_accuracy import LowestAccuracy


@METRICS.register
class WorstClassAccuracy(LowestAccuracy):
    """The worst-class accuracy on a split, by default on the main test split."""

    name = "worst_class_accuracy"
    part: ClassVar[str] = "class"
    parts: ClassVar[str] = "classes"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return the column of the main test split, if the confounders are unknown."""
        if data.main_split is None or data.confounder_names:
            return []
        return [cls(data.main_split)]

    @staticmethod
    def part_counts(counts: np.ndarray) -> tuple[Ints, Ints]:
        """Return the correctly predicted images and all images of each class."""
        return class_counts(counts)

    @staticmethod
    def part_of_images(predictions: Predictions) -> np.ndarray | None:
        """Return the class of each image."""
        return predictions.label

    def parts_of(self, data: DataSummary) -> str:
        """Return what a class is if images may have several labels."""
        return " (label, present or not)" if data.multi_label else ""
