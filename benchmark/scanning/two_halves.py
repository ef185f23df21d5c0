"""How well a family of properties predicts a label, measured on two halves of the data.

A classifier is trained on each half and tested on the other one, and the AUC is computed within
each half. Out-of-fold predictions of five folds, pooled, give intervals that are too narrow and
false alarms that are too many: the predictions of a fold depend on the labels of the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, ndtr, ndtri
from scipy.stats import rankdata

from benchmark.core.seeds import seed_for
from benchmark.report.statistics.delong import auc_interval

#: The number of quantiles in the table of a single property.
_QUANTILES = 8
#: Added to the variance of every property.
_RIDGE = 1e-3
#: A class with fewer images, in a half of a stratum, is not tested.
MIN_IMAGES = 4


@dataclass(frozen=True)
class Prediction:
    """How well a family predicts one class against the rest.

    Attributes:
        auc: Area under the curve; NaN if it could not be computed.
        sd: Its standard deviation, an upper bound.
        p: One-sided p against an AUC of ½.
        scores: float64[N], score of each image by the classifier of the other half; NaN where there
            is none.
    """

    auc: float
    sd: float
    p: float
    scores: np.ndarray

    def bounds(self, tail: float) -> tuple[float, float]:
        """Return bounds that are each missed with probability ``tail``, on the logit scale."""
        if not math.isfinite(self.auc):
            return math.nan, math.nan
        value = min(max(self.auc, 1e-6), 1 - 1e-6)
        half = float(-ndtri(tail)) * self.sd / (value * (1 - value))
        centre = math.log(value / (1 - value))
        return float(expit(centre - half)), float(expit(centre + half))


def halves(label: np.ndarray, cluster: np.ndarray | None, seed: int = 0) -> np.ndarray:
    """Return the half of each image, 0 or 1, stratified by class, with patients in one half.

    Args:
        label: int64[N].
        cluster: int64[N], equal for images of one patient, or None.
        seed: seed of the choice.
    """
    rng = np.random.default_rng(seed_for("scan halves", seed))
    unit = np.arange(len(label)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    first = np.unique(unit, return_index=True)[1]  # a patient counts for the class of its first
    half = np.zeros(len(first), np.int64)
    for value in np.unique(label[first]):
        members = rng.permutation(np.flatnonzero(label[first] == value))
        # Classes of odd size fill alternate halves.
        half[members] = (np.arange(len(members)) + int(value)) % 2
    return np.asarray(half[unit])


def predict_label(
    values: np.ndarray,
    positive: np.ndarray,
    half: np.ndarray,
    stratum: np.ndarray | None = None,
    *,
    known: np.ndarray | None = None,
) -> Prediction:
    """Measure how well a family of properties predicts a class.

    Args:
        values: float64[N,D], where NaN is a value of its own.
        positive: bool[N], whether an image has the class.
        half: the result of ``halves``.
        stratum: int64[N], values of a known confounder. Images are compared only with images of
            the same value, and the AUCs of the strata are weighted by their inverse null variance.
        known: bool[N], False for images that are left out since it is not known whether they have
            the class; None for none.

    Returns:
        The prediction. Its AUC is NaN if the properties are constant, or if too few images of the
        class or of the rest remain.
    """
    if known is not None and not known.all():
        part = predict_label(
            values[known], positive[known], half[known], None if stratum is None else stratum[known]
        )
        all_scores = np.full(len(values), np.nan)
        all_scores[known] = part.scores
        return replace(part, scores=all_scores)
    scores = np.full(len(values), np.nan)
    nothing = Prediction(math.nan, math.nan, 1.0, scores)
    if not len(values):
        return nothing
    usable = values[:, np.nanstd(np.where(np.isnan(values), 0.0, values), axis=0) > 0]
    missing = np.isnan(values).any(1)
    if missing.any() and not missing.all():
        usable = np.concatenate([usable, missing[:, None].astype(float)], 1)
    if not usable.shape[1]:
        return nothing
    group = np.zeros(len(values), np.int64) if stratum is None else stratum
    aucs = []
    sds = []
    nulls = []
    for test in (0, 1):
        train = half != test
        if min(positive[train].sum(), (~positive[train]).sum()) < MIN_IMAGES:
            return nothing
        scores[~train] = _fit_and_score(usable[train], positive[train], usable[~train])
        found = _auc_within_strata(positive[~train], scores[~train], group[~train])
        if found is None:
            return nothing
        aucs.append(found[0])
        sds.append(found[1])
        nulls.append(found[2])
    auc = float(np.mean(aucs))
    p = float(ndtr(-(auc - 0.5) / np.mean(nulls)))
    return Prediction(auc, float(np.mean(sds)), p, scores)


def _auc_within_strata(
    positive: np.ndarray, scores: np.ndarray, group: np.ndarray
) -> tuple[float, float, float] | None:
    """Return AUC, its sd, and its sd under the null hypothesis, over strata with both classes."""
    found = []
    for value in np.unique(group):
        mine = group == value
        present = int(positive[mine].sum())
        absent = int(mine.sum()) - present
        if min(present, absent) < MIN_IMAGES:
            continue
        estimate = auc_interval(positive[mine].astype(np.int64), scores[mine])
        null = (present + absent + 1) / (12 * present * absent)
        if estimate.value is not None:
            sd = math.sqrt(null) if not estimate.sd else estimate.sd
            found.append((estimate.value, sd**2, null))
    if not found:
        return None
    auc, variance, null = np.array(found).T
    weight = (1 / null) / (1 / null).sum()
    return (
        float(weight @ auc),
        math.sqrt(float(weight**2 @ variance)),
        math.sqrt(float(weight**2 @ null)),
    )


def _fit_and_score(train: np.ndarray, positive: np.ndarray, test: np.ndarray) -> np.ndarray:
    if train.shape[1] == 1:
        return _table_scores(train[:, 0], positive, test[:, 0])
    return _discriminant_scores(train, positive, test)


def _table_scores(train: np.ndarray, positive: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the share of the class among training images in the same eighth, smoothed."""
    edges = np.unique(np.nanquantile(train, np.arange(1, _QUANTILES) / _QUANTILES))
    cell = np.where(np.isnan(train), len(edges) + 1, np.searchsorted(edges, train, side="right"))
    count = np.bincount(cell, minlength=len(edges) + 2)
    present = np.bincount(cell, positive.astype(float), minlength=len(edges) + 2)
    prior = positive.mean()
    share = (present + 2 * prior) / (count + 2)
    of_test = np.where(np.isnan(test), len(edges) + 1, np.searchsorted(edges, test, side="right"))
    return np.asarray(share[of_test])


def _discriminant_scores(train: np.ndarray, positive: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return scores of a linear discriminant on normal scores and their squares."""
    from sklearn.covariance import ledoit_wolf

    columns_train = []
    columns_test = []
    for column in range(train.shape[1]):
        filled = np.where(
            np.isnan(train[:, column]), np.nanmedian(train[:, column]), train[:, column]
        )
        other = np.where(np.isnan(test[:, column]), np.nanmedian(train[:, column]), test[:, column])
        normal_train = ndtri(rankdata(filled) / (len(filled) + 1))
        order = np.argsort(filled)
        normal_test = np.interp(other, filled[order], normal_train[order])
        columns_train += [normal_train, normal_train**2]
        columns_test += [normal_test, normal_test**2]
    inputs = np.stack(columns_train, 1)
    means = np.stack([inputs[~positive].mean(0), inputs[positive].mean(0)])
    centred = inputs - means[positive.astype(int)]
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    # A property that is constant within each class has no variance, and separates them.
    covariance = covariance + _RIDGE * np.eye(len(covariance))
    direction = np.linalg.solve(covariance, means[1] - means[0])
    return np.asarray(np.stack(columns_test, 1) @ direction)
