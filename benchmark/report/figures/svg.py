"""Figures as SVG elements, and images within them, for pages that are not reports of sweeps."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.report.figures.summary_plots import SavedFigure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_svg(
    figure: Figure, name: str, title: str, description: str, *, full: bool = False
) -> SavedFigure:
    """Return a figure of matplotlib as an SVG element.

    Args:
        figure: The figure.
        name: Name of the figure.
        title: Title of the figure.
        description: Text that says what the figure shows.
        full: Whether the figure takes the width of the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return SavedFigure(name, title, description, svg[svg.index("<svg") :], full)


def show_image(axis: Any, pixels: np.ndarray) -> None:
    """Draw an image without ticks.

    Args:
        axis: Axis of matplotlib.
        pixels: uint8[C,H,W], where C is 1 (grey), 2 (red and green) or 3.
    """
    if len(pixels) == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255)
    axis.set_xticks([])
    axis.set_yticks([])
