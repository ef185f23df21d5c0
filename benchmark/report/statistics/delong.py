"""The area under the ROC curve and its covariance by DeLong's method, in O(n log n)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, stdtrit

from benchmark.report.statistics.estimate import Estimate, Floats, normal_quantile

_KIND = "DeLong, logit scale"


def delong(label: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """AUCs of K classifiers on the same images, and the covariance of the AUCs.

    Args:
        label: [n], 0 or 1; at least two of each.
        scores: [n] or [K, n], larger for class 1; ties count one half. Infinite scores are allowed.
    Returns:
        auc [K] and covariance [K, K]; K is 1 for scores of shape [n].
    Raises:
        ValueError: NaN scores, labels other than 0 and 1, lengths that differ, fewer than two of either class.
    Source: DeLong, DeLong & Clarke-Pearson (1988); midranks as in Sun & Xu (2014).
    """
    positive = _checked_label(label)
    table = np.atleast_2d(_checked_scores(scores))
    if table.ndim != 2 or table.shape[1] != len(positive):
        raise ValueError(
            f"{len(positive)} labels need scores of shape [n] or [K, n]; got {np.shape(scores)}."
        )
    for name, many in (("1", positive.sum()), ("0", (~positive).sum())):
        if many < 2:
            raise ValueError(
                f"DeLong's variance needs at least two images of either class; class {name} has {many}."
            )
    above = np.stack([_placements(positive, row) for row in table])
    hits, misses = above[:, positive], above[:, ~positive]
    covariance = np.cov(hits) / hits.shape[1] + np.cov(misses) / misses.shape[1]
    return hits.mean(1), np.atleast_2d(covariance)


def auc_interval(label: ArrayLike, scores: ArrayLike, level: float = 0.95) -> Estimate:
    """The AUC of one classifier with an interval on the logit scale, so that it stays inside (0, 1).

    Args:
        label: [n], 0 or 1. scores: [n], larger for class 1.
    Where no interval exists (one class only, a single image of a class, an AUC of exactly 0 or 1) ``low`` and ``high``
    are None and the note says why.

    Raises:
        ValueError: as in ``delong``, except for missing images of a class.
    Source: DeLong et al. (1988); logit interval as in Pepe (2003), section 5.2; degrees of freedom of Welch (1947).
    """
    positive, row = _checked_label(label), _checked_scores(scores)
    if row.shape != positive.shape:
        raise ValueError(
            f"There are {len(positive)} labels but scores of shape {row.shape}; they must be equal."
        )
    fewest = min(positive.sum(), (~positive).sum())
    if fewest == 0:
        where = "outside the class" if positive.all() else "of the class"
        return Estimate(None, None, None, None, "none", f"AUC undefined: there is no image {where}")
    if fewest == 1:
        area = float(_placements(positive, row)[positive].mean())
        return Estimate(
            area, None, None, None, "none", "no AUC interval: one class has a single image"
        )
    area, influence = _influence(positive, row)
    return _logit_estimate(area, influence, positive, level)


def auc_one_vs_rest(
    label: ArrayLike, scores: ArrayLike, level: float = 0.95
) -> tuple[tuple[Estimate, ...], Estimate]:
    """Each class's AUC against the rest, and their mean with the covariance that comes from sharing the images.

    Args:
        label: [n] class numbers from 0. scores: [n, M], column k larger for class k.
    Returns:
        M estimates, and the mean over the classes whose AUC exists; classes left out are named in its note.
    Raises:
        ValueError: NaN scores, labels outside 0…M−1, shapes that do not fit, no images.
    Source: TEA paper, Appendix H (one against the rest); DeLong et al. (1988), equation 3 for the covariance.
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
    per_class = tuple(auc_interval(classes == k, table[:, k], level) for k in range(table.shape[1]))
    defined = [k for k, estimate in enumerate(per_class) if estimate.value is not None]
    missing = [k for k in range(len(per_class)) if k not in defined]
    note = (
        f"mean without the undefined AUC of class {', '.join(map(str, missing))}" if missing else ""
    )
    if not defined:
        return per_class, Estimate(
            None, None, None, None, "none", "AUC undefined: every image is of one class"
        )
    mean = float(np.mean([per_class[k].value for k in defined]))
    if any(min((classes == k).sum(), (classes != k).sum()) < 2 for k in defined):
        why = "no interval of the mean AUC: a class has a single image"
        return per_class, Estimate(
            mean, None, None, None, "none", "; ".join(filter(None, (why, note)))
        )
    influence = np.mean([_influence(classes == k, table[:, k])[1] for k in defined], axis=0)
    return per_class, _logit_estimate(mean, influence, classes, level, note)


def auc_of_labels(
    label: ArrayLike, scores: ArrayLike, level: float = 0.95
) -> tuple[tuple[Estimate, ...], Estimate]:
    """Each label's AUC where an image may have several, and their mean with the covariance of sharing the images.

    Args:
        label: [n, K] of 0 and 1. scores: [n, K], larger for a label that is there.
    Returns:
        K estimates, and the mean over the labels whose AUC exists; labels left out are named in its note.
    Raises:
        ValueError: as in ``delong``; shapes that differ.
    Source: DeLong et al. (1988): an image's shares in the K errors are added before they are squared.
    """
    table, wanted = _checked_scores(scores), np.asarray(label)
    if wanted.ndim != 2 or wanted.shape != table.shape:
        raise ValueError(
            f"Give labels and scores [n, K]; got shapes {wanted.shape} and {table.shape}."
        )
    per_label = tuple(auc_interval(wanted[:, k], table[:, k], level) for k in range(table.shape[1]))
    defined = [k for k, estimate in enumerate(per_label) if estimate.value is not None]
    missing = [k for k in range(len(per_label)) if k not in defined]
    note = (
        f"mean without the undefined AUC of label {', '.join(map(str, missing))}" if missing else ""
    )
    if not defined:
        return per_label, Estimate(
            None, None, None, None, "none", "AUC undefined: every label is all yes or all no"
        )
    mean = float(np.mean([per_label[k].value for k in defined]))
    if any(min(wanted[:, k].sum(), (1 - wanted[:, k]).sum()) < 2 for k in defined):
        why = "no interval of the mean AUC: a label with a single image, or all but one"
        return per_label, Estimate(
            mean, None, None, None, "none", "; ".join(filter(None, (why, note)))
        )
    influence = np.mean([_influence(wanted[:, k] == 1, table[:, k])[1] for k in defined], axis=0)
    return per_label, _logit_estimate(mean, influence, np.zeros(len(table)), level, note)


def _influence(positive: NDArray[np.bool_], row: Floats) -> tuple[float, Floats]:
    """The AUC, and [n] each image's share in its error: squares sum to DeLong's variance, products to a covariance."""
    above = _placements(positive, row)
    area = float(above[positive].mean())
    many = np.where(positive, positive.sum(), (~positive).sum())
    return area, np.asarray((above - area) / np.sqrt(many * (many - 1.0)), np.float64)


def _placements(positive: NDArray[np.bool_], row: Floats) -> Floats:
    """[n]: for an image of class 1 the share of class 0 that it beats, for one of class 0 the share that beats it.

    These are DeLong's V10 and V01. One sort gives them: with an image's midrank T_Z among all and T_X among its own
    class, T_Z − T_X counts the images of the other class below it, ties half.
    """
    order = np.argsort(row)
    ranked, hit = row[order], positive[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of each run of equal scores
    hits_to = np.cumsum(hit, dtype=np.int64)[last]
    hits_below = _midpoints(hits_to)
    misses_below = _midpoints(last + 1) - hits_below
    hits, misses = int(hits_to[-1]), len(row) - int(hits_to[-1])
    of_hit, of_miss = misses_below / max(misses, 1), 1.0 - hits_below / max(hits, 1)
    if len(last) < len(row):
        run = np.diff(last, prepend=-1)
        of_hit, of_miss = np.repeat(of_hit, run), np.repeat(of_miss, run)
    above = np.empty(len(row))
    above[order] = np.where(hit, of_hit, of_miss)
    return above


def _midpoints(upto: NDArray[np.int64]) -> Floats:
    """How many lie below each run, its own members counted half, from how many lie below and in it."""
    middle: Floats = upto.astype(np.float64) / 2.0
    middle[1:] += middle[:-1].copy()
    return middle


def _logit_estimate(
    area: float, influence: Floats, group: NDArray[np.generic], level: float, note: str = ""
) -> Estimate:
    """The interval from each image's influence; its groups (the labels) are what was sampled independently.

    Each group's variance is itself estimated, so the quantile is Student's with Welch's degrees of freedom.
    """
    _, which = np.unique(group, return_inverse=True)
    parts, many = np.bincount(which, influence**2), np.bincount(which)
    sd = math.sqrt(float(parts.sum()))
    normal_quantile(level)  # refuses a level that is none
    if area <= 0.0 or area >= 1.0 or sd == 0.0:
        what = f"the AUC is exactly {area:.0f}" if area in (0.0, 1.0) else "the scores are constant"
        why = f"no AUC interval: {what}, so no variance can be estimated"
        return Estimate(area, None, None, None, "none", "; ".join(filter(None, (why, note))))
    freedom = float(parts.sum() ** 2 / (parts**2 / np.maximum(many - 1, 1)).sum())
    half = float(stdtrit(freedom, 0.5 + level / 2.0)) * sd / (area * (1.0 - area))
    low, high = expit(logit(area) - half), expit(logit(area) + half)
    return Estimate(area, sd, float(low), float(high), _KIND, note)


def _checked_label(label: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(label)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"The labels must be one axis of 0 and 1 with at least one image; got shape {array.shape}."
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
