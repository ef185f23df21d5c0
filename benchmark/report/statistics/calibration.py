"""Agreement of the confidence of a network with its accuracy."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import softmax

from benchmark.report.statistics.delta_method import Contributions
from benchmark.report.statistics.estimate import Estimate, Floats, Ints, normal_estimate

#: Equal-width bins of the confidence in the calibration error.
BINS = 15
KIND = "normal over images, given the sign of each bin"


def calibration_error(label: np.ndarray, logits: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error Σ_bins share · |accuracy − mean confidence|.

    Args:
        label: int64[N], or int64[N,K] of 0 and 1; then every answer, yes or no, counts.
        logits: float[N,K].
        bins: Number of equal-width bins of the confidence in (0, 1].

    Source: Guo et al. (2017), equation 3.
    """
    return float(_signed_differences(label, logits, bins).mean())


def calibration_estimate(
    label: np.ndarray, logits: np.ndarray, bins: int = BINS
) -> tuple[Estimate, Contributions]:
    """Return the calibration error with an interval, and what each image contributes to its error.

    Given the sign of accuracy − confidence in each bin, the error is a mean over images. The
    interval ignores that these signs are estimated.

    Args:
        label: As in ``calibration_error``.
        logits: As in ``calibration_error``.
        bins: As in ``calibration_error``.
    """
    per_image = _signed_differences(label, logits, bins).reshape(len(label), -1).mean(1)
    value = float(per_image.mean())
    n = len(per_image)
    values = (per_image - value) / math.sqrt(n * max(n - 1, 1))
    sd = math.sqrt(float((values**2).sum()))
    return normal_estimate(value, sd, KIND, (0.0, 1.0)), Contributions(values)


def reliability(
    label: np.ndarray, logits: np.ndarray, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return mean confidence, accuracy and number of answers of every bin that has answers."""
    confidence, correct, place = _confidence(label, logits, bins)
    size = np.bincount(place, minlength=bins)
    confidences = np.bincount(place, confidence, minlength=bins)
    accuracies = np.bincount(place, correct, minlength=bins)
    return [
        (float(confidences[b] / size[b]), float(accuracies[b] / size[b]), int(size[b]))
        for b in np.flatnonzero(size)
    ]


def _signed_differences(label: np.ndarray, logits: np.ndarray, bins: int) -> Floats:
    """Return ±(correct − confidence) of each answer, with the sign of its bin."""
    confidence, correct, place = _confidence(label, logits, bins)
    difference = correct - confidence
    sign = np.sign(np.bincount(place, difference, minlength=bins))
    return np.asarray(sign[place] * difference)


def _confidence(label: np.ndarray, logits: np.ndarray, bins: int) -> tuple[Floats, Floats, Ints]:
    """Return confidence, correctness and bin of each answer."""
    if label.ndim == 2:  # several labels per image: each is a question of two classes, no and yes
        label = label.ravel()
        logits = np.stack([np.zeros(logits.size), logits.ravel()], axis=1)
    probability = softmax(logits, axis=1)
    predicted = logits.argmax(1)
    confidence = probability[np.arange(len(label)), predicted]
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return confidence, (predicted == label).astype(np.float64), place
