"""A figure of the heatmaps of every method for the same images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.text import one_line
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.tables.localization import Gallery, MethodHeatmaps, read_gallery
from benchmark.report.tables.results_table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Most methods that fit the page; the others are named only.
MAX_METHODS = 12
#: Percentile of absolute values that scales a map, so that one bright pixel does not hide others.
PERCENTILE = 99
RULE = (
    f"Each map is divided by the {PERCENTILE}th percentile of its absolute values "
    "and cut off at ±1."
)
LEGEND = f"{RULE}\n✓ right, ✗ wrong (thick frame), with the predicted class. Outline: foreground."
#: Lengths in inches: side of an image, gaps between columns and rows, and margins of the grid.
_CELL = 0.95
_COLUMN_GAP = 0.07
_ROW_GAP = 0.24
_LEFT = 0.5
_RIGHT = 0.12
_TOP = 0.5
_BOTTOM = 0.85
_SEPARATORS = re.compile(r"[^A-Za-z0-9_-]+")  # dots too: LaTeX reads a suffix from the first one


def file_name(table: Table, taken: Sequence[str] = ()) -> str:
    """Return ``heatmaps_<dataset>`` in portable characters, with a number if that name is taken."""
    base = "heatmaps_" + (_SEPARATORS.sub("-", table.dataset).strip("-")[:80] or "data")
    name = base
    number = 2
    while name in taken:
        name = f"{base}_{number}"
        number += 1
    return name


def scaled(heatmap: np.ndarray) -> np.ndarray:
    """Return a map float[H,W] scaled by RULE.

    If the percentile is 0, the largest absolute value takes its place. A map of zeros stays as it
    is.
    """
    size = np.abs(heatmap)
    scale = float(np.percentile(size, PERCENTILE)) or float(size.max())
    return np.clip(heatmap / scale, -1.0, 1.0) if scale > 0 else np.zeros_like(heatmap)


def draw_gallery(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Draw a row per image: the image, its foreground, and the heatmap of every method.

    Returns:
        A description of the figure; empty if there are no heatmaps.
    """
    gallery = read_gallery(table)
    if gallery is None or not gallery.methods:
        return ""
    draw_grid(canvas, gallery, gallery.methods[:MAX_METHODS])
    return _description(gallery, gallery.methods[:MAX_METHODS])


def draw_grid(canvas: Canvas, gallery: Gallery, columns: Sequence[MethodHeatmaps]) -> None:
    """Draw a row per image: the image, its foreground, and a heatmap for each column."""
    rows = len(gallery.label)
    axes, scale = image_grid(canvas, rows, 2 + len(columns))
    for r in range(rows):
        _image(axes[r, 0], gallery, r)
        _image(axes[r, 1], gallery, r, outlined=True)
        axes[r, 0].set_ylabel(_row_label(gallery, r), fontsize=7)
        for c, heatmaps in enumerate(columns, 2):
            _heatmap(axes[r, c], gallery, heatmaps, r)
    for c, title in enumerate(["image", "foreground", *(_title(heatmaps) for heatmaps in columns)]):
        axes[0, c].set_title(title, fontsize=8)
    bar = canvas.colorbar(
        axes[0, 2].images[0], cax=scale, orientation="horizontal", ticks=[-1, 0, 1]
    )
    bar.ax.set_xticklabels(["−1 against", "0", "+1 for the predicted class"], fontsize=7)
    canvas.text(0.5, 0.05 / canvas.get_figheight(), LEGEND, fontsize=7, ha="center", va="bottom")


def image_grid(canvas: Canvas, rows: int, columns: int) -> tuple[np.ndarray, Axes]:
    """Return axes [rows, columns] for square images, and those of the colour scale.

    They are placed in inches, since a layout engine takes seconds.
    """
    canvas.set_layout_engine("none")
    width = max(_LEFT + columns * (_CELL + _COLUMN_GAP) + _RIGHT, 4.6)
    height = _TOP + rows * (_CELL + _ROW_GAP) + _BOTTOM
    canvas.set_size_inches(width, height)
    axes = np.empty((rows, columns), dtype=object)
    for r, c in np.ndindex(rows, columns):
        left = _LEFT + c * (_CELL + _COLUMN_GAP)
        bottom = height - _TOP - r * (_CELL + _ROW_GAP) - _CELL
        axes[r, c] = canvas.add_axes((left / width, bottom / height, _CELL / width, _CELL / height))
    return axes, canvas.add_axes((0.5 - 1.2 / width, 0.62 / height, 2.4 / width, 0.09 / height))


def _image(axes: Axes, gallery: Gallery, r: int, *, outlined: bool = False) -> None:
    image = gallery.image[r].transpose(1, 2, 0)
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2)
    bare(axes)
    if outlined:  # the background is faded
        image = np.where(gallery.mask[r][..., None], image, image // 4 + 191).astype(np.uint8)
    axes.imshow(image, interpolation="nearest")
    if outlined:
        _outline(axes, gallery.mask[r])


def _heatmap(axes: Axes, gallery: Gallery, heatmaps: MethodHeatmaps, r: int) -> None:
    bare(axes)
    axes.imshow(
        scaled(heatmaps.heatmap[r]), cmap="seismic", vmin=-1, vmax=1, interpolation="nearest"
    )
    _outline(axes, gallery.mask[r])
    right = bool(_is_right(gallery, heatmaps)[r])
    axes.set_xlabel(
        f"{'✓' if right else '✗'} {_name(gallery, int(heatmaps.prediction[r]))}",
        fontsize=7,
        labelpad=2,
    )
    if not right:
        for side in axes.spines.values():
            side.set(linewidth=2.4)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """Draw the edge of a mask along pixel borders, black on white to be visible everywhere."""
    axes.autoscale(False)
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[1:, :] != padded[:-1, :])
    y = rows - 0.5
    _segments(axes, (columns - 1.5, columns - 0.5), (y, y))
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    x = columns - 0.5
    _segments(axes, (x, x), (rows - 1.5, rows - 0.5))


def _segments(
    axes: Axes, x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]
) -> None:
    """Draw line segments from their two ends."""
    if not len(x[0]):
        return
    gap = np.full(len(x[0]), np.nan)
    xs = np.stack([*x, gap], axis=1).ravel()
    ys = np.stack([*y, gap], axis=1).ravel()
    axes.plot(xs, ys, color="white", linewidth=1.6, solid_capstyle="projecting")
    axes.plot(xs, ys, color="black", linewidth=0.8, solid_capstyle="projecting")


def bare(axes: Axes) -> None:
    """Leave only a thin frame around an image."""
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set(linewidth=0.5, color="black")


def _name(gallery: Gallery, label: int) -> str:
    known = label < len(gallery.label_names)
    name = one_line(str(gallery.label_names[label])) if known else str(label)
    return name if len(name) <= 12 else f"{name[:11]}…"


def _row_label(gallery: Gallery, r: int) -> str:
    split = one_line(gallery.split[r])
    if gallery.label.ndim == 1:
        return f"{split}\n{_name(gallery, int(gallery.label[r]))}"
    labels = np.flatnonzero(gallery.label[r])
    if not len(labels):
        return f"{split}\nnone"
    more = f" +{len(labels) - 1}" if len(labels) > 1 else ""
    return f"{split}\n{_name(gallery, int(labels[0]))}{more}"


def _is_right(gallery: Gallery, heatmaps: MethodHeatmaps) -> np.ndarray:
    """Return whether the class that each map explains is a label of the image, bool[G]."""
    if gallery.label.ndim == 1:
        return heatmaps.prediction == gallery.label
    return gallery.label[np.arange(len(gallery.label)), heatmaps.prediction] == 1


def _title(heatmaps: MethodHeatmaps) -> str:
    """Return the method, broken into short lines, and the explainer if it is not LRP."""
    name = one_line(heatmaps.method).replace(" (", "\n(").replace(":", ":\n")
    name = name.replace("_", "_\n", 1) if max(map(len, name.split("\n"))) > 13 else name
    lines = [line if len(line) <= 17 else f"{line[:16]}…" for line in name.split("\n")]
    if heatmaps.explainer not in ("", "lrp"):
        lines.append(f"[{heatmaps.explainer}]")
    return "\n".join(lines)


def _description(gallery: Gallery, methods: Sequence[MethodHeatmaps]) -> str:
    right = ", ".join(
        f"{one_line(heatmaps.method)} {int(_is_right(gallery, heatmaps).sum())} "
        f"of {len(gallery.label)}"
        for heatmaps in methods
    )
    splits = " and ".join(dict.fromkeys(one_line(split) for split in gallery.split))
    explainers = ", ".join(dict.fromkeys(heatmaps.explainer for heatmaps in methods))
    left = [
        *gallery.notes,
        *(f"{heatmaps.method}: no room" for heatmaps in gallery.methods[MAX_METHODS:]),
    ]
    missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
    return (
        f"Heatmaps ({explainers}) of the predicted class for the same {len(gallery.label)} "
        f"images of {splits}, trial {gallery.trial}. Red: evidence for the class; blue: against. "
        f"{RULE} Correct predictions: {right}.{missing}"
    )
