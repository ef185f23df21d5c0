"""A figure of the latent space: features of test images in two dimensions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.text import one_line
from benchmark.report.figures.style import COLOURS, MARKERS
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.stored_arrays import read_embeddings
from benchmark.report.tables.results_table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Methods that a page is wide enough for, and names that a legend holds; the others are counted in words.
MAX_METHODS = 6
MAX_LEGEND_NAMES = 8
#: UMAP's usual number of neighbours; a split with no more images than that is projected by PCA.
NEIGHBOURS = 15
_OF = ("label", "confounder")


@dataclass(frozen=True)
class View:
    """One method's images of one split: ``place`` float[M,2], ``label``, ``confounder`` int64[M]."""

    method: str
    place: np.ndarray
    label: np.ndarray
    confounder: np.ndarray
    projection: str


def draw_latent(canvas: Canvas, table: Table, store: PredictionStore | None = None) -> str:
    """Every method's images of the main split in two dimensions: coloured by label above, by confounder below.

    Returns what it shows, in words; nothing where no run kept features and confounders.
    """
    trial, views, left = _views(table)
    if not views:
        return ""
    data = next(w.run.record.data for row in table.rows for w in row.selected_runs if w.run.record)
    canvas.set_size_inches(0.5 + 1.5 * max(len(views), 2), 4.0)
    axes = canvas.subplots(2, len(views), squeeze=False)
    for c, view in enumerate(views):
        axes[0, c].set_title(_title(view), fontsize=8)
        for r, of in enumerate(_OF):
            _scatter(axes[r, c], view.place, getattr(view, of))
    for r, of in enumerate(_OF):
        axes[r, 0].set_ylabel(f"by {of}", fontsize=8)
        present = np.unique(np.concatenate([getattr(view, of) for view in views]))
        names = data.label_names if of == "label" else data.confounder_names
        _legend(axes[r, -1], present, names)
    ways = " and ".join(dict.fromkeys(view.projection for view in views))
    missing = f" Not shown: {one_line('; '.join(left))}." if left else ""
    return (
        f"Features of up to {max(len(v.label) for v in views)} images of split {one_line(str(data.main_split))}, "
        f"trial {trial}, projected to two dimensions by {ways}, each method for itself; above coloured by label, "
        f"below by confounder. Distances in such a picture deceive: the table of silhouettes measures them.{missing}"
    )


def _views(table: Table) -> tuple[int, list[View], list[str]]:
    """The first trial that has features, every method's view of it, and what is left out and why."""
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
        feature, label, confounder = shown
        place, projection = project(feature)
        views.append(View(row.marked_label, place, label, confounder, projection))
    return (trials[0] if trials else 0), views, left


def _shown(
    selected_run: SelectedRun, split: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | str:
    """Features, labels and confounders of the split's images, or why they cannot be shown."""
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
    rows = np.flatnonzero(np.array(found.split) == split)
    if len(rows) < 3:
        return f"{name} has too few features of {split}"
    return found.feature[rows], found.label[rows], found.confounder[rows]


def project(feature: np.ndarray) -> tuple[np.ndarray, str]:
    """Two dimensions float[M,2] of features float[M,P], and the name of the projection.

    UMAP (McInnes et al. 2018, seed 0) where umap-learn is installed and there are images enough, else PCA.
    """
    if len(feature) > NEIGHBOURS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that a seed costs it its parallelism
                import umap

                return np.asarray(
                    umap.UMAP(n_neighbors=NEIGHBOURS, random_state=0).fit_transform(feature)
                ), "UMAP"
        except Exception as error:  # it is somebody else's, and a figure is not worth a report
            if not isinstance(error, ImportError):
                print(f"PCA instead of UMAP: {type(error).__name__}: {error}", file=sys.stderr)
    centred = feature.astype(np.float64) - feature.mean(0, dtype=np.float64)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    place = np.zeros((len(feature), 2))
    place[:, : min(2, len(size))] = (left * size)[:, :2]
    return place, "PCA"


def _scatter(axes: Axes, place: np.ndarray, of: np.ndarray) -> None:
    for rows in np.array_split(
        np.arange(len(of)), 16
    ):  # in turns, so that no value covers the others
        for value in np.unique(of[rows]):
            part = place[rows][of[rows] == value]
            axes.scatter(
                part[:, 0],
                part[:, 1],
                s=7,
                linewidths=0.3,
                alpha=0.7,
                rasterized=True,
                **_marker_style(int(value)),
            )
    axes.set(xticks=[], yticks=[])


def _marker_style(value: int) -> dict[str, Any]:
    return {
        "color": COLOURS[value % len(COLOURS)],
        "marker": MARKERS[value % len(MARKERS)],
        "edgecolors": "white" if MARKERS[value % len(MARKERS)] not in "xX+" else None,
    }


def _legend(axes: Axes, present: np.ndarray, names: Sequence[str]) -> None:
    """Right of the last picture of a row."""
    for value in present[:MAX_LEGEND_NAMES]:
        name = one_line(str(names[value])) if value < len(names) else str(value)
        short = name if len(name) <= 16 else f"{name[:15]}…"
        axes.scatter([], [], s=14, linewidths=0.3, label=short, **_marker_style(int(value)))
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
