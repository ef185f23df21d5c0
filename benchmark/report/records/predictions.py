"""Predictions of the selected models, image by image, from predictions.npz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import confusion_matrix, is_multi_label
from benchmark.core.errors import DamagedError
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.stored_arrays import StoredPredictions, read_predictions


@dataclass(frozen=True)
class Predictions:
    """Predictions of a selected run on one split.

    Attributes:
        right: Whether each prediction is correct, bool[N]. If images have several labels, the share
            of correct labels among the known ones of each image, float64[N].
        label: int64[N], or int64[N,K] of 0 and 1 if images have several labels, with -1 in ``val``
            where a label is not known.
        pair_id: Number of the object that an image shows, int64[N], or None.
        cluster: Number of the patient of an image, int64[N], or None.
        confounder: Confounder of each image, int64[N], or None if it is unknown.
    """

    right: np.ndarray
    label: np.ndarray
    pair_id: np.ndarray | None
    cluster: np.ndarray | None
    confounder: np.ndarray | None = None


class PredictionStore:
    """Predictions of selected runs at their selected steps, each read once.

    Attributes:
        problems: Why predictions cannot be used, by the key of the run.
    """

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self._known: dict[tuple[str, str], Predictions | None] = {}
        self._top_k: dict[tuple[str, str, int], np.ndarray | None] = {}
        self._verified: set[str] = set()  # keys of runs whose file has the right checksum

    def get(self, selected_run: SelectedRun, split: str) -> Predictions | None:
        """Return the predictions on a split; None if they are missing or damaged.

        Predictions that contradict the counts of the record are damaged.
        """
        where = (selected_run.run.key, split)
        if where not in self._known:
            try:
                self._known[where] = _checked(self._read(selected_run, split), selected_run, split)
            except DamagedError as error:
                self.problems.setdefault(selected_run.run.key, str(error).removesuffix("."))
                self._known[where] = None
        return self._known[where]

    def scores(self, selected_run: SelectedRun, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return labels int64[N] or int64[N,K] and logits float64[N,K]; None as in ``get``.

        The arrays are not kept in memory.
        """
        if self.get(selected_run, split) is None:
            return None
        try:
            stored = self._read(selected_run, split)
        except DamagedError:  # changed since it was checked
            return None
        return stored.label, stored.score.astype(np.float64)

    def top_k(self, selected_run: SelectedRun, split: str, k: int) -> np.ndarray | None:
        """Return whether the label of each image has one of the k largest logits, bool[N].

        Of equal logits the first counts as the larger, as in the prediction. None as in ``get``,
        and if images have several labels.
        """
        where = (selected_run.run.key, split, k)
        if where not in self._top_k:
            found = self.scores(selected_run, split)
            usable = found is not None and found[0].ndim == 1
            self._top_k[where] = rank_of_label(*found) < k if found and usable else None
        return self._top_k[where]

    def matrix(self, selected_runs: Sequence[SelectedRun], split: str) -> np.ndarray | None:
        """Return the correctness of several trials, float64[S,n] in [0, 1].

        None if predictions of a trial are missing, or if the trials have different images.
        """
        predictions = [self.get(selected_run, split) for selected_run in selected_runs]
        known = [found for found in predictions if found is not None]
        if len(known) < len(predictions) or not same_images(known):
            return None
        return np.stack([found.right for found in known]).astype(np.float64)

    def _read(self, selected_run: SelectedRun, split: str) -> StoredPredictions:
        key = selected_run.run.key
        path = selected_run.run.folder.predictions
        try:
            found = read_predictions(
                selected_run.run, selected_run.criterion, split, verify=key not in self._verified
            )
            self._verified.add(key)
            return found
        except FileNotFoundError:
            raise DamagedError(f"{path.name} is missing.") from None
        except OSError as error:
            raise DamagedError(f"{path.name} cannot be read ({error.strerror}).") from None


def _checked(stored: StoredPredictions, selected_run: SelectedRun, split: str) -> Predictions:
    """Return the predictions, checked against the counts of the record."""
    label = stored.label
    score = stored.score
    several = label.ndim == 2
    predicted = score > 0 if several else score.argmax(1)
    counts = selected_run.at.counts.get(split)
    if counts is not None and not _agree(label, predicted, stored.confounder, counts):
        name = selected_run.run.folder.predictions.name
        raise DamagedError(f"{name} contradicts {selected_run.run.folder.record.name} on {split}.")
    right = predicted == label
    correct = right.sum(1) / np.maximum((label >= 0).sum(1), 1) if several else right
    return Predictions(correct, label, stored.pair_id, stored.cluster, stored.confounder)


def rank_of_label(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return how many classes are predicted before the label of each image, int64[N].

    Args:
        label: int64[N].
        score: Logits, float[N,K].
    """
    own = np.take_along_axis(score, label[:, None], axis=1)
    before = np.arange(score.shape[1]) < label[:, None]
    return ((score > own) | ((score == own) & before)).sum(axis=1)


def same_images(found: Sequence[Predictions]) -> bool:
    """Return whether all predictions are of the same images, as far as labels and pair ids tell."""
    first, *others = found
    return all(
        np.array_equal(first.label, other.label) and _equal_or_absent(first.pair_id, other.pair_id)
        for other in others
    )


def _equal_or_absent(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def pair_order(biased: Predictions, deceiving: Predictions) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the rows of two splits in the same order of objects.

    Returns:
        Rows of the biased and of the deceiving split, int64[N] each; None if the splits do not show
        the same objects once each.
    """
    if biased.pair_id is None or deceiving.pair_id is None:
        return None
    biased_rows = np.argsort(biased.pair_id, kind="stable")
    deceiving_rows = np.argsort(deceiving.pair_id, kind="stable")
    ids = biased.pair_id[biased_rows]
    has_repeats = bool((ids[1:] == ids[:-1]).any())
    if has_repeats or not np.array_equal(ids, deceiving.pair_id[deceiving_rows]):
        return None
    return biased_rows, deceiving_rows


def _label_agrees(
    label: np.ndarray, predicted: np.ndarray, confounder: np.ndarray | None, counts: np.ndarray
) -> bool:
    """Return whether the known values of one of several labels give its counts."""
    known = label >= 0
    return _agree(
        label[known],
        predicted[known].astype(np.int64),
        None if confounder is None else confounder[known],
        counts,
    )


def _agree(
    label: np.ndarray, predicted: np.ndarray, confounder: np.ndarray | None, counts: np.ndarray
) -> bool:
    """Return whether predictions give the counts, by confounder if confounders are known."""
    if is_multi_label(counts):
        return label.ndim == 2 and all(
            _label_agrees(label[:, k], predicted[:, k], confounder, counts[k])
            for k in range(len(counts))
        )
    confounders, classes, _ = counts.shape
    by_confounder = confounders > 1 and confounder is not None
    place = confounder if by_confounder else np.zeros_like(label)
    cell = (place * classes + label) * classes + predicted
    counted = np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    if confounder is None:
        return bool(np.array_equal(counted.sum(0), confusion_matrix(counts)))
    return bool(np.array_equal(counted, counts))
