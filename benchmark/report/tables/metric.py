"""The metric: one column of the result tables, with everything that the report knows about it.

To add a metric, write a subclass of ``Metric`` in a module of its own in
``benchmark/report/tables/metrics`` and decorate it with ``METRICS.register``. A package of your own
declares its module under the entry-point group ``shortcutbed.metrics`` instead. The metric then
appears in every format, in comparisons with a reference, and with a mark at the best of its
column::

    @METRICS.register
    class ErrorRate(Metric):
        name = "error_rate"
        smaller_is_better = True

        @classmethod
        def columns(cls, data: DataSummary) -> list[Metric]:
            return [cls(("test",), title=("error", "(test)"))]

        def one_trial(self, run, predictions=None):
            correct, total = correct_and_total(run.at.counts["test"])
            return without_interval(1 - correct / total)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from benchmark.core.errors import UserError, shown
from benchmark.core.registry import Registry, did_you_mean
from benchmark.core.summaries import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.estimate import Estimate, clipped
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.statistics.shrinkage import PRIOR_MEAN
from benchmark.report.statistics.stratified_mean import crossed_variance
from benchmark.report.statistics.worst_group import GroupAccuracy
from benchmark.report.tables.value import Value

if TYPE_CHECKING:
    from benchmark.report.tables.posteriors import Posteriors

#: How an interval was made if the trials do not share their test images.
OWN_IMAGES = "t over trials, each with test images of its own"
#: How an interval was made if they may share them, but the images cannot be compared. It is exact
#: if all trials err on the same images, and too wide otherwise; counts alone do not tell.
SAMPLED_IMAGES = "bounds by t over trials and sampling of the test images"


@dataclass(frozen=True)
class PerImage:
    """Values of images in each trial, whose mean (over strata, if there are any) is a metric.

    Attributes:
        values: float[S, n].
        stratum: int[n], or None for the plain mean.
        cluster: int[n] number of each image's patient, or None for independent images.
        is_correctness: Whether each value says if an answer is correct (1) or wrong (0).
    """

    values: np.ndarray
    stratum: np.ndarray | None = None
    cluster: np.ndarray | None = None
    is_correctness: bool = False


class Metric(ABC):
    """A number of a trained model, a fraction, on one or two splits.

    Subclasses set the class attributes, and implement ``columns`` and ``one_trial``. The other
    methods improve what the report can say: ``per_image`` gives intervals that count test images as
    well as trials, and paired comparisons; ``caption`` explains the column.

    Attributes:
        name: Name in CSV and JSON. It names the class in the registry; an instance may have a more
            specific one.
        position: Order of the columns of a table, the smallest first.
        smaller_is_better: Direction of comparisons.
        compares_magnitude: Whether models are compared by the absolute value, so that the sign only
            says in which direction a model errs.
        limits: Range of the metric; intervals are kept inside.
        continues_caption: Whether ``caption`` continues the sentence of the previous column.
        shows_bounds: Whether tables print the bounds in any case, see ``Value.shows_bounds``.
        sampling_kind: Caption text about the standard error from ``sampling_variance``.
        method_sd: Standard deviation between methods that the prior of P(better) expects, see
            ``benchmark.report.statistics.shrinkage``.
        splits: What the instance is computed on.
        title: One or two short lines.
        aliases: Further names of the same number in CSV and JSON.
    """

    name: str = ""
    position: ClassVar[int] = 100
    smaller_is_better: ClassVar[bool] = False
    compares_magnitude: ClassVar[bool] = False
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    continues_caption: ClassVar[bool] = False
    shows_bounds: ClassVar[bool] = False
    sampling_kind: ClassVar[str] = "sampling of the test images"
    method_sd: ClassVar[float] = PRIOR_MEAN

    def __init__(
        self, splits: tuple[str, ...], title: tuple[str, ...], aliases: tuple[str, ...] = ()
    ) -> None:
        self.splits = splits
        self.title = title
        self.aliases = aliases

    @classmethod
    @abstractmethod
    def columns(cls, data: DataSummary) -> Sequence[Metric]:
        """Return the metric's columns of a data set; none if it does not apply."""

    @classmethod
    def requested_columns(cls, data: DataSummary) -> Sequence[Metric]:
        """Return the columns if the user asks for the metric by ``--columns``.

        A metric that is shown for some data sets only overrides it to appear in others too.
        """
        return cls.columns(data)

    @abstractmethod
    def one_trial(self, run: SelectedRun, predictions: PredictionStore | None = None) -> Estimate:
        """Return the value of one trial with the uncertainty of its test sample.

        Args:
            run: A selected run that has counts of all ``splits``.
            predictions: Its predictions image by image; None computes without them.
        """

    def over_trials(
        self,
        runs: Sequence[SelectedRun],
        values: Sequence[float],
        predictions: PredictionStore | None = None,
    ) -> Estimate:
        """Return the mean of several trials with its uncertainty.

        The interval counts trials and test images. It is crossed if ``per_image`` knows the images
        and all trials share them. If the images are unknown they may be the same ones, and the
        uncertainty of ``one_trial`` is added to Student's t over trials.

        Args:
            runs: The selected run of each trial.
            values: The value of each trial.
            predictions: The runs' predictions of each image; None computes without them.
        """
        table = None if predictions is None else self.per_image(runs, predictions)
        if table is None:
            own = predictions is not None and self._have_own_images(runs, predictions)
            kind = OWN_IMAGES if own else SAMPLED_IMAGES
            sampling = 0.0 if own else self.sampling_variance(runs)
            return student_over_trials(values, kind, self.limits, sampling)
        estimate = student_over_trials(values, "", self.limits)
        crossed = crossed_variance(table.values, table.stratum, table.cluster)
        if crossed.low is None or crossed.high is None:
            return replace(estimate, low=None, high=None, kind=crossed.kind, note=crossed.note)
        low, high = clipped(crossed.low, crossed.high, self.limits)
        return replace(estimate, low=low, high=high, kind=crossed.kind, note=crossed.note)

    def _have_own_images(self, runs: Sequence[SelectedRun], predictions: PredictionStore) -> bool:
        """Return whether the predictions show that trials have different test images."""
        return all(
            predictions.get(run, split) is not None for run in runs for split in self.splits
        ) and any(predictions.matrix(runs, split) is None for split in self.splits)

    def per_image(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore
    ) -> PerImage | None:
        """Return the values of images whose mean is the metric.

        None, the default, is right for a metric that is no mean over images, if predictions are
        missing, and if the trials do not share their test images.
        """
        return None

    def sampling_variance(self, runs: Sequence[SelectedRun]) -> float:
        """Return the variance of the mean over trials that the spread of trials does not contain.

        It is used without ``per_image``, and may be larger than the true one.
        """
        return 0.0

    def part_accuracy(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore | None = None
    ) -> GroupAccuracy | None:
        """Return the accuracy of the parts whose lowest accuracy the metric is.

        None, the default, is right for a metric that is no such minimum.
        """
        return None

    def posterior(
        self,
        run: SelectedRun,
        posteriors: Posteriors,
        predictions: PredictionStore | None = None,
    ) -> Estimate | None:
        """Return posterior mean, standard deviation and credible interval of one trial.

        None, the default, is right for a metric whose posterior is not defined.

        Args:
            run: A selected run that has counts of all ``splits``.
            posteriors: Posteriors of confusion matrices.
            predictions: Its predictions image by image; None computes without them.
        """
        return None

    def caption(
        self, runs: Sequence[SelectedRun], data: DataSummary, *, several_trials: bool
    ) -> str:
        """Return a clause that explains the column, without a full stop; empty for none.

        Args:
            runs: The selected runs of the table.
            data: Their data set.
            several_trials: Whether a value of the table is a mean over trials.
        """
        return ""

    def comparable(self, value: float) -> float:
        """Return the number by which models are compared."""
        return abs(value) if self.compares_magnitude else value

    def value(
        self, runs: Sequence[SelectedRun], predictions: PredictionStore | None = None
    ) -> Value:
        """Return the value over the trials that have it.

        Args:
            runs: The selected run of each trial.
            predictions: The runs' predictions image by image; None computes without them.
        """
        counted = [run for run in runs if all(split in run.at.counts for split in self.splits)]
        estimates = {run.trial: self._checked(self.one_trial(run, predictions)) for run in counted}
        values = {trial: e.value for trial, e in estimates.items() if e.value is not None}
        notes = list(dict.fromkeys(e.note for e in estimates.values() if _concerns_value(e)))
        if len(counted) < len(runs):
            missing = f"{len(runs) - len(counted)} of {len(runs)} trials"
            notes.append(f"no counts of {' and '.join(self.splits)} in {missing}")
        if not values:
            return Value(notes=tuple(notes))
        if len(values) == 1:
            estimate = estimates[next(iter(values))]
            return Value(estimate, values, tuple(notes), shows_bounds=self.shows_bounds)
        chosen = [run for run in counted if run.trial in values]
        estimate = self.over_trials(chosen, list(values.values()), predictions)
        return Value(estimate, values, tuple(notes), shows_bounds=self.shows_bounds)

    def _checked(self, estimate: object) -> Estimate:
        """Return what ``one_trial`` returned if it is an estimate.

        Raises:
            UserError: If it is not, as in a metric of another package.
        """
        if not isinstance(estimate, Estimate):
            raise UserError(
                f"one_trial of the metric {self.name} returned {shown(estimate)}, expected an "
                "Estimate; return without_interval(value) for a number without an interval."
            )
        return estimate


METRICS: Registry[type[Metric]] = Registry(
    "metric",
    "benchmark.report.tables.metrics",
    "shortcutbed.metrics",
    "benchmark.report.tables.metric:Metric",
)


def columns_of(data: DataSummary, requested: Collection[str] = ()) -> list[Metric]:
    """Return the columns of a data set's table in their order; none without a test split.

    Args:
        data: The data set.
        requested: Names of metrics, columns or splits that the user asks for. One with a plus sign
            is shown besides the default columns; without such signs, the others are left out.

    Raises:
        UserError: If a metric does not return its columns, as one of another package might.
    """
    if not data.test_splits:
        return []
    added = {name.removeprefix("+") for name in requested}
    chosen = [name for name in requested if not name.startswith("+")]
    classes = sorted(map(METRICS.get, METRICS.names()), key=lambda metric: metric.position)
    columns = [
        (column, metric.name)
        for metric in classes
        for column in _asked_columns(metric, data, added)
    ]
    if not chosen:
        return [column for column, _ in columns]
    wanted = [*chosen, *(added - set(chosen))]
    found = [
        column
        for name in wanted
        for column, metric in columns
        if name in {column.name, metric, *column.aliases} or (name,) == column.splits
    ]
    return list(dict.fromkeys(found))


def _asked_columns(
    metric: type[Metric], data: DataSummary, asked: Collection[str]
) -> Sequence[Metric]:
    """Return the columns of one metric, more of them if its name or theirs is asked for."""
    columns = _columns_of(metric, data, requested=False)
    if not asked:
        return columns
    more = _columns_of(metric, data, requested=True)
    names = {metric.name, *(column.name for column in more)}
    return more if names & set(asked) else columns


def check_columns(names: Collection[str], tables: Collection[Collection[Metric]]) -> None:
    """Check that every requested name is that of a metric, a column or a split.

    Args:
        names: What the user asks for.
        tables: The columns of each table.

    Raises:
        UserError: If one is not.
    """
    columns = [column for table in tables for column in table]
    known = {*METRICS.names(), *(column.name for column in columns)}
    known |= {split for column in columns for split in column.splits}
    known |= {alias for column in columns for alias in column.aliases}
    for name in names:
        if name.removeprefix("+") not in known:
            raise UserError(f"unknown metric {name!r}{did_you_mean(name, known)}")


def _columns_of(metric: type[Metric], data: DataSummary, *, requested: bool) -> Sequence[Metric]:
    """Return the columns of one metric; see ``columns_of``."""
    missing = sorted(getattr(metric, "__abstractmethods__", ()))
    if missing:
        raise UserError(
            f"the metric {metric.name} does not implement {' and '.join(missing)}; "
            "docs/adding_a_metric.md has an example."
        )
    columns = metric.requested_columns(data) if requested else metric.columns(data)
    if not isinstance(columns, Sequence) or not all(isinstance(c, Metric) for c in columns):
        raise UserError(
            f"columns of the metric {metric.name} returned {shown(columns)}, expected a list of "
            "metrics; return [] if the metric does not apply to a data set."
        )
    return columns


def _concerns_value(estimate: Estimate) -> bool:
    """Return whether a note is about the value and not only about its interval."""
    return bool(estimate.note) and (
        estimate.value is None or not estimate.note.startswith("no interval")
    )
