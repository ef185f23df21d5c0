"""The generalisation gap: accuracy on the biased test set minus accuracy on the deceiving one.

The gap keeps its sign, which tells the direction in which the shortcut pulls.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from benchmark.report.statistics.estimate import (
    Estimate,
    checked_counts,
    listed,
    normal_estimate,
    without_interval,
)

LIMITS = (-1.0, 1.0)


def paired_gap(tables: ArrayLike) -> Estimate:
    """Return the gap between two test sets that show the same objects with another bias.

    Classes count equally. The standard deviation is that of the posterior under
    Dir(½, ½, ½, ½) per class: with m_j = π₁₀ − π₀₁ it is Var_j = (π₁₀ + π₀₁ − m_j²)/(n_j + 3).

    Args:
        tables: [M, 2, 2] or [2, 2] counts of pairs. ``tables[j, b, d]`` counts the pairs of class
            j whose biased image is classified correctly (b = 1) or not (b = 0), and whose
            deceiving image is (d = 1) or is not (d = 0).

    Returns:
        The plug-in gap. Classes without pairs are left out and named in the note.

    Raises:
        ValueError: Another shape; negative, fractional or NaN counts; no pairs at all.

    Source: Jeffreys' prior on the four joint probabilities.
    """
    counts = checked_counts(tables, "pair counts")
    if counts.ndim == 2:
        counts = counts[None]
    if counts.ndim != 3 or counts.shape[1:] != (2, 2):
        raise ValueError(
            "Pair counts have shape [classes, 2, 2] (biased correct, deceiving correct); "
            f"got {counts.shape}."
        )
    size = counts.sum((1, 2))
    present = np.flatnonzero(size)
    if not len(present):
        raise ValueError("There are no pairs; use `unpaired_gap` without pairs.")
    n = size[present]
    only_biased = counts[present, 1, 0]
    only_deceiving = counts[present, 0, 1]
    value = float(((only_biased - only_deceiving) / n).mean())
    mean_10 = (only_biased + 0.5) / (n + 2.0)
    mean_01 = (only_deceiving + 0.5) / (n + 2.0)
    variance = (mean_10 + mean_01 - (mean_10 - mean_01) ** 2) / (n + 3.0)
    sd = math.sqrt(float(variance.sum())) / len(present)
    absent = np.flatnonzero(size == 0)
    note = f"left out: class {listed(list(absent))} without pairs" if len(absent) else ""
    estimate = normal_estimate(value, sd, "paired, plug-in ± posterior sd", LIMITS, note)
    return replace(estimate, is_posterior=True)


def unpaired_gap(biased: Estimate, deceiving: Estimate) -> Estimate:
    """Return the gap between two test sets with different objects: the two variances add.

    Args:
        biased: A score on the biased test set.
        deceiving: The same score on the deceiving test set.

    Returns:
        The difference; it has no interval, but a note, when either score has no value or no
        standard deviation.
    """
    notes = [
        f"{name}: {e.note}" for name, e in (("biased", biased), ("deceiving", deceiving)) if e.note
    ]
    if biased.value is None or deceiving.value is None:
        return without_interval(None, "; ".join(["no gap: a test set has no score", *notes]))
    value = biased.value - deceiving.value
    if biased.sd is None or deceiving.sd is None:
        note = "; ".join(["no interval of the gap: a test set's score has no sd", *notes])
        return without_interval(value, note)
    sd = math.hypot(biased.sd, deceiving.sd)
    interval_sd = math.hypot(biased.interval_sd or biased.sd, deceiving.interval_sd or deceiving.sd)
    kind = "unpaired, variances added"
    estimate = normal_estimate(value, interval_sd, kind, LIMITS, "; ".join(notes))
    return replace(estimate, sd=sd, is_posterior=biased.is_posterior and deceiving.is_posterior)
