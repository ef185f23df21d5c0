"""A figure of the learning curves: mean and range of the trials, and the selected steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmark.core.text import one_line
from benchmark.report.figures.style import (
    legend_below,
    method_colour,
    method_style,
    series_id,
    short_name,
)
from benchmark.report.records.learning_curves import Curves, mean_curve, range_curve, read_curves
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.tables.results_table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: The selected runs of a row with their curves.
_Runs = Sequence[tuple[SelectedRun, Curves]]
#: Title, split and attribute of ``Curves`` that axes show.
_Panel = tuple[str, str, str]


def draw_curves(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Draw the accuracy on biased and deceiving data if it was logged, else on validation data.

    The AUC and the distance of heatmaps are further panels if they were logged.

    Returns:
        A description of the figure; empty if no run has a log.
    """
    runs = {
        i: [
            (run, read_curves(run.run.folder, run.run.record.data))
            for run in row.selected_runs
            if run.run.record is not None
        ]
        for i, row in enumerate(table.rows)
        if row.selected_runs
    }
    curves = [found for of_row in runs.values() for _, found in of_row]
    gap = next((column.splits for column in table.columns if column.name == "gap"), ())
    panels = _accuracy_panels(curves, gap)
    measured = _measured_panels(curves, gap)
    canvas.set_size_inches(6.4, 6.4 if measured else 3.6)
    grid = canvas.add_gridspec(2 if measured else 1, 1)
    all_axes = list(grid[0].subgridspec(1, len(panels)).subplots(sharey=True, squeeze=False)[0])
    if measured:
        all_axes += list(grid[1].subgridspec(1, len(measured)).subplots(squeeze=False)[0])
    drawn = 0
    for axes, panel in zip(all_axes, [*panels, *measured], strict=True):
        drawn += _draw_panel(axes, table.rows, runs, panel)
    if not drawn:
        return ""
    all_axes[0].set_ylabel("%")
    legend_below(canvas, all_axes[0])
    titles = [title for title, _, _ in [*panels, *measured]]
    shown = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    spread = (
        " Bands show the range of the trials." if any(len(r) > 1 for r in runs.values()) else ""
    )
    return (
        f"Mean over trials: {shown} against the step.{spread} "
        "Markers show the selected step of each trial."
    )


def _accuracy_panels(curves: Sequence[Curves], gap: Sequence[str]) -> list[_Panel]:
    """Return the panels of accuracy: biased and deceiving data, else validation data."""
    splits = {split for found in curves for split in found.accuracy}
    if gap and set(gap) <= splits:
        return [(f"accuracy on {one_line(split)}", split, "accuracy") for split in gap]
    panels = [("validation accuracy", "val", "accuracy")]
    if any(value is not None for found in curves for value in found.worst.get("val", [])):
        panels.append(("validation worst group", "val", "worst"))
    return panels


def _measured_panels(curves: Sequence[Curves], gap: Sequence[str]) -> list[_Panel]:
    """Return the panels of AUC and distance of heatmaps.

    They show the deceiving split of the gap if it was logged, else validation data.
    """
    panels = []
    for name, attribute in (("mean AUC in %", "auc"), ("distance of heatmaps", "distance")):
        splits = {split for found in curves for split in getattr(found, attribute)}
        split = gap[-1] if gap and gap[-1] in splits else "val"
        if split in splits:
            where = "validation" if split == "val" else one_line(split)
            panels.append((f"{name}, {where}", split, attribute))
    return panels


def _draw_panel(axes: Axes, rows: Sequence[Row], runs: Mapping[int, _Runs], panel: _Panel) -> int:
    """Draw a curve of each row and return the number of curves.

    Args:
        axes: Where to draw.
        rows: The rows of the table.
        runs: Selected runs and curves of each row, by its position.
        panel: What to draw.
    """
    title, _, attribute = panel
    drawn = sum(_draw_row(axes, rows[i], found, panel) for i, found in runs.items())
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="step")
    if attribute == "distance":
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylim(-3, 103)
    return drawn


def _draw_row(axes: Axes, row: Row, runs: _Runs, panel: _Panel) -> bool:
    """Draw mean, range and selected steps of one method; return whether it has a curve."""
    _, split, attribute = panel
    scale = 1.0 if attribute == "distance" else 100.0
    logged = []
    marks = []
    for run, curves in runs:
        values = getattr(curves, attribute).get(split)
        if values is None:
            continue
        scaled = [None if value is None else scale * value for value in values]
        logged.append((curves.steps, scaled))
        at = dict(zip(curves.steps, scaled, strict=True)).get(run.at.step)
        if at is not None:
            marks.append((run.at.step, at))
    steps, mean = mean_curve(logged)
    if not steps:
        return False
    style = method_style(row)
    colour = method_colour(row)
    name = series_id(row)
    if len(logged) > 1:
        _, low, high = range_curve(logged)
        axes.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0, gid=name)
    axes.plot(steps, mean, color=colour, linestyle=style["linestyle"], gid=name)
    for step, value in marks:
        axes.plot(step, value, **{**style, "linestyle": "none", "markersize": 5}, gid=name)
    axes.plot([], [], **style, label=short_name(row.marked_label))
    return True
