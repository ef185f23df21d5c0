"""The report of a scan: text for the terminal, and an HTML page with figures."""

from __future__ import annotations

import numpy as np

from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.figures.svg import as_svg, show_image
from benchmark.report.html.parts import document, figures_part, sheet_part, text
from benchmark.report.tables.sheet import Sheet
from benchmark.scanning.properties import Tier, region_of
from benchmark.scanning.scan import ALPHA, MIN_AUC, FamilyResult, Scan, extreme_rows

_COLOURS = {Tier.NOT_OBJECT: "#c03030", Tier.EITHER: "#b07d10", Tier.OBJECT: "#708090"}
#: The number of images at each end of a sheet.
_EXTREMES = 8


def sentence(found: Scan) -> str:
    """Return what a scan found, in one sentence."""
    suspects = found.suspects
    if not suspects:
        return (
            "No plain property predicts the label that could not be the object itself; a shortcut "
            "of another kind could not have been seen."
        )
    listed = ", ".join(
        f"{result.family.name} ({_auc(result)}, {result.family.tier})" for result in suspects
    )
    return (
        f"The label is predicted by {listed}. A network may use them instead of the object; "
        "whether one does is a question for `python -m benchmark.audit`."
    )


def scan_sheet(found: Scan) -> Sheet:
    """Return the table of all families."""
    rows = []
    for result in found.results:
        low, high = result.bounds[result.best]
        finding = "–"
        if result.predicts:
            finding = "suspect" if result.is_suspect else "predicts (content)"
        rows.append(
            [
                result.family.name,
                str(result.family.tier),
                found.classes[result.best],
                f"{result.predictions[result.best].auc:.2f}",
                f"[{low:.2f}, {high:.2f}]",
                f"{result.p_holm:.2g}",
                finding,
            ]
        )
    given = " Images are compared only with images of the same confounder." if found.given else ""
    caption = [
        f"How well plain properties of {len(found.rows):,} images of {found.split} predict the "
        "label: AUC of a simple classifier that is trained on one half and tested on the other, "
        f"for the class that is predicted best.{given} Intervals and p hold for all classes and "
        f"families together. A family is reported if p < {ALPHA} and the lower bound of its own "
        f"95 % interval is at least {MIN_AUC}; it is suspect unless it usually describes the "
        "object.",
    ]
    heads = [["property"], ["tier"], ["class"], ["AUC"], ["95 %"], ["p"], ["finding"]]
    notes = [f"Not tested: {reason}." for reason in found.untested]
    notes += [
        f"Near-duplicates of images of {pair.first} in {pair.second} (perceptual hash): "
        f"{len(pair.pairs):,}; the first pair is {names[0]} and {names[1]}."
        for pair, names in zip(found.near_duplicates, found.first_duplicates, strict=True)
    ]
    return Sheet("Properties that predict the label", caption, heads, rows, stub=3, notes=notes)


def page(found: Scan) -> str:
    """Return a scan as one self-contained HTML document."""
    title = f"Scan of {found.data}"
    figures = [_ranking(found)]
    for result in [r for r in found.results if r.predicts][:6]:
        figures += [_histogram(found, result), _means(found, result), _sheet(found, result)]
    body = (
        f"<h1>{text(title)}</h1><main><p><b>{text(sentence(found))}</b></p>"
        f"{figures_part(figures[:1])}{sheet_part(scan_sheet(found), 2)}"
        f"{figures_part(figures[1:])}</main>"
    )
    return document(title, body)


def _auc(result: FamilyResult) -> str:
    return f"AUC {result.predictions[result.best].auc:.2f}"


def _ranking(found: Scan) -> SavedFigure:
    from matplotlib.figure import Figure

    count = max(len(found.results), 1)
    figure = Figure(figsize=(7.5, 0.27 * count + 1.0), layout="constrained")
    axis = figure.subplots()
    for row, result in enumerate(found.results):
        colour = _COLOURS[result.family.tier]
        low, high = result.bounds[result.best]
        axis.plot([low, high], [row, row], color=colour, linewidth=2)
        marker = "D" if result.is_suspect else "o"
        axis.plot(result.predictions[result.best].auc, row, marker, color=colour)
    axis.axvline(0.5, color="#999999", linewidth=0.8)
    axis.axvline(MIN_AUC, color="#555555", linewidth=0.8, linestyle="--")
    axis.set_yticks(range(len(found.results)), [r.family.name for r in found.results])
    axis.invert_yaxis()
    axis.set_xlabel("AUC, for the class that is predicted best")
    description = (
        "Red: cannot be the object; ochre: may be either; grey: usually the object. Diamonds are "
        "suspects. Intervals hold for all families and classes together."
    )
    return as_svg(figure, "ranking", "Properties that predict the label", description, full=True)


def _histogram(found: Scan, result: FamilyResult) -> SavedFigure:
    from matplotlib.figure import Figure

    prediction = result.predictions[result.best]
    scores = prediction.scores
    defined = np.isfinite(scores)
    positive = _positive(found, result)
    figure = Figure(figsize=(4.8, 2.6), layout="constrained")
    axis = figure.subplots()
    bins = np.histogram_bin_edges(scores[defined], 24).tolist()
    for value, name in ((True, found.classes[result.best]), (False, "other")):
        axis.hist(scores[defined & (positive == value)], bins, density=True, alpha=0.5, label=name)
    axis.legend(fontsize=8)
    axis.set_xlabel(f"score by {result.family.name}")
    axis.set_yticks([])
    title = f"{result.family.name}: {_auc(result)}"
    return as_svg(figure, "histogram", title, "Scores of the classes.")


def _positive(found: Scan, result: FamilyResult) -> np.ndarray:
    """Return which scanned images have the best class of a result."""
    return found.positive[:, result.best]


def _means(found: Scan, result: FamilyResult) -> SavedFigure:
    from matplotlib.figure import Figure

    positive = _positive(found, result)
    figure = Figure(figsize=(4.2, 2.3), layout="constrained")
    axes = figure.subplots(1, 2)
    height, width = found.image.shape[2:]
    region = region_of(result.family.name, height, width)
    titles = (found.classes[result.best], "other")
    for axis, rows, title in zip(axes, (positive, ~positive), titles, strict=True):
        show_image(axis, found.image[rows].mean(0).round().astype(np.uint8))
        axis.set_title(title, fontsize=8)
        if region is not None:
            axis.contour(region, levels=[0.5], colors=_COLOURS[result.family.tier])
    description = "The mean image of the class and that of all others."
    if region is not None:
        description += " The line surrounds the measured region."
    title = f"Mean images, {result.family.name}"
    return as_svg(figure, "means", title, description)


def _sheet(found: Scan, result: FamilyResult) -> SavedFigure:
    from matplotlib.figure import Figure

    order = extreme_rows(result)
    count = min(_EXTREMES, len(order) // 2)
    figure = Figure(figsize=(0.8 * max(count, 1), 2.2), layout="constrained")
    axes = figure.subplots(2, max(count, 1), squeeze=False)
    for line, rows in enumerate((order[:count], order[len(order) - count :])):
        for column, row in enumerate(rows):
            show_image(axes[line, column], found.image[row])
    description = (
        f"Images with the lowest (above) and the highest scores by {result.family.name} for the "
        f"class {found.classes[result.best]}."
    )
    return as_svg(figure, "extremes", f"Extremes of {result.family.name}", description)
