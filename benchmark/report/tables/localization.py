"""Where the networks look: relevance in the foreground as a side table, and the images of the gallery."""

from __future__ import annotations

import math
import statistics
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.report.records.model_selection import Winner
from benchmark.report.tables.columns import test_splits
from benchmark.report.tables.numbers import DASH
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: Measure, title of its column, factor and digits.
_MEASURES = (
    ("energy", "foreground %", 100, 1),
    ("correlation", "correlation", 1, 2),
    ("distance", "distance", 1, 2),
)
_ARRAYS = ("split", "row", "image", "mask", "heatmap", "label", "prediction")


@dataclass(frozen=True)
class Look:
    """One method's heatmaps of the gallery's images: ``heatmap`` float32[G,H,W], ``prediction`` int64[G]."""

    method: str
    explainer: str
    heatmap: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """The images that all looks share: split names, ``image`` uint8[G,C,H,W], ``mask`` bool[G,H,W], labels.

    ``notes`` names the methods that are not shown, with the reason.
    """

    trial: int
    split: list[str]
    image: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    label_names: Sequence[str]
    looks: list[Look]
    notes: list[str]


def looks_sheet(table: Table) -> Sheet | None:
    """Share of relevance in the foreground, correlation with the mask and distance from the teacher, by split."""
    rows = [row for row in table.rows if any(_found(w) for w in row.winners)]
    if not rows:
        return None
    record = next(w.run.record for row in rows for w in row.winners if w.run.record and _found(w))
    columns = [
        (split, *measure)
        for split in test_splits(record.data)
        for measure in _MEASURES
        if any(_values(row, split, measure[0]) for row in rows)
    ]
    heads: list[Sequence[str]] = [
        ("method",),
        ("explained by",),
        *((split, title) for split, _, title, _, _ in columns),
    ]
    shown = [
        [row.marked_label, _explainers(row)]
        + [
            _mean_sd(_values(row, split, name), scale, digits)
            for split, name, _, scale, digits in columns
        ]
        for row in rows
    ]
    caption = [
        "Foreground: share of absolute relevance inside the mask; correlation: of absolute relevance and mask.",
        "Means over up to 512 images, of the predicted class's heatmap; mean ± sd over trials.",
        _even(rows, columns),
    ]
    if any(name == "distance" for _, name, *_ in columns):
        caption.append(
            "Distance: TEA's, from the teacher's heatmap of the same class; 0 where both are equal."
        )
    return Sheet(
        f"{table.title}, where the networks look",
        caption,
        heads,
        shown,
        stub=2,
        notes=_notes(table, rows),
    )


def _found(winner: Winner) -> Mapping[str, Any]:
    """What the record says of explanations; nothing where it is missing or not of the documented form."""
    record = winner.run.record
    found = record.extra.get("explanations") if record is not None else None
    return found if isinstance(found, dict) and isinstance(found.get("splits"), dict) else {}


def _values(row: Row, split: str, name: str) -> list[float]:
    values = []
    for winner in row.winners:
        content = _found(winner).get("splits", {}).get(split)
        value = content.get(name) if isinstance(content, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            values.append(float(value))
    return values


def _mean_sd(values: Sequence[float], scale: int, digits: int) -> str:
    if not values:
        return DASH
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _explainers(row: Row) -> str:
    return ", ".join(
        dict.fromkeys(str(_found(w).get("explainer") or DASH) for w in row.winners if _found(w))
    )


def _even(rows: Sequence[Row], columns: Sequence[tuple[str, str, str, int, int]]) -> str:
    """What a map without any preference would get."""
    splits = list(dict.fromkeys(split for split, *_ in columns))
    areas = {split: [v for row in rows for v in _values(row, split, "area")] for split in splits}
    known = {split: f"{100 * statistics.fmean(v):.1f}" for split, v in areas.items() if v}
    same = ", ".join(f"{split} {area}" for split, area in known.items())
    if len(set(known.values())) == 1:
        same = next(iter(known.values()))
    return f"A map that is the same everywhere has {same} % in the foreground." if known else ""


def _notes(table: Table, rows: Sequence[Row]) -> list[str]:
    """Images that do not count, and rows without explanations."""
    notes = []
    for row in table.rows:
        for text in dict.fromkeys(
            str(_found(w).get("note")) for w in row.winners if _found(w).get("note")
        ):
            notes.append(f"{row.marked_label}: {text}")
        if row.winners and row not in rows:
            notes.append(f"{row.marked_label}: its runs recorded no explanations")
        for name, what in (("zero_maps", "maps are zero everywhere"), ("nonfinite_maps", "maps are not finite"),
                           ("empty_masks", "images have no foreground")):  # fmt: skip
            counted = [int(sum(_values(row, split, name))) for split in _splits(row)]
            if sum(counted):
                of = int(sum(sum(_values(row, split, "images")) for split in _splits(row)))
                notes.append(
                    f"{row.marked_label}: {sum(counted):,} of {of:,} {what} and do not count"
                )
    if len({_explainers(row) for row in rows}) > 1:
        notes.append(
            "the networks were explained in different ways: compare rows with the same explanation only"
        )
    return notes


def _splits(row: Row) -> list[str]:
    return list(
        dict.fromkeys(split for winner in row.winners for split in _found(winner).get("splits", {}))
    )


def read_gallery(table: Table) -> Gallery | None:
    """The gallery of the first trial that has heatmaps, with every method that explained the same images."""
    trials = sorted(
        {w.trial for row in table.rows for w in row.winners if w.run.folder.heatmaps.exists()}
    )
    first: dict[str, np.ndarray] | None = None
    looks: list[Look] = []
    notes: list[str] = []
    names: Sequence[str] = ()
    for row in table.rows if trials else ():
        winner = next((w for w in row.winners if w.trial == trials[0]), None)
        if winner is None:
            continue
        arrays = _arrays(winner)
        if isinstance(arrays, str):
            notes.append(f"{row.marked_label}: {arrays}")
            continue
        if first is None:
            first = arrays
            names = winner.run.record.data["label_names"] if winner.run.record else ()
        elif any(
            not np.array_equal(first[name], arrays[name])
            for name in ("split", "row", "image", "mask", "label")
        ):
            notes.append(f"{row.marked_label}: its images are others")
            continue
        looks.append(
            Look(
                row.marked_label,
                str(arrays["explainer"]),
                arrays["heatmap"].astype(np.float32),
                arrays["prediction"],
            )
        )
    if first is None:
        return None
    splits = [str(name) for name in first["split"]]
    return Gallery(
        trials[0], splits, first["image"], first["mask"][:, 0], first["label"], names, looks, notes
    )


def _arrays(winner: Winner) -> dict[str, np.ndarray] | str:
    """The arrays of heatmaps.npz, or why they cannot be used."""
    path = winner.run.folder.heatmaps
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in (*_ARRAYS, "explainer")}
    except FileNotFoundError:
        return f"has no {path.name}"
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        MemoryError,
    ) as error:
        return f"{path.name} is damaged ({type(error).__name__})"
    image, mask, heatmap = found["image"], found["mask"], found["heatmap"]
    count = len(found["split"])
    if (
        image.ndim != 4
        or mask.shape != (count, 1, *image.shape[2:])
        or heatmap.shape != (count, *image.shape[2:])
    ):
        return f"{path.name} has shapes that do not fit"
    if any(len(found[name]) != count for name in _ARRAYS) or not np.isfinite(heatmap).all():
        return f"{path.name} has arrays that do not fit"
    return found
