"""Answers of a model as indicators of classes, for single labels and for several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.auditing.model import AuditedModel
from benchmark.core.seeds import seed_for


@dataclass(frozen=True)
class AuditImages:
    """The images of an audit.

    Args:
        pixels: uint8[N,C,H,W].
        truth: bool[N,K], True for the classes of an image.
        mask: bool[N,1,H,W], the foreground, or None.
        cluster: int64[N], equal for images of one patient, or None.
        multi_label: True if an image may have several classes or none.
    """

    pixels: np.ndarray
    truth: np.ndarray
    mask: np.ndarray | None
    cluster: np.ndarray | None
    multi_label: bool

    def __len__(self) -> int:
        return len(self.pixels)


def truth_of(label: np.ndarray, classes: int) -> np.ndarray:
    """Return bool[N,K] from labels int64[N], or from 0 and 1 in int64[N,K]."""
    if label.ndim == 2:
        return label == 1
    return np.asarray(label[:, None] == np.arange(classes))


def predicted_classes(scores: np.ndarray, multi_label: bool) -> np.ndarray:
    """Return the predicted classes bool[N,K] from scores float[N,K]."""
    if multi_label:
        return scores > 0
    return np.asarray(scores.argmax(1)[:, None] == np.arange(scores.shape[1]))


def answers(model: AuditedModel, images: AuditImages, pixels: np.ndarray) -> np.ndarray:
    """Return the classes that a model predicts for changed images, bool[N,K]."""
    return predicted_classes(model.scores(pixels), images.multi_label)


def balanced_rows(label: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Return at most ``most`` rows with classes as evenly represented as possible, sorted.

    Args:
        label: int64[N] or int64[N,K], where the first present class counts.
        most: largest number of rows.
        seed: seed of the choice.
    """
    kind = label if label.ndim == 1 else np.where(label.any(1), label.argmax(1), -1)
    rng = np.random.default_rng(seed_for("audit", seed))
    order = rng.permutation(len(kind))
    # The position of each row among those of its class, in random order.
    position = np.empty(len(kind), np.int64)
    for value in np.unique(kind):
        mine = order[kind[order] == value]
        position[mine] = np.arange(len(mine))
    ranked = sorted(order, key=lambda row: position[row])
    return np.sort(np.array(ranked[:most], np.int64))
