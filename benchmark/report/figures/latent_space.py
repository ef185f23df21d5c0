"""A figure of the latent space: features of test images in two dimensions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.text import one_line
from benchmark.report.figures.style import (
    CONFOUNDER_COLOURS,
    ENVIRONMENT_COLOURS,
    LABEL_COLOURS,
    MARKERS,
)
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.stored_arrays import read_embeddings
from benchmark.report.tables.results_table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Most methods that fit the page; the others are named only.
MAX_METHODS = 6
#: Most names in a legend; the others are counted.
MAX_LEGEND_NAMES = 8
#: Default number of neighbours of UMAP. Splits with no more images are projected by PCA.
NEIGHBOURS = 15
#: What the images are coloured by, and the colours, which differ from those of methods.
_COLOURED_BY = {
    "label": LABEL_COLOURS,
    "confounder": CONFOUNDER_COLOURS,
    "environment": ENVIRONMENT_COLOURS,
}


@dataclass(frozen=True)
class Images:
    """Images that are shown: of one split, and of validation if environments are known.

    Attributes:
        feature: Features float[M,P], or positions float[M,2] after the projection.
        is_main: Whether an image is of the split, bool[M].
        label: int64[M].
        confounder: int64[M].
        environment: int64[M], or None.
    """

    feature: np.ndarray
    is_main: np.ndarray
    label: np.ndarray
    confounder: np.ndarray
    environment: np.ndarray | None


@dataclass(frozen=True)
class View:
    """The images in the latent space of one method.

    Attributes:
        method: Label of the method.
        images: The images, with positions as features.
        projection: Name of the projection.
    """

    method: str
    images: Images
    projection: str

    def colours(self, attribute: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return positions and values of the images that are coloured by an attribute, or None."""
        values = getattr(self.images, attribute)
        if values is None:
            return None
        if attribute == "environment":
            return self.images.feature, values
        return self.images.feature[self.images.is_main], values[self.images.is_main]


def draw_latent(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Draw the images of the main split for each method, coloured by label and by confounder.

    If environments are known, a third row shows them among images of the split and of validation.

    Returns:
        A description of the figure; empty if no run recorded features and confounders.
    """
    trial, views, left = _views(table)
    if not views:
        return ""
    data = next(w.run.record.data for row in table.rows for w in row.selected_runs if w.run.record)
    names = {
        "label": data.label_names,
        "confounder": data.confounder_names,
        "environment": [*data.environment_names, *data.test_splits],
    }
    drawn = {attribute: [view.colours(attribute) for view in views] for attribute in _COLOURED_BY}
    drawn = {attribute: found for attribute, found in drawn.items() if any(found)}
    canvas.set_size_inches(0.5 + 1.5 * max(len(views), 2), 0.4 + 1.8 * len(drawn))
    axes = canvas.subplots(len(drawn), len(views), sharex="col", sharey="col", squeeze=False)
    for c, view in enumerate(views):
        axes[0, c].set_title(_title(view), fontsize=8)
    for r, (attribute, found) in enumerate(drawn.items()):
        for c, shown in enumerate(found):
            if shown is None:
                axes[r, c].set_axis_off()
            else:
                _scatter(axes[r, c], *shown, _COLOURED_BY[attribute])
        axes[r, 0].set_ylabel(f"by {attribute}", fontsize=8)
        present = np.unique(np.concatenate([shown[1] for shown in found if shown is not None]))
        _legend(axes[r, -1], present, names[attribute], _COLOURED_BY[attribute])
    return _description(trial, views, left, str(data.main_split), list(drawn))


def _description(
    trial: int,
    views: Sequence[View],
    left: Sequence[str],
    split: str,
    rows: Sequence[str],
) -> str:
    projections = " and ".join(dict.fromkeys(view.projection for view in views))
    missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
    colours = "coloured by label (above) and by confounder (below)"
    if "environment" in rows:
        colours = (
            "coloured by label, by confounder and, with images of validation, whose environments "
            "are those of training, by environment (from above)"
        )
    return (
        f"Features of up to {max(int(v.images.is_main.sum()) for v in views)} images of split "
        f"{one_line(split)}, trial {trial}, projected to two dimensions by "
        f"{projections} for each method separately, {colours}. Projections distort distances; the "
        f"table of silhouettes measures them in the full space.{missing}"
    )


def _views(table: Table) -> tuple[int, list[View], list[str]]:
    """Return the first trial with features, its views, and the reasons for methods without one."""
    trials = sorted(
        {
            w.trial
            for row in table.rows
            for w in row.selected_runs
            if w.run.folder.embeddings.exists()
        }
    )
    views: list[View] = []
    left: list[str] = []
    for row in table.rows if trials else ():
        selected_run = next((w for w in row.selected_runs if w.trial == trials[0]), None)
        if selected_run is None or selected_run.run.record is None:
            continue
        if len(views) == MAX_METHODS:
            left.append(f"{row.marked_label}: no room")
            continue
        shown = _shown(selected_run, selected_run.run.record.data.main_split)
        if isinstance(shown, str):
            left.append(f"{row.marked_label}: {shown}")
            continue
        position, projection = project(shown.feature)
        views.append(View(row.marked_label, replace(shown, feature=position), projection))
    return (trials[0] if trials else 0), views, left


def _shown(selected_run: SelectedRun, split: str | None) -> Images | str:
    """Return the images of a split, and of validation, or why they cannot be shown."""
    name = selected_run.run.folder.embeddings.name
    try:
        found = read_embeddings(selected_run.run)
    except FileNotFoundError:
        return f"has no {name}"
    except (OSError, DamagedError) as error:
        return str(error).removesuffix(".")
    if found.confounder is None:
        return "its test images have no known confounder"
    if found.label.ndim != 1:
        return "its images have several labels"
    splits = np.array(found.split)
    if (splits == split).sum() < 3:
        return f"{name} has too few features of {split}"
    kept = splits == split
    if found.environment is not None:
        kept |= splits == "val"
    return Images(
        found.feature[kept],
        splits[kept] == split,
        found.label[kept],
        found.confounder[kept],
        None if found.environment is None else found.environment[kept],
    )


def project(feature: np.ndarray) -> tuple[np.ndarray, str]:
    """Project features to two dimensions.

    The projection is UMAP (McInnes et al., 2018) with seed 0 if umap-learn is installed and there
    are more than NEIGHBOURS images, else PCA.

    Args:
        feature: float[M,P].

    Returns:
        Positions float[M,2] and the name of the projection.
    """
    if len(feature) > NEIGHBOURS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that a seed makes it run on one thread
                import umap

                projection = umap.UMAP(n_neighbors=NEIGHBOURS, random_state=0)
                return np.asarray(projection.fit_transform(feature)), "UMAP"
        except Exception as error:  # a failure of UMAP must not stop the report
            if not isinstance(error, ImportError):
                print(f"PCA instead of UMAP: {type(error).__name__}: {error}", file=sys.stderr)
    centred = feature.astype(np.float64) - feature.mean(0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    position = np.zeros((len(feature), 2))
    position[:, : min(2, len(size))] = (left * size)[:, :2]
    return position, "PCA"


def _scatter(axes: Axes, position: np.ndarray, values: np.ndarray, colours: Sequence[str]) -> None:
    # Draw in sixteen parts, so that no value covers the others.
    for rows in np.array_split(np.arange(len(values)), 16):
        for value in np.unique(values[rows]):
            part = position[rows][values[rows] == value]
            axes.scatter(
                part[:, 0],
                part[:, 1],
                s=7,
                linewidths=0.3,
                alpha=0.7,
                rasterized=True,
                **_marker_style(int(value), colours),
            )
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():  # one frame around each panel
        side.set(visible=True, linewidth=0.6, color="0.5")


def _marker_style(value: int, colours: Sequence[str]) -> dict[str, Any]:
    marker = MARKERS[value % len(MARKERS)]
    return {
        "color": colours[value % len(colours)],
        "marker": marker,
        "edgecolors": "white" if marker not in "xX+" else None,
    }


def _legend(axes: Axes, present: np.ndarray, names: Sequence[str], colours: Sequence[str]) -> None:
    """Draw a legend to the right of the last axes of a row."""
    for value in present[:MAX_LEGEND_NAMES]:
        name = one_line(str(names[value])) if value < len(names) else str(value)
        short = name if len(name) <= 16 else f"{name[:15]}…"
        axes.scatter(
            [], [], s=14, linewidths=0.3, label=short, **_marker_style(int(value), colours)
        )
    if len(present) > MAX_LEGEND_NAMES:
        axes.scatter([], [], s=0, label=f"… {len(present) - MAX_LEGEND_NAMES} more")
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
        fontsize=7,
        handletextpad=0.2,
        borderaxespad=0,
    )


def _title(view: View) -> str:
    name = one_line(view.method).replace(" (", "\n(").replace(":", ":\n")
    lines = [line if len(line) <= 19 else f"{line[:18]}…" for line in name.split("\n")]
    return "\n".join([*lines, f"[{view.projection}]"])
