"""Tables of predictions, and names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.registry import did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame


def probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Return the probability of each class, float64[N,K].

    Args:
        logits: float[N,K].
        multi_label: True for the sigmoid of each logit, False for the softmax over classes.
    """
    from scipy.special import expit, softmax

    values = logits.astype(np.float64)
    result: np.ndarray = expit(values) if multi_label else softmax(values, axis=1)
    return result


def prediction_table(
    names: Sequence[str], logits: np.ndarray, labels: Sequence[str], multi_label: bool
) -> DataFrame:
    """Return the table of ``Run.predict``.

    Args:
        names: file of each image.
        logits: float[N,K].
        labels: names of the K classes.
        multi_label: True if an image may have several labels or none.
    """
    from pandas import DataFrame

    shares = probabilities(logits, multi_label)
    if multi_label:
        predicted = [
            ", ".join(label for label, logit in zip(labels, row, strict=True) if logit > 0)
            for row in logits
        ]
    else:
        predicted = [labels[number] for number in logits.argmax(1)]
    columns = {f"p({label})": shares[:, number] for number, label in enumerate(labels)}
    return DataFrame({"file": list(names), "predicted": predicted, **columns})


def class_numbers(
    target: str | int | Sequence[str | int], labels: Sequence[str], count: int
) -> np.ndarray:
    """Return the number of the class to explain for each image, int64[N].

    Args:
        target: name or number of a class, one for all images or one for each.
        labels: names of the classes.
        count: number of images.

    Raises:
        UserError: an unknown class, or another number of classes than images.
    """
    one = isinstance(target, str | int | np.integer)
    targets = [target] * count if one else list(target)  # type: ignore[arg-type]
    if len(targets) != count:
        raise UserError(
            f"{len(targets)} classes for {count} images, expected one class for all or one each."
        )
    return np.array([_class_number(name, labels) for name in targets], np.int64)


def _class_number(name: object, labels: Sequence[str]) -> int:
    if isinstance(name, str):
        if name not in labels:
            raise UserError(f"unknown class {name!r}{did_you_mean(name, labels)}")
        return list(labels).index(name)
    if not isinstance(name, int | np.integer) or not 0 <= int(name) < len(labels):
        raise UserError(
            f"unknown class {name!r}, expected one of {', '.join(labels)} or a number from 0 to "
            f"{len(labels) - 1}."
        )
    return int(name)
