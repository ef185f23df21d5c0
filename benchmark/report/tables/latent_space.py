"""Clustering of the features of test images by label, confounder and environment."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.core.summaries import EmbeddingSummary
from benchmark.report.tables.numbers import DASH
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: What images are grouped by.
_GROUPED_BY = ("label", "confounder", "environment")


@REPORT_TABLES.register
class LatentSpaceTable(ReportTable):
    """Silhouettes of the features by label, confounder and environment."""

    name = "latent_space"
    position = 50

    def sheet_of(self, table: Table) -> Sheet | None:
        return latent_sheet(table)


def latent_sheet(table: Table) -> Sheet | None:
    """Return silhouettes on every test split; None if there are none."""
    rows = [row for row in table.rows if any(summary.splits for summary in _summaries(row))]
    records = [w.run.record for row in rows for w in row.selected_runs if w.run.record]
    with_summary = [record for record in records if record.embeddings is not None]
    if not with_summary:
        return None
    columns = [
        (split, attribute)
        for split in with_summary[0].data.test_splits
        for attribute in _GROUPED_BY
        if any(_values(row, split, attribute) for row in rows)
    ]
    if not columns:
        return None
    heads: list[Sequence[str]] = [
        ("method",),
        ("features",),
        *((split, f"by {attribute}") for split, attribute in columns),
    ]
    shown = [
        [
            row.marked_label,
            _dimensions(row),
            *(_mean_sd(_values(row, split, attribute)) for split, attribute in columns),
        ]
        for row in rows
    ]
    caption = [
        "Silhouettes, from −1 to 1, of the features before the last layer, at the step that the "
        "run's first criterion selected. The larger the value, the better images of one label (or "
        "confounder) are separated from the others.",
        "A network that does not use the shortcut has a high silhouette by label and one near 0 by "
        "confounder.",
        "Up to 512 images of each split; mean ± sd over trials.",
    ]
    if any(attribute == "environment" for _, attribute in columns):
        caption.insert(
            2,
            "By environment: images of the split and of validation, whose environments are those "
            "of training; the split is an environment of its own. Near 0, the network maps all "
            "environments alike.",
        )
    notes = [f"{row.marked_label}: {note}" for row in table.rows for note in _notes(row)]
    return Sheet(f"{table.title}, latent space", caption, heads, shown, stub=2, notes=notes)


def _summaries(row: Row) -> list[EmbeddingSummary]:
    """Return the summaries of embeddings of the selected runs that have one."""
    records = [selected_run.run.record for selected_run in row.selected_runs]
    summaries = [record.embeddings for record in records if record is not None]
    return [summary for summary in summaries if summary is not None]


def _values(row: Row, split: str, attribute: str) -> list[float]:
    measured = [summary.splits.get(split) for summary in _summaries(row)]
    values = [
        getattr(silhouettes, attribute) for silhouettes in measured if silhouettes is not None
    ]
    return [float(value) for value in values if value is not None]


def _mean_sd(values: Sequence[float]) -> str:
    if not values:
        return DASH
    mean = f"{round(statistics.fmean(values), 2) + 0.0:.2f}"  # + 0.0: no "-0.00"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _dimensions(row: Row) -> str:
    sizes = dict.fromkeys(summary.dimensions for summary in _summaries(row))
    return ", ".join(str(size) for size in sizes if size) or DASH


def _notes(row: Row) -> list[str]:
    summaries = _summaries(row)
    notes = list(dict.fromkeys(summary.note for summary in summaries if summary.note))
    if row.selected_runs and not summaries:
        notes.append("its runs recorded no embeddings")
    return notes
