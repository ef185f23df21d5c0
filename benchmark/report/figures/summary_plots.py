"""Figures of the results: PDF and PNG files for papers, and SVG for the HTML page."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.files import remove_abandoned, write_atomic
from benchmark.core.layout import ABANDONED_SECONDS
from benchmark.core.text import one_line
from benchmark.report.figures.accuracy_scatter import draw_scatter
from benchmark.report.figures.explainer_gallery import draw_explainer_gallery
from benchmark.report.figures.global_gallery import draw_global_gallery
from benchmark.report.figures.heatmap_gallery import draw_gallery, file_name
from benchmark.report.figures.latent_space import draw_latent
from benchmark.report.figures.learning_curve_plot import draw_curves
from benchmark.report.figures.style import legend_below, method_colour, method_style, short_name
from benchmark.report.records.measurements import MeasurementStore
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.statistics.calibration import reliability
from benchmark.report.tables.numbers import percent
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.value import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

_STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "shortcutbed",
    "text.parse_math": False,
}


@dataclass(frozen=True)
class SavedFigure:
    """A figure that has been drawn.

    Attributes:
        name: Name of its files, without suffix.
        title: Title of the figure.
        description: Text that says what the figure shows.
        svg: The figure as an SVG element.
        full: Whether the figure takes the width of the page.
        adapts: Whether black and white stand for the text and the background of the page, as in
            line drawings; images keep their colours in a dark scheme.
    """

    name: str
    title: str
    description: str
    svg: str
    full: bool = False
    adapts: bool = False


def draw_all(
    tables: Sequence[Table],
    store: PredictionStore,
    out: Path,
    measurements: MeasurementStore | None = None,
    figures: Collection[str] | None = None,
) -> dict[int, list[SavedFigure]]:
    """Draw the figures of every table and write them as PDF and PNG files.

    Figures without content, such as learning curves without a log, are not drawn.

    Args:
        tables: The results.
        store: Predictions of the selected runs.
        out: Folder of the files.
        measurements: Measured explanations, which have a gallery for each method.
        figures: Names of the summary plots in ``FIGURES`` to draw; by default all. Galleries of
            heatmaps are always drawn.

    Returns:
        The figures by the position of their table.
    """
    import matplotlib

    matplotlib.use("Agg")
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out, ABANDONED_SECONDS)
    drawn: dict[int, list[SavedFigure]] = {}
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The font lacks the script of some names; boxes are drawn instead.
        warnings.filterwarnings("ignore", message="Glyph")
        for i, table in enumerate(tables):
            for name, (title, draw) in FIGURES.items():
                if figures is not None and name not in figures:
                    continue
                figure = _draw(
                    f"{name}_{i + 1}", f"{title}: {one_line(table.title)}", draw, table, store, out
                )
                if figure is not None:
                    drawn.setdefault(i, []).append(
                        replace(figure, full=name in _FULL, adapts=name not in _RASTER)
                    )
            taken = [figure.name for found in drawn.values() for figure in found]
            title = f"Heatmaps: {one_line(table.title)}"
            draw_maps = partial(draw_gallery, measurements=measurements)
            gallery = _draw(file_name(table, taken), title, draw_maps, table, store, out)
            if gallery is not None:
                drawn.setdefault(i, []).append(replace(gallery, full=True))
            drawn.setdefault(i, []).extend(_global_maps(i, table, store, out))
            if measurements:
                drawn.setdefault(i, []).extend(_explainers(i, table, store, out, measurements))
    return {i: figures for i, figures in drawn.items() if figures}


def _global_maps(i: int, table: Table, store: PredictionStore, out: Path) -> list[SavedFigure]:
    """Draw what the methods of a table associate with whole classes."""
    found = []
    for number, row in enumerate(table.rows, start=1):

        def draw(canvas: Canvas, _: Table, __: PredictionStore, row: Row = row) -> str:
            return draw_global_gallery(canvas, row)

        title = f"Global explanation of {one_line(row.marked_label)}: {one_line(table.title)}"
        figure = _draw(f"global_{i + 1}_{number}", title, draw, table, store, out)
        if figure is not None:
            found.append(figure)
    return found


def _explainers(
    i: int, table: Table, store: PredictionStore, out: Path, measurements: MeasurementStore
) -> list[SavedFigure]:
    """Draw the explainers of each method of a table."""
    found = []
    for number, row in enumerate([row for row in table.rows if row.requested], start=1):

        def draw(canvas: Canvas, _: Table, __: PredictionStore, row: Row = row) -> str:
            return draw_explainer_gallery(canvas, row, measurements, table.titles)

        title = f"Explainers of {one_line(row.marked_label)}: {one_line(table.title)}"
        figure = _draw(f"explainers_{i + 1}_{number}", title, draw, table, store, out)
        if figure is not None:
            found.append(replace(figure, full=True))
    return found


def _draw(
    name: str,
    title: str,
    draw: Callable[[Canvas, Table, PredictionStore], str],
    table: Table,
    store: PredictionStore,
    out: Path,
) -> SavedFigure | None:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(4.8, 3.4), layout="constrained")
    description = draw(canvas, table, store)
    if not description:
        return None
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # keep the layout for all formats
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None},
        "png": {},
        "svg": {"Date": None},
    }
    svg = ""
    for form, about in metadata.items():
        buffer = io.BytesIO()
        canvas.savefig(buffer, format=form, dpi=200, metadata=about)
        if form == "svg":
            svg = buffer.getvalue().decode()
        else:
            write_atomic(out / f"{name}.{form}", buffer.getvalue())
    return SavedFigure(name, title, description, svg[svg.index("<svg") :])


def _shown(table: Table) -> list[Row]:
    return [row for row in table.rows if row.selected_runs]


def _column(table: Table, metric: str) -> int | None:
    return next((i for i, column in enumerate(table.columns) if column.name == metric), None)


def _error(value: Value) -> list[list[float]] | None:
    """Return the distances to the bounds of the interval in per cent, for ``errorbar``."""
    e = value.estimate
    if e.value is None or e.low is None or e.high is None:
        return None
    return [[max(0.0, (e.value - e.low) * 100)], [max(0.0, (e.high - e.value) * 100)]]


def _gap(canvas: Canvas, table: Table, store: PredictionStore) -> str:
    at = _column(table, "gap")
    rows = [
        row for row in _shown(table) if at is not None and row.values[at].estimate.value is not None
    ]
    if at is None or not rows:
        return ""
    canvas.set_size_inches(4.8, 0.9 + 0.3 * len(rows))
    axes = canvas.add_subplot()
    shown = []
    for y, row in enumerate(rows):
        value = row.values[at]
        gap = float(value.estimate.value or 0.0) * 100
        axes.barh(
            y,
            gap,
            xerr=_error(value),
            color=method_colour(row) if row.requested else "white",
            edgecolor=method_colour(row),
            alpha=0.75,
            height=0.65,
            hatch="" if row.requested else "///",
            linewidth=0.8,
            error_kw={"elinewidth": 0.9, "capsize": 2},
        )
        high = value.estimate.high if value.estimate.high is not None else value.estimate.value
        points = percent(gap / 100, 1)
        axes.text(max(gap, float(high or 0.0) * 100, 0.0) + 2, y, points, va="center", fontsize=8)
        shown.append(f"{row.marked_label} {points}")
    axes.set_yticks(range(len(rows)), [short_name(row.marked_label) for row in rows])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.12)
    low, high = axes.get_xlim()
    if high - low < 2:  # all gaps are near 0: make room for the numbers beside the bars
        axes.set_xlim(low - 1, high + 1)
    biased, deceiving = table.columns[at].splits
    axes.set_xlabel(f"accuracy on {one_line(biased)} − {one_line(deceiving)}, points")
    return "In points, with 95 % intervals: " + "; ".join(shown) + "."


def _reliability(canvas: Canvas, table: Table, store: PredictionStore) -> str:
    record = next(
        (w.run.record for row in table.rows for w in row.selected_runs if w.run.record), None
    )
    split = record.data.main_split if record else None
    axes = canvas.add_subplot()
    drawn = 0
    for row in _shown(table):
        bins: dict[int, list[tuple[float, float, int]]] = {}
        for selected_run in row.selected_runs:
            found = store.scores(selected_run, split) if split else None
            for confidence, accuracy, n in reliability(*found) if found else ():
                bins.setdefault(min(9, int(confidence * 10)), []).append((confidence, accuracy, n))
        if bins:
            points = [_pooled(bins[b]) for b in sorted(bins)]
            axes.plot(
                [100 * x for x, _ in points],
                [100 * y for _, y in points],
                label=short_name(row.marked_label),
                **method_style(row),
            )
            drawn += 1
    if not drawn:
        return ""
    axes.plot([0, 100], [0, 100], color="0.7", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(
        xlim=(0, 102),
        ylim=(-2, 102),
        xlabel="mean confidence, %",
        ylabel=f"accuracy on {one_line(str(split))}, %",
    )
    legend_below(canvas, axes)
    return (
        f"Accuracy on {split} against confidence in ten bins, trials pooled. "
        "Points on the diagonal are perfectly calibrated."
    )


def _pooled(points: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """Return the mean confidence and the accuracy of the same bin of several trials."""
    total = sum(n for _, _, n in points)
    confidence = sum(x * n for x, _, n in points) / total
    accuracy = sum(y * n for _, y, n in points) / total
    return confidence, accuracy


#: Name of the figure of average against worst-group accuracy.
SCATTER = "accuracy_worst_group"
#: Figures that take the width of the page.
_FULL = ("latent_space", "learning_curves")
#: Figures of so many points that they are drawn as images, which keep a white background.
_RASTER = ("latent_space",)
#: Summary plots by name: their titles, and the functions that draw them.
FIGURES: Mapping[str, tuple[str, Callable[[Canvas, Table, PredictionStore], str]]] = {
    SCATTER: ("Accuracy and worst group", draw_scatter),
    "gap": ("Generalisation gap", _gap),
    "learning_curves": ("Learning curves", draw_curves),
    "reliability": ("Reliability", _reliability),
    "latent_space": ("Latent space", draw_latent),
}
