"""The heatmap gallery: the same images for every method, one rule for all scales, written on the figure."""

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

#: Columns of heatmaps that a page is wide enough for; the methods beyond are named, not drawn.
MAX_METHODS = 12
#: The scale rule; 99 and not 100 so that a single bright pixel does not hide all others.
PERCENTILE = 99
RULE = f"Each map is divided by the {PERCENTILE}th percentile of its absolute values and cut off at ±1."
LEGEND = f"{RULE}\n✓ right, ✗ wrong (thick frame), with the predicted class. Outline: foreground."
#: Inches: side of a picture, gaps between columns and rows, and what surrounds the grid.
_CELL, _GAP, _LINE = 0.95, 0.07, 0.24
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.5, 0.12, 0.5, 0.85
_SEPARATORS = re.compile(r"[^A-Za-z0-9_-]+")  # LaTeX takes what follows a dot for the kind of file


def file_name(table: Table, taken: Sequence[str] = ()) -> str:
    """``heatmaps_<dataset>``, in characters that every file system takes; numbered where it is taken."""
    base = "heatmaps_" + (_SEPARATORS.sub("-", table.dataset).strip("-")[:80] or "data")
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def scaled(heatmap: np.ndarray) -> np.ndarray:
    """A map float[H,W] by RULE; where the percentile is 0, by the largest absolute value; a zero map stays zero."""
    size = np.abs(heatmap)
    by = float(np.percentile(size, PERCENTILE)) or float(size.max())
    return np.clip(heatmap / by, -1.0, 1.0) if by > 0 else np.zeros_like(heatmap)


def draw_gallery(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Rows are images; columns the image, its foreground, every method's heatmap. Returns what it shows, in words."""
    gallery = read_gallery(table)
    if gallery is None or not gallery.methods:
        return ""
    methods = gallery.methods[:MAX_METHODS]
    rows, columns = len(gallery.label), 2 + len(methods)
    axes, scale = _grid(canvas, rows, columns)
    for r in range(rows):
        _picture(axes[r, 0], gallery, r)
        _picture(axes[r, 1], gallery, r, outlined=True)
        axes[r, 0].set_ylabel(_row_label(gallery, r), fontsize=7)
        for c, heatmaps in enumerate(methods, 2):
            _heatmap(axes[r, c], gallery, heatmaps, r)
    for c, title in enumerate(["image", "foreground", *(_title(heatmaps) for heatmaps in methods)]):
        axes[0, c].set_title(title, fontsize=8)
    bar = canvas.colorbar(
        axes[0, 2].images[0], cax=scale, orientation="horizontal", ticks=[-1, 0, 1]
    )
    bar.ax.set_xticklabels(["−1 against", "0", "+1 for the predicted class"], fontsize=7)
    canvas.text(0.5, 0.05 / canvas.get_figheight(), LEGEND, fontsize=7, ha="center", va="bottom")
    return _description(gallery, methods)


def _grid(canvas: Canvas, rows: int, columns: int) -> tuple[np.ndarray, Axes]:
    """Axes [rows, columns] and those of the colour scale, all placed in inches: a layout engine would take seconds."""
    canvas.set_layout_engine("none")
    width = max(_LEFT + columns * (_CELL + _GAP) + _RIGHT, 4.6)
    height = _TOP + rows * (_CELL + _LINE) + _BOTTOM
    canvas.set_size_inches(width, height)
    axes = np.empty((rows, columns), dtype=object)
    for r, c in np.ndindex(rows, columns):
        bottom = height - _TOP - r * (_CELL + _LINE) - _CELL
        axes[r, c] = canvas.add_axes(
            ((_LEFT + c * (_CELL + _GAP)) / width, bottom / height, _CELL / width, _CELL / height)
        )
    return axes, canvas.add_axes((0.5 - 1.2 / width, 0.62 / height, 2.4 / width, 0.09 / height))


def _picture(axes: Axes, gallery: Gallery, r: int, outlined: bool = False) -> None:
    image = gallery.image[r].transpose(1, 2, 0)
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2)
    _bare(axes)
    if outlined:  # the background is faded
        image = np.where(gallery.mask[r][..., None], image, image // 4 + 191).astype(np.uint8)
    axes.imshow(image, interpolation="nearest")
    if outlined:
        _outline(axes, gallery.mask[r])


def _heatmap(axes: Axes, gallery: Gallery, heatmaps: MethodHeatmaps, r: int) -> None:
    _bare(axes)
    axes.imshow(
        scaled(heatmaps.heatmap[r]), cmap="seismic", vmin=-1, vmax=1, interpolation="nearest"
    )
    _outline(axes, gallery.mask[r])
    right = bool(_right(gallery, heatmaps)[r])
    axes.set_xlabel(
        f"{'✓' if right else '✗'} {_name(gallery, int(heatmaps.prediction[r]))}",
        fontsize=7,
        labelpad=2,
    )
    if not right:
        for side in axes.spines.values():
            side.set(linewidth=2.4)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """The mask's edge along pixel borders, black on white so that it shows on every ground."""
    axes.autoscale(False)
    padded = np.pad(mask, 1)
    for edges, across in (
        (padded[1:, :] != padded[:-1, :], True),
        (padded[:, 1:] != padded[:, :-1], False),
    ):
        found = np.argwhere(edges)
        if not len(found):
            continue
        y, x = found[:, 0] - (0.5 if across else 1), found[:, 1] - (1 if across else 0.5)
        gap = np.full(len(found), np.nan)
        xs = np.stack([x - 0.5, x + 0.5, gap] if across else [x, x, gap], 1).ravel()
        ys = np.stack([y, y, gap] if across else [y - 0.5, y + 0.5, gap], 1).ravel()
        axes.plot(xs, ys, color="white", linewidth=1.6, solid_capstyle="projecting")
        axes.plot(xs, ys, color="black", linewidth=0.8, solid_capstyle="projecting")


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set(linewidth=0.5, color="black")


def _name(gallery: Gallery, label: int) -> str:
    name = (
        one_line(str(gallery.label_names[label]))
        if label < len(gallery.label_names)
        else str(label)
    )
    return name if len(name) <= 12 else f"{name[:11]}…"


def _row_label(gallery: Gallery, r: int) -> str:
    if gallery.label.ndim == 1:
        return f"{one_line(gallery.split[r])}\n{_name(gallery, int(gallery.label[r]))}"
    there = np.flatnonzero(gallery.label[r])
    more = f" +{len(there) - 1}" if len(there) > 1 else ""
    return f"{one_line(gallery.split[r])}\n{_name(gallery, int(there[0])) if len(there) else 'none'}{more}"


def _right(gallery: Gallery, heatmaps: MethodHeatmaps) -> np.ndarray:
    """Whether what each map explains is right, bool[G]; where an image may have several labels, whether it is there."""
    if gallery.label.ndim == 1:
        return heatmaps.prediction == gallery.label
    return gallery.label[np.arange(len(gallery.label)), heatmaps.prediction] == 1


def _title(heatmaps: MethodHeatmaps) -> str:
    """The method, broken where it may be; another explanation than LRP is named."""
    name = one_line(heatmaps.method).replace(" (", "\n(").replace(":", ":\n")
    name = name.replace("_", "_\n", 1) if max(map(len, name.split("\n"))) > 13 else name
    lines = [line if len(line) <= 17 else f"{line[:16]}…" for line in name.split("\n")]
    return "\n".join(
        [*lines, *([f"[{heatmaps.explainer}]"] if heatmaps.explainer != "lrp" else [])]
    )


def _description(gallery: Gallery, methods: Sequence[MethodHeatmaps]) -> str:
    right = ", ".join(
        f"{one_line(heatmaps.method)} {int(_right(gallery, heatmaps).sum())} of {len(gallery.label)}"
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
        f"Heatmaps ({explainers}) of the predicted class for the same {len(gallery.label)} images of {splits}, trial "
        f"{gallery.trial}; red: for, blue: against. {RULE} Right: {right}.{missing}"
    )
