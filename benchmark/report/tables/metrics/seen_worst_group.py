"""Worst-group accuracy on training and validation images, a column on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.worst_group import GroupAccuracy
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.metrics.worst_group_accuracy import WorstGroupAccuracy


@METRICS.register
class SeenWorstGroupAccuracy(WorstGroupAccuracy):
    """The worst-group accuracy on the images of training or validation, as in eX2L's table 3.

    Training images are evaluated if the sweep file has ``evaluate_train = true``. Only their counts
    are recorded, so that predictions of single images are not used.
    """

    name = "seen_worst_group"
    position: ClassVar[int] = 25

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.name = f"{'validation' if split == 'val' else split}_worst_group_accuracy"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return no column: it is shown on request only."""
        return []

    @classmethod
    def requested_columns(cls, data: DataSummary) -> list[Metric]:
        """Return the columns of training and validation, if the confounders are known."""
        return [cls("train"), cls("val")] if data.confounder_names else []

    def part_accuracy(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore | None = None
    ) -> GroupAccuracy | None:
        """Return the accuracy of the groups from the counts."""
        return super().part_accuracy(runs)
