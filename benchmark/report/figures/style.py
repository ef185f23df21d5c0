"""Colours and markers that every figure shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.core.text import one_line
from benchmark.report.tables.results_table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Colours of Okabe and Ito. Each is used with a marker, so that figures are legible without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
LINES = ("-", "--", "-.", ":")
#: Colours of what is no method: of labels, of confounders and of environments.
LABEL_COLOURS = ("#332288", "#DDAA33", "#AA4499", "#44AA99", "#882255", "#999933", "#6699CC")
CONFOUNDER_COLOURS = ("#117733", "#CC3377", "#661100", "#66AADD", "#997700", "#004488", "#994455")
ENVIRONMENT_COLOURS = ("#8856A7", "#A6611A", "#18A2A8", "#E78AC3", "#7A8500", "#4D4D4D", "#BB5566")


def method_style(row: Row) -> dict[str, Any]:
    """Return colour, marker and line style of a method, the same in every figure of a report.

    Args:
        row: The method; its position in the sweep decides.
    """
    i = row.series
    colour = method_colour(row)
    return {
        "color": colour,
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": LINES[i // 2 % len(LINES)],
        "markerfacecolor": "white" if i % 2 else colour,
        "markersize": 6,
    }


def method_colour(row: Row) -> str:
    """Return the colour of a method, as ``#rrggbb``."""
    return COLOURS[row.series % len(COLOURS)]


def series_id(row: Row) -> str:
    """Return the class of the parts of a figure that show a method, by which pages hide them."""
    return f"series-{row.series}"


def short_name(name: str) -> str:
    """Return a name in one line that fits a label or a legend; the tables show it in full."""
    name = one_line(name)
    return name if len(name) <= 26 else f"{name[:15]}…{name[-10:]}"


def legend_below(canvas: Canvas, axes: Axes) -> None:
    """Draw a legend below the axes; the figure grows, so that the axes keep their size."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = 2 if longest > 18 else 3 if longest > 12 else 4
    canvas.set_figheight(canvas.get_figheight() + 0.17 * ((len(labels) - 1) // columns))
    canvas.legend(handles, labels, loc="outside lower center", ncols=columns)
