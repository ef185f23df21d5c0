"""Sensitivity of a trained method to the class, to its evidence and to the shortcut.

A method can hide a shortcut from its heatmaps and still answer by it. Whatever is measured of
heatmaps is therefore recorded together with the effect of the shortcut on the predictions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.dataset import Split
from benchmark.core.seeds import seed_for
from benchmark.core.speed.seeding import seed_generators
from benchmark.core.summaries import Sensitivity
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.evaluate import images_per_pass
from benchmark.engine.explanations import (
    MAX_BATCH,
    MAX_PIXELS,
    ExplanationError,
    choose_explainer,
    evenly_spaced_rows,
    explaining,
    pixel_map,
)
from benchmark.explain.sensitivity import (
    NEGATIVES,
    TOP,
    class_sensitivity,
    confounder_sensitivity,
    disease_sensitivity,
    explanation_ncc,
    sensitivity_groups,
    tag_effect,
)

#: The largest number of images of a class and split that are explained for each measure.
MAX_IMAGES = 50
#: The largest number of groups of class sensitivity, over all classes.
MAX_GROUPS = 200
#: The class sensitivity of a heatmap that knows nothing of the class.
CHANCE = 1 / (NEGATIVES + 1)
#: The number of images of a confounder that show whether it is visible at all.
_SAMPLE = 8


class Explains(Protocol):
    """Explains a trained method, in evaluation mode."""

    @property
    def model(self) -> Algorithm:
        """The method."""

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps float[B,C,h,w] of images float[B,C,H,W] and classes int64[B]."""


@dataclass(frozen=True)
class OwnExplainer:
    """The explainer that a method declares, or the default one of its network.

    Args:
        model: the method.
    """

    model: Algorithm

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps float[B,C,h,w] of images."""
        network, seen = self.model.explainable(image)
        return choose_explainer(network, self.model.explained_by)(network, seen, target)


@dataclass(frozen=True)
class Answers:
    """The predictions of a method on a split.

    Args:
        score: the logits float[N,K].
        label: int64[N], or int64[N,K] of 0 and 1.
        threshold: float[K], logits above which labels are predicted; unused for single labels.
    """

    score: np.ndarray
    label: np.ndarray
    threshold: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """Whether each image has each class, bool[N,K]."""
        if self.label.ndim == 2:
            return self.label > 0
        return self.label[:, None] == np.arange(self.score.shape[1])  # type: ignore[no-any-return]

    @property
    def margin(self) -> np.ndarray:
        """The evidence for each class, float[N,K]; the class is predicted if it is positive.

        It is the logit minus its threshold. For single labels it is the logit minus the largest
        one of the other classes.
        """
        if self.label.ndim == 2:
            return self.score - self.threshold
        ascending = np.sort(self.score, axis=1)
        best = self.score == ascending[:, -1:]
        return self.score - np.where(best, ascending[:, -2:-1], ascending[:, -1:])


def measure_sensitivity(
    algorithm: Algorithm,
    splits: Mapping[str, DeviceSplit],
    answers: Mapping[str, Answers],
    main_split: str | None,
    pair: tuple[str, str] | None,
    global_map: np.ndarray | None = None,
) -> tuple[Sensitivity, ...]:
    """Measure everything that the data allow.

    Args:
        algorithm: the trained method.
        splits: the test splits.
        answers: the predictions on each of them.
        main_split: the split of class sensitivity, or None.
        pair: the biased and the deceiving split if they show the same objects, or None.
        global_map: explanations of whole classes, float32[K,H,W], or None.
    """
    found: list[Sensitivity] = []
    tied = None
    if pair is not None:
        biased = splits[pair[0]].arrays
        tied = tied_classes(answers[pair[0]].has, biased.confounder)
        found += _tag_effects(splits, answers, pair, tied)
        if global_map is not None and tied is not None:
            found += _of_global_map(biased, global_map, tied)
    try:
        with explaining(algorithm):
            explains = OwnExplainer(algorithm)
            for name, split in splits.items():
                groups = name == main_split
                found += _of_split(explains, split, answers[name], tied, groups=groups)
            if pair is not None and tied is not None:
                found += _correlations(explains, splits, answers, pair, tied)
    except ExplanationError as error:
        print(f"no sensitivity of explanations: {error}", file=sys.stderr)
    return tuple(found)


def measure_explainer(
    explains: Explains,
    splits: Mapping[str, DeviceSplit],
    answers: Mapping[str, Answers],
    main_split: str | None,
    measures: Collection[str],
) -> tuple[Sensitivity, ...]:
    """Measure an explainer that need not be the method's own.

    Args:
        explains: the explainer of a trained method.
        splits: the splits with labels.
        answers: the predictions on each of them.
        main_split: the split of class sensitivity, or None.
        measures: ``class_sensitivity``, ``disease_sensitivity`` or both.
    """
    found: list[Sensitivity] = []
    for name, split in splits.items():
        groups = name == main_split and "class_sensitivity" in measures
        found += _of_split(explains, split, answers[name], None, groups=groups)
    return tuple(entry for entry in found if entry.measure in measures)


def name_of_explainer(algorithm: Algorithm, split: DeviceSplit) -> str | None:
    """Return the name of the explainer of a method; None if there is none."""
    try:
        with explaining(algorithm):
            network, _ = algorithm.explainable(split.batch(np.arange(1)).image)
            return choose_explainer(network, algorithm.explained_by).name
    except ExplanationError:
        return None


def tied_classes(has: np.ndarray, confounder: np.ndarray | None) -> np.ndarray | None:
    """Return the class that each confounder is tied to, int64[G]; None without confounders.

    It is the class that is most over-represented among the images with the confounder.

    Args:
        has: bool[N,K], of a biased split.
        confounder: int64[N].
    """
    if confounder is None:
        return None
    overall = has.mean(0)
    return np.array(
        [
            int((has[confounder == g].mean(0) - overall).argmax()) if (confounder == g).any() else 0
            for g in range(int(confounder.max()) + 1)
        ]
    )


def _summary(
    measure: str,
    split: str,
    label: int,
    values: torch.Tensor,
    *,
    chance: float | None = None,
    areas: torch.Tensor | None = None,
) -> Sensitivity:
    """Return the mean and its standard error over the images for which a measure is defined.

    Args:
        measure: the name of the measure.
        split: the split, or empty.
        label: the class.
        values: float64[n], NaN where it is undefined.
        chance: the value of a heatmap that knows nothing; with areas, they are the default.
        areas: float64[n], the share of each image that the mask covers, or None.
    """
    defined = values.isfinite()
    known = values[defined]
    area = float(areas[defined].mean()) if areas is not None and len(known) else None
    return Sensitivity(
        measure=measure,
        split=split,
        label=label,
        value=float(known.mean()) if len(known) else None,
        error=float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else None,
        images=len(known),
        left_out=len(values) - len(known),
        chance=area if chance is None else chance,
        area=area,
    )


def _spread(rows: np.ndarray) -> np.ndarray:
    """Return at most ``MAX_IMAGES`` of some rows, evenly spaced."""
    return rows[evenly_spaced_rows(len(rows), MAX_IMAGES)] if len(rows) else rows


@dataclass(frozen=True)
class _Wanted:
    """What is to be measured of the heatmaps of a class.

    Args:
        label: the class.
        evidence: int64[n], rows whose evidence is known.
        shortcut: int64[n], rows that show the shortcut which is tied to the class.
        groups: int64[G,4], groups of rows, the first of which has the class.
    """

    label: int
    evidence: np.ndarray
    shortcut: np.ndarray
    groups: np.ndarray

    def rows(self) -> np.ndarray:
        """Return all rows, in order and without repetition."""
        return np.unique(np.concatenate([self.evidence, self.shortcut, self.groups.flatten()]))


def _of_split(
    explains: Explains,
    split: DeviceSplit,
    answers: Answers,
    tied: np.ndarray | None,
    *,
    groups: bool,
) -> list[Sensitivity]:
    """Measure heatmaps of single images of a split; class sensitivity only with ``groups``."""
    found: list[Sensitivity] = []
    for k in range(answers.score.shape[1]):
        wanted = _wanted(split, answers, k, tied, groups=groups)
        rows = wanted.rows()
        if len(rows):
            found += _of_class(explains, split, wanted, rows)
        if groups and not len(wanted.groups):  # too few correct predictions
            nothing = torch.zeros(0, dtype=torch.float64)
            found.append(_summary("class_sensitivity", split.name, k, nothing, chance=CHANCE))
    return found


def _wanted(
    split: DeviceSplit, answers: Answers, k: int, tied: np.ndarray | None, *, groups: bool
) -> _Wanted:
    arrays = split.arrays
    nothing = np.zeros(0, np.int64)
    evidence = nothing
    if arrays.class_masks is not None:
        evidence = _spread(np.flatnonzero(answers.has[:, k] & arrays.class_masks.known()[:, k]))
    shortcut = nothing
    if arrays.shortcut is not None and arrays.confounder is not None and tied is not None:
        of_class = np.isin(arrays.confounder, np.flatnonzero(tied == k))
        rows = np.flatnonzero(of_class & shown_confounders(arrays)[arrays.confounder])
        shortcut = _spread(rows)
    drawn = np.zeros((0, NEGATIVES + 1), np.int64)
    if groups:
        correct = np.flatnonzero((answers.margin[:, k] > 0) == answers.has[:, k])
        generator = torch.Generator().manual_seed(seed_for("class sensitivity", split.name, k))
        has = torch.from_numpy(answers.has[correct, k])
        limit = max(MAX_GROUPS // answers.score.shape[1], 1)
        drawn = correct[sensitivity_groups(has, generator=generator).numpy()[:limit]]
    return _Wanted(k, evidence, shortcut, drawn)


def shown_confounders(split: Split) -> np.ndarray:
    """Return which confounders are visible, bool[G]; all if the data do not say where they are."""
    assert split.confounder is not None
    count = int(split.confounder.max()) + 1
    if split.shortcut is None:
        return np.ones(count, bool)
    samples = [np.flatnonzero(split.confounder == g)[:_SAMPLE] for g in range(count)]
    return np.array([bool(split.shortcut[rows].any()) for rows in samples])


def _of_class(
    explains: Explains, split: DeviceSplit, wanted: _Wanted, rows: np.ndarray
) -> list[Sensitivity]:
    """Explain a class in some images and measure the heatmaps."""
    k = wanted.label
    evidence = np.isin(rows, wanted.evidence)
    shortcut = np.isin(rows, wanted.shortcut)
    undefined = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    total, inside, area, recall, part = (undefined.clone() for _ in range(5))

    def measure(start: int, pixels: torch.Tensor) -> None:
        positions = slice(start, start + len(pixels))
        part_of_rows = rows[positions]
        total[positions] = pixels.double().clamp_min(0).sum((1, 2))
        if evidence[positions].any():
            assert split.arrays.class_masks is not None
            mask = torch.from_numpy(split.arrays.class_masks.rasterise(part_of_rows)[:, k])
            inside[positions] = disease_sensitivity(pixels, mask)
            area[positions] = mask.double().mean((1, 2))
        if shortcut[positions].any():
            assert split.arrays.shortcut is not None
            shown = torch.from_numpy(np.array(split.arrays.shortcut[part_of_rows, 0]))
            recall[positions] = confounder_sensitivity(pixels, shown)
            part[positions] = shown.double().mean((1, 2))

    _each_map(explains, split, rows, k, measure)
    found = []
    if len(wanted.groups):
        groups = torch.from_numpy(np.searchsorted(rows, wanted.groups))
        values = class_sensitivity(total[groups][..., None, None])
        found.append(_summary("class_sensitivity", split.name, k, values, chance=CHANCE))
    if evidence.any():
        values = inside[torch.from_numpy(evidence)]
        areas = area[torch.from_numpy(evidence)]
        found.append(_summary("disease_sensitivity", split.name, k, values, areas=areas))
    if shortcut.any():
        values = recall[torch.from_numpy(shortcut)]
        areas = part[torch.from_numpy(shortcut)]
        found.append(
            _summary("confounder_sensitivity", split.name, k, values, chance=TOP, areas=areas)
        )
    return found


def _of_global_map(biased: Split, global_map: np.ndarray, tied: np.ndarray) -> list[Sensitivity]:
    """Return the confounder sensitivity of global explanations.

    The shortcut of a class is where most of the images with it show it.
    """
    if biased.shortcut is None or biased.confounder is None:
        return []
    found = []
    for k in range(len(global_map)):
        own = np.isin(biased.confounder, np.flatnonzero(tied == k))
        rows = _spread(np.flatnonzero(own & shown_confounders(biased)[biased.confounder]))
        if not len(rows):
            continue
        area = torch.from_numpy(biased.shortcut[rows, 0].mean(0) > 0.5)[None]
        value = confounder_sensitivity(torch.from_numpy(global_map[k])[None], area)
        areas = area.double().mean((1, 2))
        found.append(
            _summary("global_confounder_sensitivity", "", k, value, chance=TOP, areas=areas)
        )
    return found


def _each_map(
    explains: Explains,
    split: DeviceSplit,
    rows: np.ndarray,
    k: int,
    use: Callable[[int, torch.Tensor], None],
) -> None:
    """Explain a class in some images and pass the maps float[B,H,W] on, with their first position.

    The maps are on the CPU. Random numbers depend only on the split, the class and the position.
    """
    per_pass = images_per_pass(split, explains.model, MAX_BATCH, MAX_PIXELS)
    devices = [split.device] if split.device.type == "cuda" else []
    for start in range(0, len(rows), per_pass):
        batch = split.batch(rows[start : start + per_pass])
        target = torch.full((len(batch),), k, dtype=torch.long, device=split.device)
        with torch.random.fork_rng(devices):
            seed_generators(seed_for("sensitivity", split.name, k, start))
            heatmap = explains(batch.image, target)
        use(start, pixel_map(heatmap, batch.image.shape[2:]).cpu())


@dataclass(frozen=True)
class _Pairs:
    """Images of the same objects, with the shortcut of a class and without it.

    Args:
        with_split: the split of the first image of each pair.
        with_rows: int64[n], their rows.
        without_split: the split of the second images.
        without_rows: int64[n], their rows.
    """

    with_split: str
    with_rows: np.ndarray
    without_split: str
    without_rows: np.ndarray


def pairs_of_class(
    splits: Mapping[str, Split], pair: tuple[str, str], tied: np.ndarray, k: int
) -> list[_Pairs]:
    """Return the pairs of images of which exactly one shows the shortcut of a class.

    Args:
        splits: the arrays of the two splits.
        pair: the names of the biased and of the deceiving split.
        tied: int64[G], the class that each confounder is tied to.
        k: the class.
    """
    rows: list[np.ndarray] = []
    shows: list[np.ndarray] = []
    for name in pair:
        arrays = splits[name]
        if arrays.pair_id is None or arrays.confounder is None:
            return []
        rows.append(np.argsort(arrays.pair_id, kind="stable"))
        own = shown_confounders(arrays) & (tied[: int(arrays.confounder.max()) + 1] == k)
        shows.append(own[arrays.confounder][rows[-1]])
    ids = [splits[name].pair_id[order] for name, order in zip(pair, rows, strict=True)]  # type: ignore[index]
    if not np.array_equal(*ids):
        return []
    found = []
    for one, other in ((0, 1), (1, 0)):
        chosen = np.flatnonzero(shows[one] & ~shows[other])
        if len(chosen):
            found.append(_Pairs(pair[one], rows[one][chosen], pair[other], rows[other][chosen]))
    return found


def _tag_effects(
    splits: Mapping[str, DeviceSplit],
    answers: Mapping[str, Answers],
    pair: tuple[str, str],
    tied: np.ndarray | None,
) -> list[Sensitivity]:
    """Return the effect of the shortcut of each class on its logit, and on the answer."""
    if tied is None:
        return []
    arrays = {name: splits[name].arrays for name in pair}
    found = []
    for k in range(answers[pair[0]].score.shape[1]):
        pairs = pairs_of_class(arrays, pair, tied, k)
        if not pairs:
            continue
        margins = {name: answers[name].margin[:, k] for name in pair}
        one = torch.from_numpy(np.concatenate([margins[p.with_split][p.with_rows] for p in pairs]))
        other = torch.from_numpy(
            np.concatenate([margins[p.without_split][p.without_rows] for p in pairs])
        )
        if len(one) > 1:
            found += _effect(one.double(), other.double(), k)
    return found


def _effect(one: torch.Tensor, other: torch.Tensor, k: int) -> list[Sensitivity]:
    effect = tag_effect(one, other)
    count = len(one)
    known = math.isfinite(effect.effect)
    error = float((one - other).std() / other.std()) / math.sqrt(count) if known else None
    return [
        Sensitivity(
            measure="tag_effect",
            label=k,
            value=effect.effect if known else None,
            error=error,
            images=count if known else 0,
            left_out=0 if known else count,
        ),
        Sensitivity(
            measure="flips",
            label=k,
            value=effect.flips,
            error=math.sqrt(effect.flips * (1 - effect.flips) / count),
            images=count,
        ),
    ]


def _correlations(
    explains: Explains,
    splits: Mapping[str, DeviceSplit],
    answers: Mapping[str, Answers],
    pair: tuple[str, str],
    tied: np.ndarray,
) -> list[Sensitivity]:
    """Return the correlation of heatmaps with and without the shortcut of each class."""
    arrays = {name: splits[name].arrays for name in pair}
    found = []
    for k in range(answers[pair[0]].score.shape[1]):
        values = []
        for pairs in pairs_of_class(arrays, pair, tied, k):
            chosen = evenly_spaced_rows(len(pairs.with_rows), MAX_IMAGES)
            maps: list[Sequence[torch.Tensor]] = []
            for name, rows in (
                (pairs.with_split, pairs.with_rows[chosen]),
                (pairs.without_split, pairs.without_rows[chosen]),
            ):
                collected: list[torch.Tensor] = []
                _each_map(
                    explains,
                    splits[name],
                    rows,
                    k,
                    lambda _, map_, to=collected: to.append(map_),  # type: ignore[misc]
                )
                maps.append(collected)
            values += [explanation_ncc(*both) for both in zip(*maps, strict=True)]
        if values:
            found.append(_summary("explanation_ncc", "", k, torch.cat(values)))
    return found
