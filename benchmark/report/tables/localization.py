"""Localization of relevance in the foreground, and the heatmaps of the gallery."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.spec import PREDICTION
from benchmark.core.summaries import ExplanationSummary
from benchmark.report.records.measurements import MeasuredExplainer, MeasurementStore
from benchmark.report.records.stored_arrays import StoredHeatmaps, read_heatmaps
from benchmark.report.statistics.over_trials import student_over_trials
from benchmark.report.tables.numbers import DASH, shows_bounds
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet
from benchmark.report.tables.value import Spread

#: Measures: name, title of the column, factor and number of decimals.
_MEASURES = (
    ("energy", "foreground %", 100, 1),
    ("correlation", "correlation", 1, 2),
    ("on_shortcut", "shortcut %", 100, 1),
    ("distance", "distance", 1, 2),
)
#: Ranges of these measures, inside which intervals are kept.
_LIMITS = {
    "energy": (0.0, 1.0),
    "correlation": (-1.0, 1.0),
    "on_shortcut": (0.0, 1.0),
    "distance": (0.0, math.inf),
}
#: Measures of the foreground, which say nothing where it is everything except the shortcut.
_OF_FOREGROUND = ("energy", "correlation")
#: Images that do not count, by the name of their number in the record.
_PROBLEMS = {
    "zero_maps": "maps are zero everywhere",
    "nonfinite_maps": "maps are not finite",
    "empty_masks": "images have no foreground",
}


@dataclass(frozen=True)
class MethodHeatmaps:
    """Heatmaps of one method for the images of the gallery.

    Attributes:
        method: Label of the method.
        explainer: Name of the explainer.
        heatmap: float32[G,H,W].
        prediction: Predicted class, which is explained, int64[G].
    """

    method: str
    explainer: str
    heatmap: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """Images, and the heatmaps of every method for them.

    Attributes:
        trial: Number of the trial.
        split: Split of each image.
        image: uint8[G,C,H,W].
        mask: bool[G,H,W], True in the foreground.
        label: int64[G], or int64[G,K] of 0 and 1.
        label_names: Names of the labels.
        methods: Heatmaps of each method.
        notes: Methods that are not shown, with reasons.
    """

    trial: int
    split: list[str]
    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    label_names: Sequence[str]
    methods: list[MethodHeatmaps]
    notes: list[str]


@REPORT_TABLES.register
class LocalizationTable(ReportTable):
    """Share of relevance in the foreground."""

    name = "localization"
    position = 40

    def sheets(self, report: Report) -> list[Sheet]:
        """Return one sheet for each data set with explanations."""
        made = [localization_sheet(table, report.spread) for table in report.shown_tables]
        return [sheet for sheet in made if sheet is not None]


def localization_sheet(table: Table, spread: str = Spread.SD) -> Sheet | None:
    """Return relevance in the foreground, correlation with the mask, and distance from the teacher.

    Args:
        table: The results.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.
    """
    rows = [row for row in table.rows if _summaries(row)]
    records = [w.run.record for row in rows for w in row.selected_runs if w.run.record]
    explained = [record for record in records if record.explanations is not None]
    if not explained:
        return None
    columns = [
        (split, *measure)
        for split in explained[0].data.test_splits
        for measure in (*_MEASURES, *_further_metrics(rows))
        if any(_values(row, split, measure[0]) for row in rows)
        and not (measure[0] in _OF_FOREGROUND and _foreground_is_rest(rows, split))
    ]
    if not columns and not any(s.note for row in rows for s in _summaries(row)):
        return None  # no test split has masks
    heads: list[Sequence[str]] = [
        ("method",),
        ("explained by",),
        *((split, title) for split, _, title, _, _ in columns),
    ]
    shown = [
        [row.marked_label, table.titles.of(_explainers(row))]
        + [
            _summary(
                _values(row, split, name),
                scale,
                digits,
                spread,
                _LIMITS.get(name, (-math.inf, math.inf)),
            )
            for split, name, _, scale, digits in columns
        ]
        for row in rows
    ]
    beside = {
        Spread.INTERVAL: "mean and 95 % interval over trials for these images",
        Spread.CREDIBLE: "mean ± sd and 95 % interval over trials for these images, since "
        "credible intervals are defined for confusion counts only",
    }.get(Spread(spread), "mean ± sd over trials")
    caption = [
        *_meanings(rows, columns),
        f"Means over up to 512 images of heatmaps of the predicted class; {beside}.",
    ]
    if any(name == "distance" for _, name, *_ in columns):
        caption.append(
            "Distance: that of TEA from the teacher's heatmap of the same class; "
            "0 if both are equal."
        )
    return Sheet(
        f"{table.title}, where the networks look",
        caption,
        heads,
        shown,
        stub=2,
        notes=_notes(table, rows),
    )


def _summaries(row: Row) -> list[ExplanationSummary]:
    """Return the summaries of explanations of the selected runs that have one."""
    records = [selected_run.run.record for selected_run in row.selected_runs]
    summaries = [record.explanations for record in records if record is not None]
    return [summary for summary in summaries if summary is not None]


def _further_metrics(rows: Sequence[Row]) -> list[tuple[str, str, int, int]]:
    """Return a column for each recorded metric that is not in ``_MEASURES``."""
    names = {
        name
        for row in rows
        for summary in _summaries(row)
        for split in summary.splits.values()
        for name in split.metrics
    }
    return [(name, name, 1, 3) for name in sorted(names)]


def _values(row: Row, split: str, name: str) -> list[float]:
    measured = [summary.splits.get(split) for summary in _summaries(row)]
    values = [measures.value(name) for measures in measured if measures is not None]
    return [float(value) for value in values if value is not None]


def _summary(
    values: Sequence[float], scale: int, digits: int, spread: str, limits: tuple[float, float]
) -> str:
    """Return the mean ± sd over trials, Student's interval, or both; of one trial the value."""
    if not values:
        return DASH
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    estimate = student_over_trials(values, limits=limits)
    if spread != Spread.INTERVAL:
        mean += f" ± {scale * statistics.stdev(values):.{digits}f}"
    if not shows_bounds(spread) or estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"


def _explainers(row: Row) -> str:
    return ", ".join(dict.fromkeys(summary.explainer or DASH for summary in _summaries(row)))


def _foreground_is_rest(rows: Sequence[Row], split: str) -> bool:
    """Return True if the foreground of a split is everything except the shortcut."""
    measured = [summary.splits.get(split) for row in rows for summary in _summaries(row)]
    return any(measures is not None and measures.foreground_is_rest for measures in measured)


def _meanings(
    rows: Sequence[Row], columns: Sequence[tuple[str, str, str, int, int]]
) -> Iterator[str]:
    """Yield sentences on what the columns show, and on what a uniform map has."""
    of_foreground = [split for split, name, *_ in columns if name == "energy"]
    if of_foreground:
        yield (
            "Foreground: share of absolute relevance inside the mask; correlation: of absolute "
            "relevance and mask."
        )
        area = _mean_shares(rows, of_foreground, "area")
        if area:
            yield f"A uniform map has {area} % in the foreground."
    of_shortcut = [split for split, name, *_ in columns if name == "on_shortcut"]
    if of_shortcut:
        area = _mean_shares(rows, of_shortcut, "shortcut_area")
        yield (
            "Shortcut: share of absolute relevance where the confounder shows, such as on a "
            f"planted mark, which covers {area} % of the image."
        )
        if any(_foreground_is_rest(rows, split) for split in of_shortcut):
            yield "The data have no masks of the object."


def _mean_shares(rows: Sequence[Row], splits: Sequence[str], name: str) -> str:
    """Return a mean share in per cent; for each split, if they differ."""
    shares = {split: [v for row in rows for v in _values(row, split, name)] for split in splits}
    known = {split: f"{100 * statistics.fmean(v):.1f}" for split, v in shares.items() if v}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    return ", ".join(f"{split} {share}" for split, share in known.items())


def _notes(table: Table, rows: Sequence[Row]) -> list[str]:
    """Return notes on images that do not count, and on rows without explanations."""
    notes = []
    for row in table.rows:
        recorded = dict.fromkeys(summary.note for summary in _summaries(row) if summary.note)
        notes += [f"{row.marked_label}: {note}" for note in recorded]
        if row.selected_runs and row not in rows:
            notes.append(f"{row.marked_label}: its runs recorded no explanations")
        for name, problem in _PROBLEMS.items():
            count = sum(int(sum(_values(row, split, name))) for split in _splits(row))
            if count:
                images = int(sum(sum(_values(row, split, "images")) for split in _splits(row)))
                notes.append(
                    f"{row.marked_label}: {count:,} of {images:,} {problem} and do not count"
                )
    if len({_explainers(row) for row in rows}) > 1:
        notes.append(
            "the networks were explained in different ways: "
            "compare only rows with the same explainer"
        )
    return notes


def _splits(row: Row) -> list[str]:
    return list(dict.fromkeys(split for summary in _summaries(row) for split in summary.splits))


def read_gallery(table: Table) -> Gallery | None:
    """Return the gallery of the first trial that has heatmaps; None if there are none.

    Methods that explained other images are noted and left out.
    """
    trials = sorted(
        {w.trial for row in table.rows for w in row.selected_runs if w.run.folder.heatmaps.exists()}
    )
    first: StoredHeatmaps | None = None
    methods: list[MethodHeatmaps] = []
    notes: list[str] = []
    names: Sequence[str] = ()
    for row in table.rows if trials else ():
        selected_run = next((w for w in row.selected_runs if w.trial == trials[0]), None)
        if selected_run is None:
            continue
        try:
            stored = read_heatmaps(selected_run.run)
        except FileNotFoundError:
            notes.append(f"{row.marked_label}: has no {selected_run.run.folder.heatmaps.name}")
            continue
        except (OSError, DamagedError) as error:
            notes.append(f"{row.marked_label}: {str(error).removesuffix('.')}")
            continue
        if first is None:
            first = stored
            names = selected_run.run.record.data.label_names if selected_run.run.record else ()
        elif not first.has_same_images(stored):
            notes.append(f"{row.marked_label}: it explained other images")
            continue
        heatmap = stored.heatmap.astype(np.float32)
        methods.append(
            MethodHeatmaps(row.marked_label, stored.explainer, heatmap, stored.prediction)
        )
    if first is None:
        return None
    return Gallery(
        trials[0], first.split, first.image, first.mask[:, 0], first.label, names, methods, notes
    )


def paired_galleries(table: Table, measurements: MeasurementStore) -> list[Gallery]:
    """Return the galleries of the first two measured explainers, for the same methods and images.

    Args:
        table: The results.
        measurements: Measured explanations.

    Returns:
        Two galleries of the first trial that has both; none if there are fewer explainers or if
        they explained other images.
    """
    by_row = [(row, measurements.explainers(row.selected_runs)) for row in table.rows]
    names = list(dict.fromkeys(one.name for _, found in by_row for one in found))[:2]
    trials = sorted({one.trial for _, found in by_row for each in found for one in each.trials})
    if len(names) < 2 or not trials:
        return []
    first: StoredHeatmaps | None = None
    sides: tuple[list[MethodHeatmaps], list[MethodHeatmaps]] = ([], [])
    label_names: Sequence[str] = ()
    notes = []
    for row, found in by_row:
        pair = _stored_pair(found, names, trials[0])
        if pair is None or not (first or pair[0]).has_same_images(pair[0]):
            notes += [f"{row.marked_label}: not explained by both"] if row.selected_runs else []
            continue
        if first is None:
            first = pair[0]
            record = row.selected_runs[0].run.record
            label_names = record.data.label_names if record else ()
        for side, name, stored in zip(sides, names, pair, strict=True):
            heatmap = stored.heatmap.astype(np.float32)
            title = table.titles.of(name)
            side.append(MethodHeatmaps(row.marked_label, title, heatmap, stored.prediction))
    if first is None:
        return []
    mask = first.mask[:, 0]
    return [
        Gallery(trials[0], first.split, first.image, mask, first.label, label_names, side, notes)
        for side in sides
    ]


def _stored_pair(
    explainers: Sequence[MeasuredExplainer], names: Sequence[str], trial: int
) -> list[StoredHeatmaps] | None:
    """Return the heatmaps of two explainers of a model; None unless the images are the same."""
    found = []
    for name in names:
        measured = next(
            (
                one
                for explainer in explainers
                if explainer.name == name
                for one in explainer.trials
                if one.trial == trial
            ),
            None,
        )
        spec = None if measured is None else measured.run.spec
        measurement = None if spec is None else spec.measurement
        if measured is None or measurement is None or measurement.target != PREDICTION:
            return None  # the gallery of another target does not hold the predictions
        try:
            found.append(read_heatmaps(measured.run))
        except (OSError, DamagedError):
            return None
    return found if found[0].has_same_images(found[1]) else None
