"""What the chosen models answered, image by image: predictions.npz, read when a number needs it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.counts import correct_and_total
from benchmark.report.records.model_selection import Winner
from benchmark.report.statistics.metrics import confusion, multi_label


@dataclass(frozen=True)
class Answers:
    """One winner's answers on one split: ``right`` bool[N], ``label`` int64[N], ``pair_id`` and ``cluster`` or None.

    With several labels per image: ``right`` float64[N], the share of an image's answers that are right, ``label``
    int64[N,K] of 0 and 1.
    """

    right: np.ndarray
    label: np.ndarray
    pair_id: np.ndarray | None
    cluster: np.ndarray | None


class UnusableError(Exception):
    """Predictions that cannot be used; the message says why."""


class Book:
    """Answers of the winners at the steps that were chosen; each is read once, and what cannot be used is noted."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}  # run key -> why its predictions are not used
        self._known: dict[tuple[str, str], Answers | None] = {}

    def answers(self, winner: Winner, split: str) -> Answers | None:
        """The winner's answers on a split, or None where they are missing, damaged or contradict the record."""
        where = (winner.run.key, split)
        if where not in self._known:
            try:
                self._known[where] = _checked(self._load(winner, split), winner, split)
            except UnusableError as error:
                self.problems.setdefault(
                    winner.run.key, f"{winner.run.folder.predictions.name} {error}"
                )
                self._known[where] = None
        return self._known[where]

    def scores(self, winner: Winner, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """label int64[N] (or [N,K]) and logits float64[N,K], not kept in memory; None as in ``answers``."""
        if self.answers(winner, split) is None:
            return None
        arrays = self._load(winner, split)
        return arrays["label"], arrays["score"].astype(np.float64)

    def matrix(self, winners: Sequence[Winner], split: str) -> np.ndarray | None:
        """Correctness float64[S,n], in [0, 1], of several trials, if all answered the same list of images."""
        found = [a for winner in winners if (a := self.answers(winner, split)) is not None]
        if len(found) < len(winners) or not same_images(found):
            return None
        return np.stack([a.right for a in found]).astype(np.float64)

    def _load(self, winner: Winner, split: str) -> dict[str, np.ndarray]:
        names = {name: f"{split}/{name}" for name in ("label", "pair_id", "cluster")}
        names["score"] = f"{winner.criterion}/{split}/score"
        try:
            with np.load(winner.run.folder.predictions, allow_pickle=False) as file:
                found = {name: file[key] for name, key in names.items() if key in file.files}
        except FileNotFoundError:
            raise UnusableError("is missing") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError, MemoryError) as error:
            raise UnusableError(f"is damaged ({type(error).__name__})") from None
        if "label" not in found or "score" not in found:
            raise UnusableError(f"has no scores of {split}")
        return found


def _checked(arrays: dict[str, np.ndarray], winner: Winner, split: str) -> Answers:
    label, score = arrays["label"], arrays["score"]
    several = label.ndim == 2
    wanted = label.shape if several else (len(label) if label.ndim else 0, *score.shape[1:2])
    if label.ndim not in (1, 2) or score.ndim != 2 or score.shape != wanted or not score.size:
        raise UnusableError(
            f"has shapes {label.shape} and {score.shape} of {split}, which do not fit"
        )
    if not np.isfinite(score).all():
        raise UnusableError(f"holds scores of {split} that are not finite")
    predicted = score > 0 if several else score.argmax(1)
    counts = winner.at.counts.get(split)
    if counts is not None and (
        several != multi_label(counts) or not _agree(label, predicted, counts)
    ):
        raise UnusableError(f"contradicts record.json on {split}")
    right = predicted == label
    return Answers(
        right.mean(1) if several else right, label, arrays.get("pair_id"), arrays.get("cluster")
    )


def same_images(found: Sequence[Answers]) -> bool:
    """Whether several lists of answers are about the same list of images, as far as labels and pair ids can tell."""
    first, *others = found
    return all(
        np.array_equal(first.label, other.label) and _equal_or_absent(first.pair_id, other.pair_id)
        for other in others
    )


def _equal_or_absent(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def pair_order(biased: Answers, deceiving: Answers) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of two splits that bring the same objects beside each other; None where they are not one to one."""
    if biased.pair_id is None or deceiving.pair_id is None:
        return None
    rows = np.argsort(biased.pair_id, kind="stable"), np.argsort(deceiving.pair_id, kind="stable")
    ids = biased.pair_id[rows[0]]
    if not np.array_equal(ids, deceiving.pair_id[rows[1]]) or (ids[1:] == ids[:-1]).any():
        return None
    return rows


def _agree(label: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> bool:
    table = confusion(counts)
    if multi_label(counts):
        return label.shape[1] == len(table) and all(
            _agree(label[:, k], predicted[:, k].astype(np.int64), table[k][None])
            for k in range(len(table))
        )
    classes = len(table)
    if (
        len(label) != correct_and_total(counts)[1]
        or label.min() < 0
        or max(label.max(), predicted.max()) >= classes
    ):
        return False
    counted = np.bincount(label * classes + predicted, minlength=classes * classes)
    return bool(np.array_equal(counted.reshape(classes, classes), table))
