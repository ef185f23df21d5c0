"""A table of the accuracy of every group, which pages shade as a heat map."""

from __future__ import annotations

import statistics

import numpy as np

from benchmark.core.counts import group_accuracy, group_counts
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: Most groups that fit a table.
MAX_GROUPS = 24


def group_sheet(table: Table) -> Sheet | None:
    """Return the accuracy of each method in each group on the main test split.

    A group is a label with a confounder. Groups without images are left out.

    Args:
        table: The results.

    Returns:
        The sheet, with errors as shades; None without groups, or with more than MAX_GROUPS.
    """
    data = next(
        (w.run.record.data for r in table.rows for w in r.selected_runs if w.run.record), None
    )
    if data is None or data.main_split is None or not data.confounder_names:
        return None
    names = [table.titles.of_group(table.dataset, name) for name in data.group_names]
    split = data.main_split
    by_row = [(row, _trials(row, split, len(names))) for row in table.rows]
    by_row = [(row, trials) for row, trials in by_row if len(trials)]
    if not by_row:
        return None
    totals = np.concatenate([_sizes(row, split, len(names)) for row, _ in by_row]).max(0)
    kept = np.flatnonzero(totals)
    if not 1 < len(kept) <= MAX_GROUPS:
        return None
    heads = [("method",), *((names[g], f"n = {totals[g]:,}") for g in kept)]
    rows = []
    shades: list[list[float | None]] = []
    for row, trials in by_row:
        means = [_mean(trials[:, g]) for g in kept]
        cells = [_cell(trials[:, g]) for g in kept]
        rows.append([row.marked_label, *cells])
        shades.append([None, *(None if mean is None else 1.0 - mean for mean in means)])
    beside = ", mean ± sd over trials" if any(len(trials) > 1 for _, trials in by_row) else ""
    caption = [
        f"Accuracy of each group (label/confounder) on {split} in per cent{beside}.",
        "Darker cells have more errors.",
        "The mean of the lowest group of each trial can be below every mean of this table.",
    ]
    return Sheet(f"{table.title}, accuracy of every group", caption, heads, rows, shades=shades)


def _trials(row: Row, split: str, groups: int) -> np.ndarray:
    """Return the accuracy of each group in each trial that counted this split, float[S,G]."""
    counts = [w.at.counts[split] for w in row.selected_runs if split in w.at.counts]
    found = [group_accuracy(each) for each in counts]
    return np.array([each for each in found if len(each) == groups]).reshape(-1, groups)


def _sizes(row: Row, split: str, groups: int) -> np.ndarray:
    """Return the number of images of each group in each trial, int64[S,G]."""
    counts = [w.at.counts[split] for w in row.selected_runs if split in w.at.counts]
    found = [group_counts(each)[1] for each in counts]
    return np.array([each for each in found if len(each) == groups]).reshape(-1, groups)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _cell(values: np.ndarray) -> str:
    known = [float(value) for value in values if not np.isnan(value)]
    if not known:
        return DASH
    text = percent(statistics.fmean(known), 1)
    return f"{text} ± {percent(statistics.stdev(known), 1)}" if len(known) > 1 else text
