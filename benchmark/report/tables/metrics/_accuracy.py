"""Accuracy on one split: what several metrics share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from benchmark.core.counts import accuracy, confusion_matrix, is_multi_label
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import Predictions, PredictionStore
from benchmark.report.statistics.estimate import Estimate, finite_or_none, without_interval
from benchmark.report.statistics.posterior import accuracy_posterior
from benchmark.report.statistics.stratified_mean import stratified_mean
from benchmark.report.tables.metric import Metric, PerImage
from benchmark.report.tables.posteriors import Posteriors


class SplitMetric(Metric):
    """The accuracy on a single split; a mean over its images."""

    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the accuracy with its posterior or, of dependent answers, its sampling sd."""
        return accuracy_estimate(run, self.splits[0], predictions)

    def posterior(
        self,
        run: SelectedRun,
        posteriors: Posteriors,
        predictions: PredictionStore | None = None,
    ) -> Estimate | None:
        """Return the posterior of the accuracy; None for dependent answers."""
        split = self.splits[0]
        if has_patients(run, split, predictions):
            return None
        return posteriors.accuracy(run, split)

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        """Return the variance that the test images give, which trials on the same images share."""
        return mean_variance([self.one_trial(run) for run in runs])

    def per_image(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore
    ) -> PerImage | None:
        """Return the correctness of each image."""
        split = self.splits[0]
        correct = predictions.matrix(runs, split)
        answers = predictions.get(runs[0], split)
        if correct is None or answers is None:
            return None
        return PerImage(correct, cluster=answers.cluster, is_correctness=True)


def has_patients(run: SelectedRun, split: str, predictions: PredictionStore | None) -> bool:
    """Return whether the images of a split are known to belong to patients."""
    answers = None if predictions is None else predictions.get(run, split)
    return answers is not None and answers.cluster is not None


def mean_variance(estimates: Sequence[Estimate]) -> float:
    """Return the mean of the variances behind the intervals; 0 if none has one."""
    known = [estimate.interval_sd for estimate in estimates if estimate.interval_sd is not None]
    return statistics.fmean(sd**2 for sd in known) if known else 0.0


def accuracy_estimate(
    run: SelectedRun, split: str, predictions: PredictionStore | None = None
) -> Estimate:
    """Return the accuracy of a chosen run on a split."""
    answers = None if predictions is None else predictions.get(run, split)
    return _estimate(run.at.counts[split], answers)


def _estimate(counts: np.ndarray, answers: Predictions | None) -> Estimate:
    value = finite_or_none(accuracy(counts))
    if value is None:
        return without_interval(None, "the split has no images")
    several_labels = is_multi_label(counts)
    # The answers of a patient, and those of an image with several labels, are not independent.
    if answers is not None and (answers.cluster is not None or several_labels):
        mean = stratified_mean(answers.right, cluster=answers.cluster, limits=(0.0, 1.0))
        if mean.sd is not None or several_labels:
            return mean
    if several_labels:
        return without_interval(value, "no interval: the answers of each image are not known")
    table = confusion_matrix(counts)
    if len(table) < 2:
        return without_interval(value, "one class only: every prediction is right")
    return accuracy_posterior(table)
