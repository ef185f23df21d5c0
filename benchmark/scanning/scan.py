"""The scan: every family of properties against every class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.dataset import UNKNOWN, DatasetSource, GroupedDataset, Split
from benchmark.core.seeds import seed_for
from benchmark.report.statistics.hypothesis_tests import holm
from benchmark.scanning.near_duplicates import (
    NearDuplicates,
    find_near_duplicates,
    sketch,
)
from benchmark.scanning.properties import (
    SIDE,
    Family,
    Tier,
    file_families,
    full_size_families,
    pixel_families,
)
from benchmark.scanning.two_halves import Prediction, halves, predict_label

#: A family predicts the label if Holm's p is below this level, and the lower bound of the 95 %
#: interval of its AUC alone is at least ``MIN_AUC``.
ALPHA = 0.05
MIN_AUC = 0.6
_TAIL = 0.025
#: The largest number of images that are scanned.
MAX_SCANNED = 4000
#: The number of images whose properties are computed at once.
_IMAGES_PER_PART = 256
#: The quantiles of scores in the JSON report.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class FamilyResult:
    """How well one family predicts the label.

    Attributes:
        family: The family.
        predictions: Prediction of each tested class.
        bounds: Bounds of each AUC, adjusted for classes and families.
        p: Smallest p of the classes after Bonferroni's correction; 1 if nothing was tested.
        p_holm: p after Holm's correction for families.
        best: Position of the class with the largest lower bound; −1 if nothing was tested.
    """

    family: Family
    predictions: tuple[Prediction, ...]
    bounds: tuple[tuple[float, float], ...]
    p: float
    p_holm: float
    best: int

    @property
    def predicts(self) -> bool:
        """True if the family predicts the label well enough to be reported.

        Holm's p covers the number of families, so the size of the effect is judged by the interval
        of this family alone.
        """
        if self.best < 0 or not self.p_holm < ALPHA:
            return False
        return self.predictions[self.best].bounds(_TAIL)[0] >= MIN_AUC

    @property
    def is_suspect(self) -> bool:
        """True if the family predicts the label and need not be the object itself."""
        return self.predicts and self.family.tier is not Tier.OBJECT


@dataclass(frozen=True)
class Scan:
    """The result of a scan.

    Attributes:
        data: Name of the data.
        split: Split that was scanned.
        rows: int64[n], rows of the split that were scanned.
        classes: Names of the tested classes. With two classes only the second is tested.
        given: Whether images are compared only with images of the same confounder.
        results: Families, the best predictors first.
        untested: Families without information, and why.
        near_duplicates: Images that look alike in two splits.
        first_duplicates: The files of the first pair of each of ``near_duplicates``.
        positive: bool[n,T], whether each scanned image has each tested class.
        image: The scanned images, uint8[n,C,H,W], as the network sees them.
    """

    data: str
    split: str
    rows: np.ndarray
    classes: tuple[str, ...]
    given: bool
    results: tuple[FamilyResult, ...]
    untested: tuple[str, ...]
    near_duplicates: tuple[NearDuplicates, ...]
    first_duplicates: tuple[tuple[str, str], ...]
    positive: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)

    @property
    def suspects(self) -> list[FamilyResult]:
        """Families that predict the label and need not be the object."""
        return [result for result in self.results if result.is_suspect]


def scan(
    source: DatasetSource,
    data: GroupedDataset,
    *,
    given_confounder: bool = False,
    most: int = MAX_SCANNED,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Scan:
    """Scan the training split of a data set.

    Files are measured before they are decoded and resized, where each image is a file.

    Args:
        source: the source of the data.
        data: the data.
        given_confounder: True to compare images only with images of the same confounder, so that
            other shortcuts become visible.
        most: largest number of images.
        seed: seed of the choice of images and halves.
        tell: called with a line before each part.

    Raises:
        ValueError: ``given_confounder`` for data without a confounder.
    """
    split = data.splits["train"]
    rng = np.random.default_rng(seed_for("scan", seed))
    rows = np.sort(rng.permutation(len(split))[:most])
    image = np.asarray(split.image[rows])
    mask = None if split.mask is None else np.asarray(split.mask[rows])
    stratum = None
    if given_confounder:
        if split.confounder is None:
            raise ValueError("the data have no confounder")
        stratum = split.confounder[rows]
    tell(f"properties of {len(rows):,} images")
    families = _families(source, split, rows, image, mask)
    tell(f"{len(families)} families against the label")
    label = split.label[rows]
    cluster = None if split.cluster is None else split.cluster[rows]
    classes, positive = _tested_classes(data, label)
    known = label != UNKNOWN if data.info.multi_label else None
    results, untested = compare_families(
        families, positive, _strata_of_halves(label), cluster, stratum, seed, known=known
    )
    tell("near-duplicates")
    sketches = {name: sketch(part.image) for name, part in data.splits.items()}
    duplicates = tuple(find_near_duplicates(sketches, _compared_splits(data)))
    return Scan(
        data.name,
        "train",
        rows,
        classes,
        given_confounder,
        tuple(results),
        tuple(untested),
        duplicates,
        tuple(_names_of_first(source, data, pair) for pair in duplicates),
        positive,
        image,
    )


def _compared_splits(data: GroupedDataset) -> list[tuple[str, str]]:
    """Return the pairs of splits that must not share images; tests may share with each other."""
    tests = [name for name in data.splits if name not in ("train", "val")]
    return [("train", "val"), *((name, test) for test in tests for name in ("train", "val"))]


def _names_of_first(
    source: DatasetSource, data: GroupedDataset, found: NearDuplicates
) -> tuple[str, str]:
    """Return the files of the first pair of near-duplicates."""
    first, second = found.pairs[0]
    return (
        source.file_of(found.first, data.splits[found.first], first),
        source.file_of(found.second, data.splits[found.second], second),
    )


def compare_families(
    families: Sequence[Family],
    positive: np.ndarray,
    kind: np.ndarray,
    cluster: np.ndarray | None = None,
    stratum: np.ndarray | None = None,
    seed: int = 0,
    *,
    known: np.ndarray | None = None,
) -> tuple[list[FamilyResult], list[str]]:
    """Test every family against every class.

    Args:
        families: the families.
        positive: bool[N,T], whether an image has each tested class.
        kind: int64[N], the classes by which the halves are stratified.
        cluster: int64[N], equal for images of one patient, or None.
        stratum: int64[N], a known confounder, or None.
        seed: seed of the halves.
        known: bool[N,T], False where it is not known whether an image has a class; None if it is
            known everywhere.

    Returns:
        The families that could be tested, the largest AUC first, and sentences about the others.
    """
    half = halves(kind, cluster, seed)
    tested: list[tuple[Family, list[Prediction]]] = []
    untested = []
    for family in families:
        predictions = [
            predict_label(
                family.values,
                positive[:, t],
                half,
                stratum,
                known=None if known is None else known[:, t],
            )
            for t in range(positive.shape[1])
        ]
        if any(math.isfinite(prediction.auc) for prediction in predictions):
            tested.append((family, predictions))
        else:
            constant = np.nanstd(np.nan_to_num(family.values), axis=0).max() == 0
            why = "it is the same for all images" if constant else "there are too few images"
            untested.append(f"{family.name}: {why}")
    smallest = [min(min(1.0, len(ps) * p.p) for p in ps) for _, ps in tested]
    adjusted = holm(smallest)
    tail = _TAIL / max(len(tested) * positive.shape[1], 1)
    results = []
    for (family, predictions), p, p_holm in zip(tested, smallest, adjusted, strict=True):
        bounds = [prediction.bounds(tail) for prediction in predictions]
        lows = [low if math.isfinite(low) else -1.0 for low, _ in bounds]
        results.append(
            FamilyResult(
                family,
                tuple(predictions),
                tuple(bounds),
                p,
                1.0 if p_holm is None else p_holm,
                int(np.argmax(lows)),
            )
        )
    results.sort(key=lambda result: -result.predictions[result.best].auc)
    return results, untested


def _strata_of_halves(label: np.ndarray) -> np.ndarray:
    if label.ndim == 1:
        return label
    present = label == 1
    return np.asarray(np.where(present.any(1), present.argmax(1) + 1, 0))


def _tested_classes(data: GroupedDataset, label: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    names = data.info.label_names
    if label.ndim == 2:
        return names, label == 1
    if len(names) == 2:
        return names[1:], (label == 1)[:, None]
    return names, label[:, None] == np.arange(len(names))


def _families(
    source: DatasetSource,
    split: Split,
    rows: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray | None,
) -> list[Family]:
    files = _files(source, split, rows)
    if files is None:
        return _in_parts(image, mask)
    families = file_families(files)
    conversion = source.conversion()
    covers_file = conversion.fit == "stretch" and not conversion.middle
    is_changed = hasattr(source, "base")  # the files lack what was planted
    if is_changed or (mask is not None and not covers_file):
        return [*families, *_in_parts(image, mask)]
    decoded = _decoded(files, image.shape[1])
    if decoded is None:
        return [*families, *_in_parts(image, mask)]
    pixels, at_full_size = decoded
    measured = _in_parts(pixels, None if mask is None else _resized(mask))
    replaced = {family.name: family for family in at_full_size}
    return [*families, *(replaced.get(family.name, family) for family in measured)]


def _in_parts(image: np.ndarray, mask: np.ndarray | None) -> list[Family]:
    """Return the properties of pixels, computed for a few images at a time to save memory."""
    parts = [
        pixel_families(
            image[start : start + _IMAGES_PER_PART],
            None if mask is None else mask[start : start + _IMAGES_PER_PART],
        )
        for start in range(0, len(image), _IMAGES_PER_PART)
    ]
    return [_joined(same) for same in zip(*parts, strict=True)]


def _joined(parts: Sequence[Family]) -> Family:
    """Return a family of the properties of several sets of images."""
    return replace(parts[0], values=np.concatenate([part.values for part in parts]))


def _files(source: DatasetSource, split: Split, rows: np.ndarray) -> list[Path] | None:
    """Return the file of each image, or None unless every image is a file."""
    if source.data_dir is None:
        return None
    files = [Path(source.data_dir) / source.file_of("train", split, int(row)) for row in rows]
    return files if all(file.is_file() for file in files) else None


def _decoded(files: Sequence[Path], channels: int) -> tuple[np.ndarray, list[Family]] | None:
    """Return the images of files before any other change.

    Returns:
        The images at a common size, uint8[N,C,112,112], and the families that need the full size;
        None if a file cannot be opened, such as DICOM.
    """
    from PIL import Image

    decoded = np.empty((len(files), channels, SIDE, SIDE), np.uint8)
    details = []
    if channels not in (1, 3):
        return None
    for row, path in enumerate(files):
        try:
            with Image.open(path) as opened:
                converted = opened.convert("RGB" if channels == 3 else "L")
                full = np.asarray(converted.convert("L"), np.float32)
                resized = np.asarray(converted.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        except OSError:
            return None
        details.append(full_size_families(full[None]))
        decoded[row] = resized[None] if channels == 1 else resized.transpose(2, 0, 1)
    return decoded, [_joined(parts) for parts in zip(*details, strict=True)]


def _resized(mask: np.ndarray) -> np.ndarray:
    rows = np.arange(SIDE) * mask.shape[2] // SIDE
    columns = np.arange(SIDE) * mask.shape[3] // SIDE
    return np.asarray(mask[:, :, rows][:, :, :, columns])


def to_json(found: Scan) -> dict[str, Any]:
    """Return everything that a scan found."""
    return {
        "schema": 1,
        "data": found.data,
        "split": found.split,
        "n": len(found.rows),
        "classes": list(found.classes),
        "given": found.given,
        "families": [_family_json(result, found) for result in found.results],
        "untested": list(found.untested),
        "near_duplicates": [
            {
                "first": pair.first,
                "second": pair.second,
                "count": len(pair.pairs),
                "first_pair": list(names),
                "pairs": [list(rows) for rows in pair.pairs[:1000]],
            }
            for pair, names in zip(found.near_duplicates, found.first_duplicates, strict=True)
        ],
    }


def _family_json(result: FamilyResult, found: Scan) -> dict[str, Any]:
    order = extreme_rows(result)
    scores = result.predictions[result.best].scores
    defined = np.isfinite(scores)
    positive = found.positive[:, result.best]
    return {
        "name": result.family.name,
        "tier": str(result.family.tier),
        "auc": [_finite(prediction.auc) for prediction in result.predictions],
        "low": [_finite(low) for low, _ in result.bounds],
        "high": [_finite(high) for _, high in result.bounds],
        "p": result.p,
        "p_holm": result.p_holm,
        "predicts": result.predicts,
        "suspect": result.is_suspect,
        "best_class": found.classes[result.best],
        "n": int(defined.sum()),
        "quantiles": {
            "of": list(_QUANTILES),
            "class": _score_quantiles(scores[defined & positive]),
            "other": _score_quantiles(scores[defined & ~positive]),
        },
        "lowest_rows": [int(found.rows[row]) for row in order[:8]],
        "highest_rows": [int(found.rows[row]) for row in order[-8:]],
    }


def _score_quantiles(scores: np.ndarray) -> list[float]:
    return np.quantile(scores, _QUANTILES).tolist() if len(scores) else []


def extreme_rows(result: FamilyResult) -> np.ndarray:
    """Return positions of the scanned images, ordered by the score of the best class."""
    scores = result.predictions[result.best].scores
    return np.argsort(np.where(np.isnan(scores), np.nanmedian(scores), scores), kind="stable")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
