"""A figure of images and their heatmaps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from benchmark.api.images import NamedImages

if TYPE_CHECKING:
    from pandas import DataFrame

#: Height and width of one image in the figure, in inches.
_INCHES = 2.0
#: Largest number of characters of a file name above its image.
_MAX_NAME = 26


class NotebookFigure(Figure):
    """A figure that a notebook displays, also if pyplot has drawn nothing yet."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw_heatmaps(read: NamedImages, table: DataFrame, maps: np.ndarray, explainer: str) -> Figure:
    """Draw each image, its heatmap over a grey version of it, and the predicted class.

    Args:
        read: the images.
        table: their predictions, from ``prediction_table``.
        maps: float[N,H,W], relevance of the pixels.
        explainer: name of the explainer, for the title of the heatmaps.
    """
    count = len(read.names)
    figure = NotebookFigure(
        figsize=(2 * _INCHES + 0.4, count * (_INCHES + 0.45)), layout="constrained"
    )
    axes = figure.subplots(count, 2, squeeze=False)
    for row in range(count):
        colours, grey = _to_display(read.pixels[row])
        probability = table.iloc[row, 2:].astype(float).max()
        axes[row, 0].imshow(colours, cmap="gray", vmin=0, vmax=255)
        axes[row, 0].set_title(_short(read.names[row]), fontsize=8)
        heatmap = np.nan_to_num(maps[row])
        largest = float(np.abs(heatmap).max()) or 1.0
        axes[row, 1].imshow(grey, cmap="gray", vmin=0, vmax=255)
        axes[row, 1].imshow(heatmap / largest, cmap="bwr", vmin=-1, vmax=1, alpha=0.6)
        predicted = table["predicted"].iloc[row] or "none"
        axes[row, 1].set_title(f"{explainer}: {predicted} ({probability:.0%})", fontsize=8)
        for axis in axes[row]:
            axis.set_axis_off()
    return figure


def _to_display(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image uint8[C,H,W] as matplotlib draws it, and its mean over channels."""
    channels = len(pixels)
    grey = pixels.mean(0)
    if channels == 1:
        return pixels[0], grey
    if channels == 2:  # red and green
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    return pixels.transpose(1, 2, 0), grey


def _short(name: str) -> str:
    last = Path(name).name
    return last if len(last) <= _MAX_NAME else f"…{last[-_MAX_NAME + 1 :]}"
