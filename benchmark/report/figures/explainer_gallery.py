"""A figure of the heatmaps of every explainer of one method for the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.text import one_line
from benchmark.core.titles import Titles
from benchmark.report.figures.heatmap_gallery import (
    RULE,
    UNTITLED,
    add_legend,
    explainer_title,
    image_grid,
    image_title,
    is_right,
    label_name,
    show_heatmap,
    show_image,
)
from benchmark.report.records.measurements import MeasurementStore
from benchmark.report.records.stored_arrays import StoredHeatmaps, read_heatmaps
from benchmark.report.tables.localization import Gallery, MethodHeatmaps
from benchmark.report.tables.results_table import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: Most explainers that fit a figure; the others are named only.
MAX_EXPLAINERS = 24
#: Most explainers beside each other; further ones are in blocks below.
_BESIDE = 10
_LEGEND = f"{RULE} The maps explain the predicted class (✓ right, ✗ wrong). Outline: foreground."


def explainer_gallery(
    row: Row, measurements: MeasurementStore, titles: Titles = UNTITLED
) -> Gallery | None:
    """Return the heatmaps of the explainers of a method in its first trial; None without any.

    Explainers that explained other images are noted and left out.
    """
    explainers = measurements.explainers(row.selected_runs)
    trials = sorted({one.trial for explainer in explainers for one in explainer.trials})
    first: StoredHeatmaps | None = None
    columns: list[MethodHeatmaps] = []
    notes: list[str] = []
    names: tuple[str, ...] = ()
    for explainer in explainers:
        measured = next((one for one in explainer.trials if one.trial == trials[0]), None)
        if measured is None:
            notes += [f"{explainer.name}: {problem}" for problem in explainer.problems[:1]]
            continue
        try:
            stored = read_heatmaps(measured.run)
        except FileNotFoundError:
            continue  # data without masks have no gallery
        except (OSError, DamagedError) as error:
            notes.append(f"{explainer.name}: {str(error).removesuffix('.')}")
            continue
        if first is None:
            first = stored
            names = measured.run.record.data.label_names if measured.run.record else ()
        elif not first.has_same_images(stored):
            notes.append(f"{explainer.name}: it explained other images")
            continue
        columns.append(
            MethodHeatmaps(
                titles.of(explainer.name), "", stored.heatmap.astype(np.float32), stored.prediction
            )
        )
    if first is None:
        return None
    mask = first.mask[:, 0]
    return Gallery(trials[0], first.split, first.image, mask, first.label, names, columns, notes)


def draw_explainer_gallery(
    canvas: Canvas, row: Row, measurements: MeasurementStore, titles: Titles = UNTITLED
) -> str:
    """Draw a row per image and a column per explainer, in blocks of at most 10 explainers.

    Returns:
        A description of the figure; empty if there are no heatmaps.
    """
    gallery = explainer_gallery(row, measurements, titles)
    if gallery is None:
        return ""
    columns = gallery.methods[:MAX_EXPLAINERS]
    _draw_grid(canvas, gallery, columns)
    splits = " and ".join(dict.fromkeys(one_line(split) for split in gallery.split))
    left = [
        *gallery.notes,
        *(f"{column.method}: no room" for column in gallery.methods[MAX_EXPLAINERS:]),
    ]
    missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
    return (
        f"Explanations of {one_line(row.marked_label)} by {len(columns)} explainers for the same "
        f"{len(gallery.label)} images of {splits}, trial {gallery.trial}: the predicted class. "
        f"Red: evidence for the class; blue: against. {RULE}{missing}"
    )


def _draw_grid(canvas: Canvas, gallery: Gallery, explainers: list[MethodHeatmaps]) -> None:
    images = len(gallery.label)
    blocks = -(-len(explainers) // _BESIDE)
    beside = -(-len(explainers) // blocks)
    predicted = explainers[0]
    right = is_right(gallery, predicted)
    names = []
    for i in range(images):
        mark = "✓" if right[i] else "✗"
        name = label_name(gallery, int(predicted.prediction[i]))
        names.append(f"{image_title(gallery, i)}\n{mark} {name}")
    left = 0.2 + 0.072 * max(len(line) for name in names for line in name.split("\n"))
    axes, scale = image_grid(
        canvas, blocks * images, 1 + beside, left=left, row_gap=0.07, blocks=blocks
    )
    for block in range(blocks):
        shown = explainers[block * beside : (block + 1) * beside]
        rows = axes[block * images : (block + 1) * images]
        for i in range(images):
            show_image(rows[i, 0], gallery, i)
            rows[i, 0].set_ylabel(
                names[i], fontsize=8, rotation=0, ha="right", va="center", labelpad=6
            )
            for k, one in enumerate(shown, 1):
                show_heatmap(rows[i, k], one.heatmap[i], gallery.mask[i])
            for empty in rows[i, 1 + len(shown) :]:
                empty.remove()
        for k, title in enumerate(["image", *(explainer_title(one.method) for one in shown)]):
            rows[0, k].set_title(title, fontsize=7, pad=3)
    add_legend(canvas, axes[0, 1], scale, _LEGEND)
