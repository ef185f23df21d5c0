"""The area under the ROC curve, with DeLong's variance, in O(n log n)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from benchmark.report.statistics.delta_method import Contributions
from benchmark.report.statistics.estimate import (
    LEVEL,
    Estimate,
    Floats,
    listed,
    student_quantile,
    without_interval,
)

_KIND = "DeLong, logit scale"
_KIND_AT_ONE = "exact bound of disjoint pairs"


def auc_interval(label: ArrayLike, scores: ArrayLike) -> Estimate:
    """Return the AUC of one classifier; its interval, on the logit scale, stays inside (0, 1).

    Args:
        label: [n], 0 or 1.
        scores: [n], larger for class 1. Ties count one half; infinite scores are allowed.

    Returns:
        The AUC. An AUC of exactly 0 or 1 has an exact bound but no sd. There is no interval, but a
        note, where a class has at most one image and where all scores are equal.

    Raises:
        ValueError: NaN scores, labels other than 0 and 1, or lengths that differ.

    Source: DeLong, DeLong & Clarke-Pearson (1988); midranks as in Sun & Xu (2014); logit interval
    as in Pepe (2003), section 5.2; degrees of freedom of Welch (1947).
    """
    positive = _checked_label(label)
    values = _checked_scores(scores)
    if values.shape != positive.shape:
        raise ValueError(
            f"There are {len(positive)} labels but scores of shape {values.shape}; "
            "they must be equal."
        )
    fewest = min(positive.sum(), (~positive).sum())
    if fewest == 0:
        where = "outside the class" if positive.all() else "of the class"
        return without_interval(None, f"AUC undefined: there is no image {where}")
    if fewest == 1:
        area = float(_placements(positive, values)[positive].mean())
        return without_interval(area, "no AUC interval: one class has a single image")
    area, influence = _influence(positive, values)
    return _logit_estimate(area, influence, positive, np.array([fewest]))


def auc_contributions(
    label: ArrayLike, scores: ArrayLike
) -> tuple[tuple[Contributions | None, ...], Contributions | None]:
    """Return what each image contributes to the error of each AUC, and to their mean.

    Args:
        label: [n] class numbers, or [n, K] of 0 and 1 for images that may have several labels.
        scores: [n, K].

    Returns:
        K contributions, None for an AUC without a variance; those of the mean, None if one is.
    """
    table = _checked_scores(scores)
    classes = np.asarray(label)
    positive = classes == 1 if classes.ndim == 2 else classes[:, None] == np.arange(table.shape[1])
    size = positive.sum(0)
    found: list[Contributions | None] = []
    for k in range(table.shape[1]):
        has_variance = min(size[k], len(positive) - size[k]) >= 2
        influence = _influence(positive[:, k], table[:, k])[1] if has_variance else None
        found.append(None if influence is None else Contributions(influence))
    known = [one.values for one in found if one is not None]
    defined = int(((size > 0) & (size < len(positive))).sum())
    mean = Contributions(np.mean(known, axis=0)) if known and len(known) == defined else None
    return tuple(found), mean


def auc_one_vs_rest(label: ArrayLike, scores: ArrayLike) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return the AUC of each class against the rest, and their mean.

    The variance of the mean includes the covariances, since the AUCs share the images.

    Args:
        label: [n] class numbers from 0.
        scores: [n, M], column k larger for class k.

    Returns:
        M estimates, and the mean over the classes whose AUC exists; classes left out are named in
        its note.

    Raises:
        ValueError: NaN scores, labels outside 0…M−1, shapes that do not fit, or no images.

    Source: TEA paper, Appendix H (one against the rest); DeLong et al. (1988), equation 3 for the
    covariance.
    """
    table = _checked_scores(scores)
    classes = np.asarray(label)
    if table.ndim != 2 or classes.ndim != 1 or len(classes) != len(table) or not len(classes):
        raise ValueError(
            f"Give labels [n] and scores [n, M]; got shapes {classes.shape} and {table.shape}."
        )
    if not np.isin(classes, np.arange(table.shape[1])).all():
        raise ValueError(
            f"Labels are class numbers from 0 to {table.shape[1] - 1}, one score column per class."
        )
    positive = classes[:, None] == np.arange(table.shape[1])
    per_class = tuple(auc_interval(*column) for column in zip(positive.T, table.T, strict=True))
    mean = _mean_auc(
        per_class,
        positive,
        table,
        group=classes,
        unit="class",
        undefined="every image is of one class",
        single="a class has a single image",
    )
    return per_class, mean


def auc_of_labels(label: ArrayLike, scores: ArrayLike) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return the AUC of each label of images that may have several, and their mean.

    The variance of the mean includes the covariances, since the AUCs share the images.

    Args:
        label: [n, K] of 0 and 1.
        scores: [n, K], larger for a label that is present.

    Returns:
        K estimates, and the mean over the labels whose AUC exists; labels left out are named in its
        note.

    Raises:
        ValueError: As in ``auc_interval``; shapes that differ.

    Source: DeLong et al. (1988). An image's contributions to the K errors are added before they are
    squared.
    """
    table = _checked_scores(scores)
    present = np.asarray(label)
    if present.ndim != 2 or present.shape != table.shape:
        raise ValueError(
            f"Give labels and scores [n, K]; got shapes {present.shape} and {table.shape}."
        )
    per_label = tuple(auc_interval(*column) for column in zip(present.T, table.T, strict=True))
    mean = _mean_auc(
        per_label,
        present == 1,
        table,
        group=np.zeros(len(table)),
        unit="label",
        undefined="every label is all yes or all no",
        single="a label with a single image, or all but one",
    )
    return per_label, mean


def _mean_auc(
    estimates: tuple[Estimate, ...],
    positive: NDArray[np.bool_],
    scores: Floats,
    *,
    group: NDArray[np.generic],
    unit: str,
    undefined: str,
    single: str,
) -> Estimate:
    """Return the mean of the AUCs that exist.

    Args:
        estimates: The AUC of each of K columns.
        positive: bool[n, K], images that belong to the class or have the label.
        scores: [n, K].
        group: [n] groups that were sampled independently, see ``_logit_estimate``.
        unit: "class" or "label", for notes.
        undefined: Reason in the note if no AUC exists.
        single: Reason in the note if there is no variance.
    """
    defined = [k for k, estimate in enumerate(estimates) if estimate.value is not None]
    missing = [str(k) for k, estimate in enumerate(estimates) if estimate.value is None]
    note = f"mean without the undefined AUC of {unit} {listed(missing)}" if missing else ""
    if not defined:
        return without_interval(None, f"AUC undefined: {undefined}")
    value = float(np.mean([estimates[k].value for k in defined]))
    size = positive.sum(0)
    if any(min(size[k], len(positive) - size[k]) < 2 for k in defined):
        return without_interval(value, _joined(f"no interval of the mean AUC: {single}", note))
    influence = np.mean([_influence(positive[:, k], scores[:, k])[1] for k in defined], axis=0)
    smaller = np.minimum(size, len(positive) - size)[defined]
    return _logit_estimate(value, influence, group, smaller, note)


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _influence(positive: NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """Return the AUC and the contribution of each image to its error, [n].

    The squares of the contributions sum to DeLong's variance, their products to a covariance.
    """
    placements = _placements(positive, scores)
    area = float(placements[positive].mean())
    size = np.where(positive, positive.sum(), (~positive).sum())
    return area, np.asarray((placements - area) / np.sqrt(size * (size - 1.0)), np.float64)


def _placements(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return DeLong's V10 of the images of class 1 and V01 of those of class 0, [n].

    V10 is the share of class 0 with a smaller score, V01 the share of class 1 with a larger one.
    One sort gives both: with an image's midrank T_Z among all images and T_X in its own class,
    T_Z − T_X counts the images of the other class below it, ties half.
    """
    order = np.argsort(scores)
    ranked = scores[order]
    is_positive = positive[order]
    # Position of the last of each run of equal scores.
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    positives_to = np.cumsum(is_positive, dtype=np.int64)[last]
    positives_below = _midpoints(positives_to)
    negatives_below = _midpoints(last + 1) - positives_below
    positives = int(positives_to[-1])
    negatives = len(scores) - positives
    v10 = negatives_below / max(negatives, 1)
    v01 = 1.0 - positives_below / max(positives, 1)
    if len(last) < len(scores):
        length = np.diff(last, prepend=-1)
        v10 = np.repeat(v10, length)
        v01 = np.repeat(v01, length)
    placements = np.empty(len(scores))
    placements[order] = np.where(is_positive, v10, v01)
    return placements


def _midpoints(cumulated: NDArray[np.int64]) -> Floats:
    """Return the number below each run, with half of the run, from the number below and in it."""
    middle: Floats = cumulated.astype(np.float64) / 2.0
    middle[1:] += middle[:-1].copy()
    return middle


def _logit_estimate(
    area: float,
    influence: Floats,
    group: NDArray[np.generic],
    smaller: NDArray[np.integer],
    note: str = "",
) -> Estimate:
    """Return the AUC with an interval on the logit scale.

    The groups (the labels) are what was sampled independently. The variance of each group is itself
    estimated, so the quantile is Student's with Welch's degrees of freedom.

    Args:
        area: The AUC.
        influence: [n] contribution of each image to its error.
        group: [n] group of each image.
        smaller: [K] size of the smaller class of each AUC that the area is a mean of.
        note: Note of the estimate.
    """
    _, which = np.unique(group, return_inverse=True)
    variances = np.bincount(which, influence**2)
    sizes = np.bincount(which)
    sd = math.sqrt(float(variances.sum()))
    if area in (0.0, 1.0):
        bound = _bound_at_one(smaller)
        low, high = (bound, 1.0) if area == 1.0 else (0.0, 1.0 - bound)
        return Estimate(area, None, low, high, _KIND_AT_ONE, note)
    if sd == 0.0:
        problem = "no AUC interval: the scores are constant, so no variance can be estimated"
        return without_interval(area, _joined(problem, note))
    degrees_of_freedom = float(
        variances.sum() ** 2 / (variances**2 / np.maximum(sizes - 1, 1)).sum()
    )
    half = student_quantile(degrees_of_freedom) * sd / (area * (1.0 - area))
    low = float(expit(logit(area) - half))
    high = float(expit(logit(area) + half))
    return Estimate(area, sd, low, high, _KIND, note)


def _bound_at_one(smaller: NDArray[np.integer]) -> float:
    """Return the lower bound of the mean of K AUCs that are all exactly 1.

    The smaller class has m images, which can be paired with m other ones. All m independent pairs
    are in the right order, so that their share has the Clopper–Pearson bound tail^(1/m).
    """
    tail = (1.0 - LEVEL) / 2.0 / len(smaller)
    return float(np.mean(tail ** (1.0 / smaller)))


def _checked_label(label: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(label)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            "The labels must be one axis of 0 and 1 with at least one image; "
            f"got shape {array.shape}."
        )
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        raise ValueError("The labels must be 0 or 1; for more classes take one against the rest.")
    return array.astype(bool)


def _checked_scores(scores: ArrayLike) -> Floats:
    array = np.asarray(scores)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The scores must be numbers, not {array.dtype}.")
    if np.isnan(array).any():
        raise ValueError(
            "The scores contain NaN, so their order is undefined; a diverged run has no AUC."
        )
    return array.astype(np.float64, copy=False)
