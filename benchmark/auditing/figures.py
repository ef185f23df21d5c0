"""Figures of an audit: effects with intervals, changed images, and heatmaps."""

from __future__ import annotations

import numpy as np

from benchmark.auditing.audit import Audit
from benchmark.auditing.examples import Examples
from benchmark.auditing.paired_mean import PairedMean
from benchmark.auditing.verdict import THRESHOLD, Finding, judge_pull, judge_transplant
from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.figures.svg import as_svg, show_image

_COLOURS = {
    Finding.RELIES: "#c03030",
    Finding.NOT_FOUND: "#2f7d4f",
    Finding.UNDECIDED: "#8a6d1d",
}
#: The number of images in the figure of heatmaps.
_HEATMAPS = 6
#: The largest length of an answer in the figure of marks.
_MAX_TEXT = 20


def draw(audit: Audit) -> list[SavedFigure]:
    """Return the figures of an audit."""
    figures = [_effects(audit)]
    if audit.examples is not None:
        figures.append(_examples(audit.examples))
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


def _examples(examples: Examples) -> SavedFigure:
    from matplotlib.figure import Figure

    count = max(len(examples.versions[0].pixels), 1)
    figure = Figure(figsize=(1.15 * count, 4.2), layout="constrained")
    axes = figure.subplots(len(examples.versions), count, squeeze=False)
    for line, version in zip(axes, examples.versions, strict=True):
        line[0].set_ylabel(version.title, fontsize=8)
        for axis, pixels, answer in zip(line, version.pixels, version.answers, strict=False):
            show_image(axis, pixels)
            axis.set_xlabel(answer[:_MAX_TEXT], fontsize=7)
    description = (
        f"Images that are not {examples.label}, the same with a grey patch, and with the "
        f"{examples.mark.kind} of {examples.label}. Below each image is the answer of the model."
    )
    title = f"Images with a {examples.mark.kind}"
    return as_svg(figure, "marks", title, description, full=True)


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
        f"{heatmaps.mark.kind}. This is an illustration, not part of the verdict."
    )
    return as_svg(figure, "heatmaps", "Heatmaps of marked images", description, full=True)
