"""Generalisation gap: accuracy on the biased test split minus accuracy on the deceiving one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore, pair_order
from benchmark.report.statistics.credible import paired_gap_posterior, unpaired_gap_posterior
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.statistics.generalization_gap import LIMITS, paired_gap, unpaired_gap
from benchmark.report.statistics.shrinkage import PRIOR_MEAN
from benchmark.report.statistics.stratified_mean import stratified_mean
from benchmark.report.tables.metric import METRICS, Metric, PerImage
from benchmark.report.tables.metrics._accuracy import (
    accuracy_estimate,
    has_patients,
    mean_variance,
)
from benchmark.report.tables.posteriors import Posteriors, single_label_table


@METRICS.register
class GeneralizationGap(Metric):
    """The gap between the two splits that only differ in their bias; it keeps its sign."""

    name = "gap"
    position: ClassVar[int] = 40
    smaller_is_better: ClassVar[bool] = True
    compares_magnitude: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = LIMITS
    # A gap is the difference of two accuracies, which methods change in opposite directions.
    method_sd: ClassVar[float] = 2.0 * PRIOR_MEAN

    def __init__(self, biased: str, deceiving: str) -> None:
        super().__init__((biased, deceiving), ("gap",))

    @classmethod
    def columns(cls, data: DataSummary) -> list[Metric]:
        """Return the column of the biased and the deceiving split, if the data set has them."""
        return [] if data.bias_splits is None else [cls(*data.bias_splits)]

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the paired gap if predictions show the same objects, else the unpaired one."""
        biased, deceiving = self.splits
        if predictions is not None:
            paired = self._paired(run, predictions)
            if paired is not None:
                return paired
        return unpaired_gap(
            accuracy_estimate(run, biased, predictions),
            accuracy_estimate(run, deceiving, predictions),
        )

    def _paired(self, run: SelectedRun, predictions: PredictionStore) -> Estimate | None:
        pairs = self._pairs(run, predictions)
        if pairs is None:
            return None
        before, after, cluster = pairs
        if before.dtype == np.bool_ and cluster is None:
            return paired_gap(_joint_counts(before, after))
        return stratified_mean(before.astype(np.float64) - after, cluster=cluster, limits=LIMITS)

    def _pairs(
        self, run: SelectedRun, predictions: PredictionStore
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
        """Return biased and deceiving correctness and patient of each pair; None without pairs."""
        biased, deceiving = (predictions.get(run, split) for split in self.splits)
        rows = None if biased is None or deceiving is None else pair_order(biased, deceiving)
        if biased is None or deceiving is None or rows is None:
            return None
        cluster = None if biased.cluster is None else biased.cluster[rows[0]]
        return biased.right[rows[0]], deceiving.right[rows[1]], cluster

    def posterior(
        self,
        run: SelectedRun,
        posteriors: Posteriors,
        predictions: PredictionStore | None = None,
    ) -> Estimate | None:
        """Return the posterior of the gap, of pairs if predictions show the same objects."""
        if any(has_patients(run, split, predictions) for split in self.splits):
            return None
        tables = [single_label_table(run, split) for split in self.splits]
        if tables[0] is None or tables[1] is None:
            return None
        pairs = None if predictions is None else self._pairs(run, predictions)
        if pairs is not None:
            before, after, _ = pairs
            return paired_gap_posterior(_joint_counts(before, after))
        return unpaired_gap_posterior(tables[0], tables[1])

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        """Return the variance that the test images give, as if the splits were unpaired."""
        return mean_variance([self.one_trial(run) for run in runs])

    def per_image(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore
    ) -> PerImage | None:
        """Return biased − deceiving correctness of each pair, or ±2 correctness without pairs.

        Without pairs the gap is twice the mean over the two splits as strata, so that both test
        samples and their common trials are counted.
        """
        correct = [predictions.matrix(runs, split) for split in self.splits]
        answers = [predictions.get(runs[0], split) for split in self.splits]
        if correct[0] is None or correct[1] is None or answers[0] is None or answers[1] is None:
            return None
        clusters = [each.cluster for each in answers if each is not None]
        rows = pair_order(answers[0], answers[1])
        if rows is not None:
            difference = correct[0][:, rows[0]] - correct[1][:, rows[1]]
            cluster = clusters[0]
            return PerImage(difference, cluster=None if cluster is None else cluster[rows[0]])
        stratum = np.repeat([0, 1], [correct[0].shape[1], correct[1].shape[1]])
        known = [cluster for cluster in clusters if cluster is not None]
        cluster = np.concatenate(known) if len(known) == 2 else None
        return PerImage(np.concatenate([2 * correct[0], -2 * correct[1]], axis=1), stratum, cluster)

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        """Return the definition, and whether the objects are the same."""
        biased, deceiving = self.splits
        paired = "; both show the same objects" if data.paired else ""
        return f"gap = {biased} − {deceiving}, signed{paired}"


def _joint_counts(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the number of pairs by biased × deceiving correctness, [2, 2]."""
    return np.bincount(2 * before + after, minlength=4).reshape(2, 2)
