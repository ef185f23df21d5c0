"""A figure of average against worst-group accuracy, with a labelled point for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.figures.label_placement import place_labels
from benchmark.report.figures.style import method_style, series_id, short_name
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.value import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: A label that is further from its point, in points (1/72 inch), has a line to it.
_LEADER = 11.0


def draw_scatter(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Draw average and worst-group accuracy of each method on equal scales.

    Small dots are single trials, thin lines 95 % intervals.

    Returns:
        A description of the figure; empty if the table has no worst groups.
    """
    found = _points_of(table)
    if not found:
        return ""
    canvas.set_size_inches(4.4, 4.4)
    axes = canvas.add_subplot()
    trials = [_draw_method(axes, row, x, y) for row, x, y in found]
    dots = np.concatenate([np.zeros((0, 2)), *trials])
    low, high = _limits(dots, found)
    axes.plot([low, high], [low, high], color="0.7", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="average accuracy, %", ylabel="worst-group accuracy, %")
    axes.set_yticks(axes.get_xticks(), minor=False)
    axes.set(xlim=(low, high), ylim=(low, high))
    _label(canvas, axes, found, dots)
    several = any(value.trials > 1 for _, *values in found for value in values)
    small = " Small dots are single trials." if several else ""
    return (
        "Average and worst-group accuracy on the same scale; thin lines are 95 % intervals."
        f"{small} On the dotted line all groups are equally accurate."
    )


def _points_of(table: Table) -> list[tuple[Row, Value, Value]]:
    """Return average and worst-group accuracy of the methods that have both."""
    names = [column.name for column in table.columns]
    if not {"average_accuracy", "worst_group_accuracy"} <= set(names):
        return []
    average = names.index("average_accuracy")
    worst = names.index("worst_group_accuracy")
    found = [(row, row.values[average], row.values[worst]) for row in table.rows]
    found = [
        (row, x, y)
        for row, x, y in found
        if x.estimate.value is not None and y.estimate.value is not None
    ]
    return [(row, x, y) for row, x, y in found if row.requested] or found


def _percent(value: Value) -> float:
    return 100.0 * float(value.estimate.value or 0.0)


def _draw_method(axes: Axes, row: Row, x: Value, y: Value) -> np.ndarray:
    """Draw a method, and return the positions of its trials in per cent, float[S,2]."""
    style: dict[str, Any] = {**method_style(row), "linestyle": "none"}
    name = series_id(row)
    colour = style["color"]
    for value, other, draw in ((x, y, axes.hlines), (y, x, axes.vlines)):
        e = value.estimate
        if e.low is not None and e.high is not None:
            line = draw(_percent(other), 100 * e.low, 100 * e.high, color=colour)
            line.set(linewidth=0.7, alpha=0.6, gid=name)
    each = x.per_trial or {}
    trials = [(100 * each[t], 100 * value) for t, value in (y.per_trial or {}).items() if t in each]
    dots = np.array(trials).reshape(-1, 2)
    if len(dots) > 1:
        (small,) = axes.plot(*dots.T, ".", color=colour, markersize=3.5, alpha=0.7)
        small.set_gid(name)
    (point,) = axes.plot(_percent(x), _percent(y), **{**style, "markersize": 7.5})
    point.set_gid(name)
    return dots


def _limits(dots: np.ndarray, found: list[tuple[Row, Value, Value]]) -> tuple[float, float]:
    """Return limits for both axes, which show all points, trials and intervals."""
    shown = dots.ravel().tolist()
    for value in (value for _, *values in found for value in values):
        e = value.estimate
        shown += [100.0 * bound for bound in (e.value, e.low, e.high) if bound is not None]
    margin = max(2.0, 0.04 * (max(shown) - min(shown)))
    return max(min(shown) - margin, -3.0), min(max(shown) + margin, 103.0)


def _interval_points(found: list[tuple[Row, Value, Value]]) -> np.ndarray:
    """Return points along the intervals, which labels should not cover, float[M,2]."""
    parts = [np.zeros((0, 2))]
    for _, x, y in found:
        for value, other, axis in ((x, y, 0), (y, x, 1)):
            e = value.estimate
            if e.low is not None and e.high is not None:
                part = np.full((30, 2), _percent(other))
                part[:, axis] = np.linspace(100 * e.low, 100 * e.high, 30)
                parts.append(part)
    return np.concatenate(parts)


def _label(
    canvas: Canvas, axes: Axes, found: list[tuple[Row, Value, Value]], dots: np.ndarray
) -> None:
    """Write the names of the methods beside their points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    renderer = FigureCanvasAgg(canvas).get_renderer()
    unit = canvas.dpi / 72.0
    names = [short_name(row.marked_label) for row, _, _ in found]
    texts = [axes.text(0, 0, name, fontsize=9, va="bottom", ha="left") for name in names]
    boxes = [text.get_window_extent(renderer) for text in texts]
    sizes = np.array([(box.width, box.height) for box in boxes]) / unit
    values = np.array([(_percent(x), _percent(y)) for _, x, y in found])
    points = axes.transData.transform(values) / unit
    frame = axes.get_window_extent(renderer)
    area = (frame.x0 / unit, frame.y0 / unit, frame.x1 / unit, frame.y1 / unit)
    covered = np.concatenate([dots, dots, _interval_points(found)])  # a dot counts twice
    corners = place_labels(points, sizes, axes.transData.transform(covered) / unit, area)
    back = axes.transData.inverted()
    for (row, _, _), text, corner, size, point in zip(
        found, texts, corners, sizes, points, strict=True
    ):
        text.set_position(tuple(back.transform(corner * unit)))
        text.set_gid(series_id(row))
        nearest = np.clip(point, corner, corner + size)
        if np.hypot(*(nearest - point)) > _LEADER:
            ends = back.transform(np.array([point, nearest]) * unit)
            (line,) = axes.plot(*ends.T, color="0.5", linewidth=0.6, zorder=1)
            line.set_gid(series_id(row))
