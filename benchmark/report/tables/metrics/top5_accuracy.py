"""Top-5 accuracy: the share of images whose label is among the five best predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.estimate import Estimate, without_interval
from benchmark.report.statistics.posterior import accuracy_posterior
from benchmark.report.statistics.stratified_mean import stratified_mean
from benchmark.report.tables.metric import METRICS, Metric, PerImage
from benchmark.report.tables.metrics._accuracy import mean_variance

#: The number of predictions of which one must be right.
BEST = 5
#: Data sets of more classes have the columns without being asked.
MAX_CLASSES = 10


@METRICS.register
class Top5Accuracy(Metric):
    """The top-5 accuracy on a split, from the logits in predictions.npz.

    It has the same intervals as the accuracy.
    """

    name = "top5_accuracy"
    position: ClassVar[int] = 35

    def __init__(self, split: str, main: bool) -> None:
        super().__init__((split,), ("top 5", f"({split})"), (self.name,) if main else ())
        self.name = f"{split}_top5_accuracy"

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return a column for each labelled test split of data with more than 10 classes."""
        return cls.requested_columns(data) if len(data.label_names) > MAX_CLASSES else []

    @classmethod
    def requested_columns(cls, data: DataSummary) -> list[Metric]:
        """Return a column for each labelled test split of data with more than 5 classes."""
        if data.multi_label or len(data.label_names) <= BEST:
            return []
        main = data.main_split
        labelled = [name for name in data.test_splits if name not in data.unlabelled_splits]
        return [cls(split, split == main) for split in sorted(labelled, key=lambda s: s != main)]

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the top-5 accuracy with its posterior, or its sampling sd with clusters."""
        split = self.splits[0]
        right = None if predictions is None else predictions.top_k(run, split, BEST)
        answers = None if predictions is None else predictions.get(run, split)
        if right is None or answers is None or not len(right):
            return without_interval(None, "no usable predictions")
        if answers.cluster is not None:
            mean = stratified_mean(right, cluster=answers.cluster, limits=(0.0, 1.0))
            if mean.sd is not None:
                return mean
        classes = run.at.counts[split].shape[-1]
        return accuracy_posterior(hit_table(answers.label, right, classes))

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        """Return the variance that the test images give; 0 without predictions."""
        return mean_variance([self.one_trial(run) for run in runs])

    def per_image(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore
    ) -> PerImage | None:
        """Return whether the label of each image is among the five best predictions."""
        split = self.splits[0]
        right = [predictions.top_k(run, split, BEST) for run in runs]
        known = [each for each in right if each is not None]
        answers = predictions.get(runs[0], split)
        if len(known) < len(right) or answers is None or predictions.matrix(runs, split) is None:
            return None
        values = np.stack(known).astype(np.float64)
        return PerImage(values, cluster=answers.cluster, is_correctness=True)

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        """Return what is counted, once for all columns."""
        if self.splits[0] != data.main_split:
            return ""
        return f"Top 5: the label is among the {BEST} classes with the largest logits"


def hit_table(label: np.ndarray, right: np.ndarray, classes: int) -> np.ndarray:
    """Return a confusion matrix with the hits of each class on its diagonal, int64[K,K].

    Misses are counted for the next class, which the posterior of the accuracy does not use.

    Args:
        label: int64[N].
        right: Whether each image is a hit, bool[N].
        classes: The number of classes K.
    """
    predicted = np.where(right, label, (label + 1) % classes)
    cells = np.bincount(label * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)
