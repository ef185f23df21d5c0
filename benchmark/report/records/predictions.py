"""What the chosen models answered, image by image: predictions.npz, read when a number needs it."""

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
    """One winner's answers on one split: ``right`` bool[N], ``label`` int64[N], ``pair_id`` and ``cluster`` or None.

    With several labels per image: ``right`` float64[N], the share of an image's answers that are right, ``label``
    int64[N,K] of 0 and 1.
    """

    right: np.ndarray
    label: np.ndarray
    pair_id: np.ndarray | None
    cluster: np.ndarray | None


class PredictionStore:
    """Answers of the winners at the steps that were chosen; each is read once, and what cannot be used is noted."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}  # run key -> why its predictions are not used
        self._known: dict[tuple[str, str], Predictions | None] = {}
        self._verified: set[str] = set()  # keys of runs whose file has the right checksum

    def answers(self, selected_run: SelectedRun, split: str) -> Predictions | None:
        """The winner's answers on a split, or None where they are missing, damaged or contradict the record."""
        where = (selected_run.run.key, split)
        if where not in self._known:
            try:
                self._known[where] = _checked(self._read(selected_run, split), selected_run, split)
            except DamagedError as error:
                self.problems.setdefault(selected_run.run.key, str(error).removesuffix("."))
                self._known[where] = None
        return self._known[where]

    def scores(self, selected_run: SelectedRun, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """label int64[N] (or [N,K]) and logits float64[N,K], not kept in memory; None as in ``answers``."""
        if self.answers(selected_run, split) is None:
            return None
        try:
            stored = self._read(selected_run, split)
        except DamagedError:  # changed since it was checked
            return None
        return stored.label, stored.score.astype(np.float64)

    def matrix(self, selected_runs: Sequence[SelectedRun], split: str) -> np.ndarray | None:
        """Correctness float64[S,n], in [0, 1], of several trials, if all answered the same list of images."""
        found = [
            a
            for selected_run in selected_runs
            if (a := self.answers(selected_run, split)) is not None
        ]
        if len(found) < len(selected_runs) or not same_images(found):
            return None
        return np.stack([a.right for a in found]).astype(np.float64)

    def _read(self, selected_run: SelectedRun, split: str) -> StoredPredictions:
        key, path = selected_run.run.key, selected_run.run.folder.predictions
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
    """The answers, once they are known to be those that the record counts."""
    label, score = stored.label, stored.score
    several = label.ndim == 2
    predicted = score > 0 if several else score.argmax(1)
    counts = selected_run.at.counts.get(split)
    if counts is not None and not _agree(label, predicted, stored.confounder, counts):
        name = selected_run.run.folder.predictions.name
        raise DamagedError(f"{name} contradicts {selected_run.run.folder.record.name} on {split}.")
    right = predicted == label
    return Predictions(right.mean(1) if several else right, label, stored.pair_id, stored.cluster)


def same_images(found: Sequence[Predictions]) -> bool:
    """Whether several lists of answers are about the same list of images, as far as labels and pair ids can tell."""
    first, *others = found
    return all(
        np.array_equal(first.label, other.label) and _equal_or_absent(first.pair_id, other.pair_id)
        for other in others
    )


def _equal_or_absent(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def pair_order(biased: Predictions, deceiving: Predictions) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of two splits that bring the same objects beside each other; None where they are not one to one."""
    if biased.pair_id is None or deceiving.pair_id is None:
        return None
    rows = np.argsort(biased.pair_id, kind="stable"), np.argsort(deceiving.pair_id, kind="stable")
    ids = biased.pair_id[rows[0]]
    if not np.array_equal(ids, deceiving.pair_id[rows[1]]) or (ids[1:] == ids[:-1]).any():
        return None
    return rows


def _agree(
    label: np.ndarray, predicted: np.ndarray, confounder: np.ndarray | None, counts: np.ndarray
) -> bool:
    """Whether answers are those that were counted, image by image, with confounders where they are known."""
    if is_multi_label(counts):
        return label.ndim == 2 and all(
            _agree(label[:, k], predicted[:, k].astype(np.int64), confounder, counts[k])
            for k in range(len(counts))
        )
    rows, classes, _ = counts.shape
    place = np.zeros_like(label) if rows == 1 or confounder is None else confounder
    cell = (place * classes + label) * classes + predicted
    counted = np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    if confounder is None:
        return bool(np.array_equal(counted.sum(0), confusion_matrix(counts)))
    return bool(np.array_equal(counted, counts))
