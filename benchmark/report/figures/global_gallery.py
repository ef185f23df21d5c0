"""A figure of the explanations of whole classes that a method gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.core.errors import DamagedError
from benchmark.core.text import one_line
from benchmark.report.figures.heatmap_gallery import RULE, bare, image_grid, scaled
from benchmark.report.records.stored_arrays import StoredGlobalMaps, read_global_maps
from benchmark.report.tables.results_table import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: Most classes that fit a figure; the others are named only.
MAX_CLASSES = 14
_MAX_NAME = 14


def draw_global_gallery(canvas: Canvas, row: Row) -> str:
    """Draw a row per class and a column per kind of map, of the first trial that has them.

    Returns:
        A description of the figure; empty if the method has no global explanations.
    """
    problems = []
    for run in row.selected_runs:
        record = run.run.record
        if record is None or record.explanations is None or not record.explanations.global_maps:
            continue
        try:
            stored = read_global_maps(run.run)
        except (OSError, DamagedError) as error:
            problems.append(f"trial {run.trial}: {str(error).removesuffix('.')}")
            continue
        names = record.data.label_names[:MAX_CLASSES]
        _draw(canvas, stored, names)
        left = [*problems, *(f"{name}: no room" for name in record.data.label_names[MAX_CLASSES:])]
        missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
        return (
            f"What {one_line(row.marked_label)} associates with each class, whatever the image "
            f"(trial {run.trial}): {', '.join(map(one_line, stored.names))}. {RULE}{missing}"
        )
    return ""


def _draw(canvas: Canvas, stored: StoredGlobalMaps, names: tuple[str, ...]) -> None:
    axes, scale = image_grid(canvas, len(names), len(stored.names))
    for k, of_class in enumerate(axes):
        for c, place in enumerate(of_class):
            bare(place)
            image = place.imshow(
                scaled(stored.maps[c, k]), cmap="seismic", vmin=-1, vmax=1, interpolation="nearest"
            )
    for k, name in enumerate(names):
        text = one_line(name)
        short = text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…"
        axes[k, 0].set_ylabel(short, fontsize=7)
    for c, name in enumerate(stored.names):
        axes[0, c].set_title(one_line(name).replace(" ", "\n", 1), fontsize=8)
    bar = canvas.colorbar(image, cax=scale, orientation="horizontal", ticks=[-1, 0, 1])
    bar.ax.set_xticklabels(["−1", "0", "+1"], fontsize=7)
