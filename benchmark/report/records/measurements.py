"""Measured explanations of the selected models, by explainer and trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.layout import State
from benchmark.core.summaries import MeasurementSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.stored_arrays import StoredExplanations, read_explanations
from benchmark.report.records.sweep_records import Sweep, SweepRun
from benchmark.report.statistics.trial_samples import TrialSample


@dataclass(frozen=True)
class TrialMeasurement:
    """The measurement of one explainer of the selected model of one trial.

    Attributes:
        trial: Number of the trial.
        run: The run that measured.
        summary: Its results.
        splits: Values of each image by split.
        seconds: Seconds of single explanations, float64[T].
    """

    trial: int
    run: SweepRun
    summary: MeasurementSummary
    splits: dict[str, StoredExplanations]
    seconds: np.ndarray


@dataclass
class MeasuredExplainer:
    """An explainer of one method.

    Attributes:
        name: The explainer as the sweep file writes it.
        trials: Its measurements.
        problems: Why measurements are missing, one sentence each.
    """

    name: str
    trials: list[TrialMeasurement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, tuple[str, bool | None]]:
        """Title and direction of every metric by name."""
        return {
            name: (metric.title, metric.higher_is_better)
            for one in self.trials
            for name, metric in one.summary.metrics.items()
        }

    @property
    def splits(self) -> list[str]:
        """The measured splits."""
        return list(dict.fromkeys(split for one in self.trials for split in one.splits))

    def digests(self, split: str) -> list[str]:
        """Return the digest of the images of each trial."""
        return [one.summary.splits[split].digest for one in self.trials if split in one.splits]

    def images(self, split: str) -> list[int]:
        """Return the number of explained images of each trial."""
        return [one.summary.splits[split].images for one in self.trials if split in one.splits]

    def sample(self, split: str, metric: str, trials: Sequence[int]) -> TrialSample | None:
        """Return the values of a metric in the given trials; None unless all of them have it.

        The time of an explanation has a single value in each trial, its mean.
        """
        mine = {one.trial: one for one in self.trials}
        chosen = [mine[trial] for trial in trials if trial in mine]
        if len(chosen) < len(trials) or not chosen:
            return None
        if all(metric in one.summary.metrics for one in chosen) and all(
            metric not in one.splits[split].values for one in chosen if split in one.splits
        ):
            if not all(len(one.seconds) for one in chosen):
                return None
            return TrialSample(tuple(np.array([one.seconds.mean()]) for one in chosen), False)
        rows = [one.splits[split] for one in chosen if split in one.splits]
        if len(rows) < len(chosen) or not all(metric in row.values for row in rows):
            return None
        digests = {one.summary.splits[split].digest for one in chosen}
        clusters = [row.cluster for row in rows]
        known = tuple(cluster for cluster in clusters if cluster is not None)
        return TrialSample(
            tuple(row.values[metric] for row in rows),
            len(digests) == 1,
            known if len(known) == len(rows) else None,
        )


class MeasurementStore:
    """The measurements of a sweep, each read once.

    Args:
        sweep: The sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._by_model: dict[str, list[SweepRun]] = {}
        for run in sweep.measurements:
            if run.spec is not None and "model" in run.spec.upstream:
                self._by_model.setdefault(run.spec.upstream["model"], []).append(run)
        self._order = list(dict.fromkeys(run.explainer for run in sweep.measurements))
        self._trained = {run.key: run for run in sweep.explainer_runs}
        self._read: dict[str, TrialMeasurement | str] = {}

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def explainers(self, selected_runs: Sequence[SelectedRun]) -> list[MeasuredExplainer]:
        """Return the explainers of the selected models of a method, in the order of the sweep."""
        found: dict[str, MeasuredExplainer] = {}
        for selected_run in selected_runs:
            for run in self._by_model.get(selected_run.run.key, []):
                explainer = found.setdefault(run.explainer, MeasuredExplainer(run.explainer))
                measured = self._measurement(run, selected_run.trial)
                if isinstance(measured, TrialMeasurement):
                    explainer.trials.append(measured)
                else:
                    explainer.problems.append(measured)
        return sorted(found.values(), key=lambda explainer: self._order.index(explainer.name))

    def useless_trials(self, explainer: MeasuredExplainer) -> list[int]:
        """Return the trials in which a trained explainer is no better than a constant map."""
        found = []
        for one in explainer.trials:
            key = one.run.spec.upstream.get("explainer", "") if one.run.spec else ""
            run = self._trained.get(key)
            if run is not None and run.record is not None:
                better = run.record.extra.get("better_than_constant")
                found += [one.trial] if better is False else []
        return found

    def _measurement(self, run: SweepRun, trial: int) -> TrialMeasurement | str:
        """Return the measurement of a run, or why there is none."""
        if run.key not in self._read:
            self._read[run.key] = _read(run, trial)
        return self._read[run.key]


def _read(run: SweepRun, trial: int) -> TrialMeasurement | str:
    if run.state != State.DONE or run.record is None or run.record.measurement is None:
        return f"trial {trial} {run.state}{f': {run.reason}' if run.reason else ''}"
    summary = run.record.measurement
    if summary.note:
        return summary.note
    try:
        splits, seconds = read_explanations(run)
    except FileNotFoundError:
        return f"trial {trial} has no {run.folder.explanations.name}"
    except (OSError, DamagedError) as error:
        return f"trial {trial}: {str(error).removesuffix('.')}"
    return TrialMeasurement(trial, run, summary, splits, seconds)
