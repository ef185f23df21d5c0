"""Figures of an audit: effects with intervals, changed images, and heatmaps."""

from __future__ import annotations

import numpy as np

from benchmark.auditing.audit import Audit
from benchmark.auditing.paired_mean import PairedMean
from benchmark.auditing.pull import Mark, neutral_patch, planted_image
from benchmark.auditing.verdict import THRESHOLD, Finding, judge_pull, judge_transplant
from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.figures.svg import as_svg, show_image

_COLOURS = {
    Finding.RELIES: "#c03030",
    Finding.NOT_FOUND: "#2f7d4f",
    Finding.UNDECIDED: "#8a6d1d",
}
#: The number of images in the figures of marks and heatmaps.
_EXAMPLES = 8
_HEATMAPS = 6


def draw(audit: Audit) -> list[SavedFigure]:
    """Return the figures of an audit."""
    figures = [_effects(audit)]
    if audit.pulls:
        figures.append(_examples(audit, audit.pulls[0].mark))
    if audit.heatmaps is not None:
        figures.append(_heatmaps(audit))
    return figures


def _effects(audit: Audit) -> SavedFigure:
    from matplotlib.figure import Figure

    bars: list[tuple[str, PairedMean, Finding]] = []
    for pull in audit.pulls:
        finding = judge_pull(pull).finding
        bars.append((f"{pull.mark.kind} (mark)", pull.estimate, finding))
    for transplant in audit.transplants:
        finding = judge_transplant(transplant).finding
        bars.append((f"{transplant.region.name} (exchange)", transplant.estimate, finding))
    figure = Figure(figsize=(7.5, 0.38 * len(bars) + 1.1), layout="constrained")
    axis = figure.subplots()
    for row, (_, estimate, finding) in enumerate(bars):
        if estimate.units:
            axis.plot(
                [estimate.low, estimate.high], [row, row], color=_COLOURS[finding], linewidth=2
            )
            axis.plot(estimate.mean, row, "o", color=_COLOURS[finding])
    axis.axvline(THRESHOLD, color="#555555", linewidth=0.8, linestyle="--")
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axis.invert_yaxis()
    axis.set_xlabel("share of answers that follow the mark or the region")
    description = (
        "Effect of every mark and of every exchanged region with its interval. Dashed: the "
        f"threshold of {THRESHOLD:.0%}. Red: relies; green: no reliance found; brown: undecided."
    )
    return as_svg(figure, "effects", "Effects of marks and regions", description, full=True)


def _examples(audit: Audit, mark: Mark) -> SavedFigure:
    from matplotlib.figure import Figure

    images = audit.images
    label = audit.probed[0]
    planted = planted_image(images, mark, label)
    neutral = neutral_patch(images.pixels, planted.pasted, mark)
    count = min(_EXAMPLES, len(images))
    rows = np.linspace(0, len(images) - 1, count).round().astype(int)
    figure = Figure(figsize=(1.15 * count, 3.9), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    for column, row in enumerate(rows):
        for line, pixels in enumerate((images.pixels, neutral, planted.image)):
            show_image(axes[line, column], pixels[row])
    for line, title in enumerate(("original", "grey patch", f"mark of {audit.labels[label]}")):
        axes[line, 0].set_ylabel(title, fontsize=8)
    description = (
        f"Images, the same with a grey patch, and with the {mark.kind} of the class "
        f"{audit.labels[label]}."
    )
    return as_svg(figure, "marks", f"Images with a {mark.kind}", description, full=True)


def _heatmaps(audit: Audit) -> SavedFigure:
    from matplotlib.figure import Figure

    heatmaps = audit.heatmaps
    assert heatmaps is not None
    count = min(_HEATMAPS, len(heatmaps.marked))
    lines = 1 + len(heatmaps.maps)
    figure = Figure(figsize=(1.3 * count, 1.35 * lines), layout="constrained")
    axes = figure.subplots(lines, count, squeeze=False)
    for column in range(count):
        show_image(axes[0, column], heatmaps.marked[column])
        for line, pixels in enumerate(heatmaps.maps.values(), 1):
            heatmap = np.nan_to_num(pixels[column])
            largest = float(np.abs(heatmap).max()) or 1.0
            axes[line, column].imshow(heatmap / largest, cmap="bwr", vmin=-1, vmax=1)
            axes[line, column].set_xticks([])
            axes[line, column].set_yticks([])
    for line, title in enumerate(("image", *heatmaps.maps)):
        axes[line, 0].set_ylabel(title, fontsize=8)
    description = (
        f"Relevance for the class {audit.labels[audit.probed[0]]} in images with its "
        f"{heatmaps.mark.kind}. An illustration: it is no part of the verdict."
    )
    return as_svg(figure, "heatmaps", "Heatmaps of marked images", description, full=True)
