"""How labels and confounders cluster among the features of test images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.core.summaries import EmbeddingSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.tables.numbers import DASH
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: What the images are grouped by.
_OF = ("label", "confounder")


@REPORT_TABLES.register
class LatentSpaceTable(ReportTable):
    """Silhouettes of the features by label and by confounder."""

    name = "latent_space"
    position = 50

    def sheet_of(self, table: Table) -> Sheet | None:
        return latent_sheet(table)


def latent_sheet(table: Table) -> Sheet | None:
    """Silhouettes by label and by confounder on every test split, mean ± sd over trials."""
    rows = [
        row for row in table.rows if any((f := _found(w)) and f.splits for w in row.selected_runs)
    ]
    record = next(
        (w.run.record for row in rows for w in row.selected_runs if w.run.record and _found(w)),
        None,
    )
    if record is None:
        return None
    columns = [
        (split, of)
        for split in record.data.test_splits
        for of in _OF
        if any(_values(row, split, of) for row in rows)
    ]
    if not columns:
        return None
    heads: list[Sequence[str]] = [
        ("method",),
        ("features",),
        *((split, f"by {of}") for split, of in columns),
    ]
    shown = [
        [
            row.marked_label,
            _dimensions(row),
            *(_mean_sd(_values(row, split, of)) for split, of in columns),
        ]
        for row in rows
    ]
    caption = [
        "Silhouettes from −1 to 1 of the features before the last layer, at the step that the run's first criterion "
        "chose: the larger, the better images of one label (of one confounder) keep together and apart from the rest.",
        "A network that does without the shortcut has a high one by label and one near 0 by confounder.",
        "Up to 512 images of each split; mean ± sd over trials.",
    ]
    notes = [f"{row.marked_label}: {note}" for row in table.rows for note in _notes(row)]
    return Sheet(f"{table.title}, latent space", caption, heads, shown, stub=2, notes=notes)


def _found(selected_run: SelectedRun) -> EmbeddingSummary | None:
    """What the record says of embeddings; None where there are none."""
    return selected_run.run.record.embeddings if selected_run.run.record is not None else None


def _values(row: Row, split: str, of: str) -> list[float]:
    found = [summary.splits.get(split) for w in row.selected_runs if (summary := _found(w))]
    values = [getattr(measured, of) for measured in found if measured is not None]
    return [float(value) for value in values if value is not None]


def _mean_sd(values: Sequence[float]) -> str:
    if not values:
        return DASH
    mean = f"{round(statistics.fmean(values), 2) + 0.0:.2f}"  # + 0.0: no "-0.00"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _dimensions(row: Row) -> str:
    sizes = dict.fromkeys(found.dimensions for w in row.selected_runs if (found := _found(w)))
    return ", ".join(str(size) for size in sizes if size) or DASH


def _notes(row: Row) -> list[str]:
    told = (found.note for w in row.selected_runs if (found := _found(w)))
    notes = list(dict.fromkeys(note for note in told if note))
    if row.selected_runs and not any(_found(w) for w in row.selected_runs):
        notes.append("its runs recorded no embeddings")
    return notes
