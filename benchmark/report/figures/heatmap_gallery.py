"""A figure of the heatmaps of every method for the same images, those of disagreement first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.text import one_line
from benchmark.core.titles import Titles
from benchmark.report.records.measurements import MeasurementStore
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.tables.localization import (
    Gallery,
    MethodHeatmaps,
    paired_galleries,
    read_gallery,
)
from benchmark.report.tables.results_table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Code names are shown.
UNTITLED = Titles()
#: Most methods that fit the page; the others are named only.
MAX_METHODS = 12
#: Most images that are explained by two explainers side by side.
MAX_PAIRS = 4
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
_TOP = 0.55
_BOTTOM = 0.85
#: Colour of the frame of a wrong prediction.
_WRONG = "#B00020"
#: Beginning of the names of the galleries of tables.
_NAME = "heatmaps_"
_SEPARATORS = re.compile(r"[^A-Za-z0-9_-]+")  # dots too: LaTeX reads a suffix from the first one


def file_name(table: Table, taken: Sequence[str] = ()) -> str:
    """Return ``heatmaps_<dataset>`` in portable characters, with a number if that name is taken."""
    base = _NAME + (_SEPARATORS.sub("-", table.dataset).strip("-")[:80] or "data")
    name = base
    number = 2
    while name in taken:
        name = f"{base}_{number}"
        number += 1
    return name


def is_gallery(name: str) -> bool:
    """Return whether a name is one of ``file_name``."""
    return name.startswith(_NAME)


def scaled(heatmap: np.ndarray) -> np.ndarray:
    """Return a map float[H,W] scaled by RULE.

    If the percentile is 0, the largest absolute value takes its place. A map of zeros stays as it
    is.
    """
    size = np.abs(heatmap)
    scale = float(np.percentile(size, PERCENTILE)) or float(size.max())
    return np.clip(heatmap / scale, -1.0, 1.0) if scale > 0 else np.zeros_like(heatmap)


def draw_gallery(
    canvas: Canvas,
    table: Table,
    store: PredictionStore | None = None,
    measurements: MeasurementStore | None = None,
) -> str:
    """Draw a column per image and a row per method; if two explainers were measured, both.

    Images on which the methods disagree are first.

    Returns:
        A description of the figure; empty if there are no heatmaps.
    """
    galleries = [] if measurements is None else paired_galleries(table, measurements)
    if not galleries:
        gallery = read_gallery(table)
        if gallery is None or not gallery.methods:
            return ""
        galleries = [gallery]
    most = MAX_PAIRS if len(galleries) > 1 else len(galleries[0].label)
    order = by_disagreement(galleries[0])[:most]
    galleries = [chosen_images(gallery, order) for gallery in galleries]
    draw_grid(canvas, galleries, MAX_METHODS, table.titles)
    return _description(galleries, table.titles)


def by_disagreement(gallery: Gallery) -> np.ndarray:
    """Return the images in order: first those where as many methods are right as are wrong."""
    right = np.array([is_right(gallery, heatmaps) for heatmaps in gallery.methods])
    count = right.sum(0)
    return np.argsort(-np.minimum(count, len(right) - count), kind="stable")


def chosen_images(gallery: Gallery, rows: np.ndarray) -> Gallery:
    """Return a gallery of some of the images."""
    methods = [
        replace(one, heatmap=one.heatmap[rows], prediction=one.prediction[rows])
        for one in gallery.methods
    ]
    return replace(
        gallery,
        split=[gallery.split[r] for r in rows],
        image=gallery.image[rows],
        mask=gallery.mask[rows],
        label=gallery.label[rows],
        methods=methods,
    )


def draw_grid(
    canvas: Canvas, galleries: Sequence[Gallery], most: int, titles: Titles = UNTITLED
) -> None:
    """Draw a column per image and a row per method, with the maps of all galleries side by side.

    Args:
        canvas: Where to draw.
        galleries: Galleries of the same images and methods; the explainers differ.
        most: Most methods that are shown.
        titles: Titles of the explainers.
    """
    first = galleries[0]
    images = len(first.label)
    side = len(galleries)
    names = [
        _row_name(heatmaps, titles, with_explainer=side == 1) for heatmaps in first.methods[:most]
    ]
    left = 0.2 + 0.072 * max(len(line) for name in names for line in name.split("\n"))
    top = _TOP + (0.18 if side > 1 else 0.0)
    axes, scale = image_grid(canvas, 1 + len(names), side * images, left=left, top=top)
    for i in range(images):
        show_image(axes[0, side * i], first, i)
        axes[0, side * i].set_title(image_title(first, i), fontsize=8)
        for k, gallery in enumerate(galleries):
            for r, heatmaps in enumerate(gallery.methods[:most], 1):
                _heatmap(axes[r, side * i + k], gallery, heatmaps, i)
            if side > 1:
                title = explainer_title(titles.of(gallery.methods[0].explainer))
                axes[1, side * i + k].set_title(title, fontsize=7, pad=3)
        for k in range(1, side):
            show_image(axes[0, side * i + k], first, i, outlined=True)
    for r, name in enumerate(["image", *names]):
        axes[r, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", labelpad=6)
    add_legend(canvas, axes[1, 0], scale, LEGEND)


def add_legend(canvas: Canvas, heatmap: Axes, scale: Axes, text: str) -> None:
    """Draw the colour scale of the maps and a text below it.

    Args:
        canvas: Where to draw.
        heatmap: Axes of a map.
        scale: Axes of the colour scale.
        text: The text.
    """
    bar = canvas.colorbar(heatmap.images[0], cax=scale, orientation="horizontal", ticks=[-1, 0, 1])
    bar.ax.set_xticklabels(["−1 against", "0", "+1 for the predicted class"], fontsize=7)
    across, up = canvas.get_size_inches()
    canvas.text(0.1 / across, 0.05 / up, text, fontsize=7, ha="left", va="bottom")


def explainer_title(name: str) -> str:
    """Return the title of an explainer, in two lines if it is long."""
    name = one_line(name)
    if len(name) > 15:
        name = re.sub(r"([ _])", r"\1\n", name, count=1)
    return "\n".join(line if len(line) <= 18 else f"{line[:17]}…" for line in name.split("\n")[:2])


def image_grid(
    canvas: Canvas,
    rows: int,
    columns: int,
    left: float = _LEFT,
    top: float = _TOP,
    row_gap: float = _ROW_GAP,
    blocks: int = 1,
) -> tuple[np.ndarray, Axes]:
    """Return axes [rows, columns] for square images, and those of the colour scale.

    They are placed in inches, since a layout engine takes seconds.

    Args:
        canvas: Where they are placed; its size is set.
        rows: Number of rows.
        columns: Number of columns.
        left: Margin for the names of the rows, in inches.
        top: Margin for the titles of the columns, in inches.
        row_gap: Gap between two rows, in inches.
        blocks: Number of blocks of equally many rows; each has titles of columns.
    """
    canvas.set_layout_engine("none")
    width = max(left + columns * (_CELL + _COLUMN_GAP) + _RIGHT, 4.6)
    height = blocks * top + rows * (_CELL + row_gap) + _BOTTOM
    canvas.set_size_inches(width, height)
    axes = np.empty((rows, columns), dtype=object)
    for r, c in np.ndindex(rows, columns):
        start = left + c * (_CELL + _COLUMN_GAP)
        block = r * blocks // rows
        bottom = height - (block + 1) * top - r * (_CELL + row_gap) - _CELL
        axes[r, c] = canvas.add_axes(
            (start / width, bottom / height, _CELL / width, _CELL / height)
        )
    return axes, canvas.add_axes((left / width, 0.62 / height, 2.4 / width, 0.09 / height))


def show_image(axes: Axes, gallery: Gallery, i: int, *, outlined: bool = False) -> None:
    """Draw an image; outlined, its background is faded and its foreground has an outline."""
    image = gallery.image[i].transpose(1, 2, 0)
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2)
    bare(axes)
    if outlined:
        image = np.where(gallery.mask[i][..., None], image, image // 4 + 191).astype(np.uint8)
    axes.imshow(image, interpolation="nearest")
    if outlined:
        _outline(axes, gallery.mask[i])


def show_heatmap(axes: Axes, heatmap: np.ndarray, mask: np.ndarray) -> None:
    """Draw a map float[H,W], scaled by RULE, with the outline of a mask bool[H,W]."""
    bare(axes)
    axes.imshow(scaled(heatmap), cmap="seismic", vmin=-1, vmax=1, interpolation="nearest")
    _outline(axes, mask)


def _heatmap(axes: Axes, gallery: Gallery, heatmaps: MethodHeatmaps, r: int) -> None:
    show_heatmap(axes, heatmaps.heatmap[r], gallery.mask[r])
    right = bool(is_right(gallery, heatmaps)[r])
    axes.set_xlabel(
        f"{'✓' if right else '✗'} {label_name(gallery, int(heatmaps.prediction[r]))}",
        fontsize=7,
        labelpad=2,
        color="black" if right else _WRONG,
    )
    if not right:
        for side in axes.spines.values():
            side.set(linewidth=2.4, color=_WRONG)


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


def label_name(gallery: Gallery, label: int) -> str:
    """Return the name of a class in at most 12 characters."""
    known = label < len(gallery.label_names)
    name = one_line(str(gallery.label_names[label])) if known else str(label)
    return name if len(name) <= 12 else f"{name[:11]}…"


def image_title(gallery: Gallery, r: int) -> str:
    """Return the split and the labels of an image in two lines."""
    split = one_line(gallery.split[r])
    if gallery.label.ndim == 1:
        return f"{split}\n{label_name(gallery, int(gallery.label[r]))}"
    labels = np.flatnonzero(gallery.label[r])
    if not len(labels):
        return f"{split}\nnone"
    more = f" +{len(labels) - 1}" if len(labels) > 1 else ""
    return f"{split}\n{label_name(gallery, int(labels[0]))}{more}"


def is_right(gallery: Gallery, heatmaps: MethodHeatmaps) -> np.ndarray:
    """Return whether the class that each map explains is a label of the image, bool[G]."""
    if gallery.label.ndim == 1:
        return heatmaps.prediction == gallery.label
    return gallery.label[np.arange(len(gallery.label)), heatmaps.prediction] == 1


def _row_name(heatmaps: MethodHeatmaps, titles: Titles, *, with_explainer: bool) -> str:
    """Return the method in lines of at most 24 characters; a longer part is cut in its middle.

    Args:
        heatmaps: The method.
        titles: Titles of the explainers.
        with_explainer: Whether an explainer other than LRP is named.
    """
    name = one_line(heatmaps.method).replace(" (", "\n(").replace(":", ":\n")
    if with_explainer and heatmaps.explainer not in ("", "lrp"):
        name += f"\n[{one_line(titles.of(heatmaps.explainer))}]"
    return "\n".join(
        line if len(line) <= 24 else f"{line[:14]}…{line[-9:]}" for line in name.split("\n")
    )


def _description(galleries: Sequence[Gallery], titles: Titles) -> str:
    gallery = galleries[0]
    methods = gallery.methods[:MAX_METHODS]
    right = ", ".join(
        f"{one_line(heatmaps.method)} {int(is_right(gallery, heatmaps).sum())} "
        f"of {len(gallery.label)}"
        for heatmaps in methods
    )
    splits = " and ".join(dict.fromkeys(one_line(split) for split in gallery.split))
    names = dict.fromkeys(titles.of(one.explainer) for each in galleries for one in each.methods)
    left = [
        *gallery.notes,
        *(f"{heatmaps.method}: no room" for heatmaps in gallery.methods[MAX_METHODS:]),
    ]
    missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
    return (
        f"Evidence for the predicted class by {one_line(' and '.join(names))} in the same "
        f"{len(gallery.label)} images of {splits}, trial {gallery.trial}; images on which methods "
        f"disagree are first. Red: evidence for the class; blue: against. {RULE} "
        f"Correct predictions: {right}.{missing}"
    )
