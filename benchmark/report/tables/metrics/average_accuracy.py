"""Average accuracy: the share of all answers on the main test split that are correct."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.metrics._accuracy import SplitMetric


@METRICS.register
class AverageAccuracy(SplitMetric):
    """The accuracy on a split, by default on the main test split."""

    name = "average_accuracy"
    position: ClassVar[int] = 10

    def __init__(self, split: str) -> None:
        super().__init__((split,), ("average", f"({split})"), (f"{split}_accuracy",))

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return the column of the main test split."""
        return [] if data.main_split is None else [cls(data.main_split)]

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        """Return what is averaged."""
        answers = "answers, one per image and label," if data.multi_label else "images"
        return f"Average: all {answers} of split {self.splits[0]}"
