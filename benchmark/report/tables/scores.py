"""Scores of selected runs on one split, each computed once, and their means over trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import confusion_matrix, is_multi_label
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.calibration import calibration_estimate
from benchmark.report.statistics.delong import auc_contributions, auc_of_labels, auc_one_vs_rest
from benchmark.report.statistics.delta_method import Contributions, score_contributions
from benchmark.report.statistics.estimate import (
    NO_ESTIMATE,
    Estimate,
    without_interval,
)
from benchmark.report.statistics.multilabel import macro_scores
from benchmark.report.statistics.over_trials import crossed_over_trials, mean_over_trials
from benchmark.report.statistics.plug_in import overall, per_class
from benchmark.report.statistics.posterior import ConfusionPosterior
from benchmark.report.tables.numbers import shows_bounds
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.value import Spread

OVERALL_TITLES = {
    "balanced_accuracy": ("balanced", "accuracy"),
    "macro_precision": ("macro", "precision"),
    "macro_specificity": ("macro", "specificity"),
    "macro_f1": ("macro", "F1"),
}
PER_CLASS_TITLES = {
    "recall": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
}


@dataclass(frozen=True)
class _FromScores:
    """Measures that follow from the scores of one run.

    Attributes:
        areas: AUC of each class against the rest.
        mean_area: Their mean.
        calibration: Calibration error.
    """

    areas: tuple[Estimate, ...]
    mean_area: Estimate
    calibration: Estimate


_NO_SCORES = _FromScores((), without_interval(None, "no usable predictions"), NO_ESTIMATE)


class Scores:
    """The costly scores of selected runs on one split, each computed once.

    Args:
        split: Where everything is measured.
        store: Predictions of the selected runs.
        posteriors: Posteriors of confusion matrices.
        spread: What is printed beside a score. For ``credible`` the scores of a single run are
            posterior means with credible intervals where they have a posterior.
    """

    def __init__(
        self,
        split: str,
        store: PredictionStore,
        posteriors: Posteriors | None = None,
        spread: str = Spread.SD,
    ) -> None:
        self.split = split
        self.store = store
        self.posteriors = Posteriors() if posteriors is None else posteriors
        self.spread = spread
        self.intervals = shows_bounds(spread)
        self._macro: dict[str, dict[str, Estimate]] = {}
        self._from_scores: dict[str, _FromScores] = {}
        self._contributions: dict[str, dict[str, Contributions]] = {}

    def overall(self, selected_runs: Sequence[SelectedRun], name: str) -> list[Estimate]:
        """Return one of ``OVERALL_TITLES`` for each run.

        A single run's has its posterior sd, or its sampling sd if images have several labels.
        """
        uncertain = self._needs_own_uncertainty(selected_runs)
        if self._is_credible(selected_runs):
            run = selected_runs[0]
            posterior = None if self._has_several_labels(run) else self._posterior(run)
            if posterior is not None:
                return [posterior.credible(name)]
        return [self._overall(run, name, uncertain=uncertain) for run in selected_runs]

    def _overall(self, selected_run: SelectedRun, name: str, *, uncertain: bool) -> Estimate:
        counts = selected_run.at.counts[self.split]
        if uncertain and is_multi_label(counts):
            if found := self._of_labels(selected_run):
                return found[name]
        elif uncertain and (posterior := self._posterior(selected_run)) is not None:
            return getattr(posterior, name)  # type: ignore[no-any-return]
        return without_interval(overall(counts).get(name))

    def per_class(self, selected_runs: Sequence[SelectedRun], name: str, k: int) -> list[Estimate]:
        """Return one of ``PER_CLASS_TITLES`` for each run.

        Args:
            selected_runs: The run of each trial.
            name: Name of the score.
            k: The class; if images have several labels, the label that is present.
        """
        uncertain = self._needs_own_uncertainty(selected_runs)
        if self._is_credible(selected_runs):
            several = self._has_several_labels(selected_runs[0])
            posterior = self._posterior(selected_runs[0], k if several else None)
            if posterior is not None:
                return [posterior.credible(name, 1 if several else k)]
        return [self._per_class(run, name, k, uncertain=uncertain) for run in selected_runs]

    def _per_class(
        self, selected_run: SelectedRun, name: str, k: int, *, uncertain: bool
    ) -> Estimate:
        counts = selected_run.at.counts[self.split]
        several = is_multi_label(counts)
        posterior = self._posterior(selected_run, k if several else None) if uncertain else None
        if posterior is not None:
            return getattr(posterior, name)[1 if several else k]  # type: ignore[no-any-return]
        return without_interval(per_class(counts)[name][k])

    def auc(self, selected_run: SelectedRun, k: int | None = None) -> Estimate:
        """Return the AUC of class ``k`` against the rest, or the mean over classes."""
        found = self._scored(selected_run)
        if k is None:
            return found.mean_area
        return found.areas[k] if k < len(found.areas) else NO_ESTIMATE

    def calibration(self, selected_run: SelectedRun) -> Estimate:
        """Return the calibration error."""
        return self._scored(selected_run).calibration

    def over_trials(
        self, selected_runs: Sequence[SelectedRun], name: str, estimates: Sequence[Estimate]
    ) -> Estimate:
        """Return the mean over trials, with an interval if intervals are printed.

        The interval is crossed if predictions show the same images in all trials.

        Args:
            selected_runs: The run of each trial.
            name: Name of the score in ``_contributions_of``.
            estimates: The score of each run.
        """
        if not self.intervals or not self._share_images(selected_runs):
            return mean_over_trials(estimates)
        pairs = zip(selected_runs, estimates, strict=True)
        known = [(run, estimate) for run, estimate in pairs if estimate.value is not None]
        found = [self._contributions_of(run).get(name) for run, _ in known]
        contributions = [one for one in found if one is not None]
        if len(known) < 2 or len(contributions) < len(known):
            return mean_over_trials(estimates)
        estimates = [estimate for _, estimate in known]
        first = self.store.get(selected_runs[0], self.split)
        cluster = None if first is None else first.cluster
        on_logit_scale = name.startswith("auc")
        return crossed_over_trials(estimates, contributions, cluster, on_logit_scale=on_logit_scale)

    def _needs_own_uncertainty(self, selected_runs: Sequence[SelectedRun]) -> bool:
        """Return whether the interval is made from the uncertainty of each run."""
        if len(selected_runs) == 1:
            return True
        several_labels = any(self._has_several_labels(run) for run in selected_runs)
        return self.intervals and (several_labels or not self._share_images(selected_runs))

    def _is_credible(self, selected_runs: Sequence[SelectedRun]) -> bool:
        """Return whether posteriors are printed; the model is that of a single network."""
        return self.spread == Spread.CREDIBLE and len(selected_runs) == 1

    def _has_several_labels(self, selected_run: SelectedRun) -> bool:
        return is_multi_label(selected_run.at.counts[self.split])

    def _share_images(self, selected_runs: Sequence[SelectedRun]) -> bool:
        """Return whether there are several runs, and predictions show that their images agree."""
        if len(selected_runs) < 2:
            return False
        return self.store.matrix(selected_runs, self.split) is not None

    def how(self) -> str:
        """Return a sentence on the Monte Carlo behind the posterior sds; empty if none was made."""
        described = self.posteriors.describe(self.split)
        if not described and self.posteriors.engine == "nuts":
            return "NUTS was not needed: every row has several trials."
        return described

    def _posterior(
        self, selected_run: SelectedRun, k: int | None = None
    ) -> ConfusionPosterior | None:
        return self.posteriors.of(selected_run, self.split, k)

    def _of_labels(self, selected_run: SelectedRun) -> dict[str, Estimate]:
        """Return the macro scores of several labels; nothing without usable predictions."""
        key = selected_run.run.key
        if key not in self._macro:
            scores = self.store.scores(selected_run, self.split)
            predictions = self.store.get(selected_run, self.split)
            self._macro[key] = {}
            if scores is not None and predictions is not None:
                label, logits = scores
                self._macro[key] = macro_scores(label == 1, logits > 0, predictions.cluster)
        return self._macro[key]

    def _scored(self, selected_run: SelectedRun) -> _FromScores:
        key = selected_run.run.key
        if key not in self._from_scores:
            found = self.store.scores(selected_run, self.split)
            self._from_scores[key] = _NO_SCORES
            if found is not None:
                label, logits = found
                areas = (auc_of_labels if label.ndim == 2 else auc_one_vs_rest)(label, logits)
                calibration, _ = calibration_estimate(label, logits)
                self._from_scores[key] = _FromScores(*areas, calibration)
        return self._from_scores[key]

    def _contributions_of(self, selected_run: SelectedRun) -> dict[str, Contributions]:
        """Return what images contribute to each score.

        Names are those of ``OVERALL_TITLES``, ``auc`` and ``calibration``, and for each class
        ``recall 0``, …, ``auc 0``, ….
        """
        key = selected_run.run.key
        if key not in self._contributions:
            self._contributions[key] = {}
            found = self.store.scores(selected_run, self.split)
            if found is not None:
                counts = selected_run.at.counts[self.split]
                self._contributions[key] = _contributions(*found, counts)
        return self._contributions[key]


def _contributions(
    label: np.ndarray, logits: np.ndarray, counts: np.ndarray
) -> dict[str, Contributions]:
    found = {"calibration": calibration_estimate(label, logits)[1]}
    areas, mean = auc_contributions(label, logits)
    if mean is not None:
        found["auc"] = mean
    found |= {f"auc {k}": area for k, area in enumerate(areas) if area is not None}
    if label.ndim == 1 and logits.shape[1] > 1:
        table = confusion_matrix(counts)
        for name, each in score_contributions(table, label, logits.argmax(1)).items():
            if name in OVERALL_TITLES:
                found[name] = each[0]
            elif name in PER_CLASS_TITLES:
                found |= {f"{name} {k}": one for k, one in enumerate(each)}
    return {name: one for name, one in found.items() if np.isfinite(one.values).all()}
