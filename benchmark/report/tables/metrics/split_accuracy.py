"""Accuracy on each test split other than the main one."""

from __future__ import annotations

from typing import ClassVar

from benchmark.core.summaries import DataSummary
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.metrics._accuracy import SplitMetric


@METRICS.register
class SplitAccuracy(SplitMetric):
    """The accuracy on a split, named after it."""

    name = "split_accuracy"
    position: ClassVar[int] = 30

    def __init__(self, split: str) -> None:
        super().__init__((split,), (split,))
        self.name = f"{split}_accuracy"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return a column for each labelled test split except the main one, in table order."""
        omitted = {data.main_split, *data.unlabelled_splits}
        return [cls(split) for split in data.test_splits if split not in omitted]
