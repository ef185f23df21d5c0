"""The generalisation gap between the biased and the deceiving test set: signed, and its absolute value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from benchmark.report.statistics.estimate import Estimate, checked_counts, listed, normal_estimate


@dataclass(frozen=True)
class Gap:
    """The gap g = Acc_biased − Acc_deceiving.

    Attributes:
        signed: g; its sign says which way the shortcut pulls.
        absolute: |g| with the signed interval folded; its lower bound is 0 where the signed one straddles 0.
    """

    signed: Estimate
    absolute: Estimate


def paired_gap(tables: ArrayLike, level: float = 0.95) -> Gap:
    """The gap when both test sets show the same objects (``pair_id``) with another bias; classes count equally.

    Args:
        tables: [M, 2, 2] or [2, 2] counts of pairs; ``tables[j, b, d]`` pairs of class j whose biased image is right
            (b = 1) or wrong (b = 0) and whose deceiving image is right (d = 1) or wrong (d = 0).
        level: of the interval.
    Returns:
        The plug-in gap with the posterior sd under Dir(½, ½, ½, ½) per class: m_j = π₁₀ − π₀₁,
        Var_j = (π₁₀ + π₀₁ − m_j²)/(n_j + 3). Classes without pairs are left out and named in the note.
    Raises:
        ValueError: another shape, negative, fractional or NaN counts, no pairs at all.
    Source: Jeffreys' prior on the four joint probabilities.
    """
    counts = checked_counts(tables, "pair counts")
    if counts.ndim == 2:
        counts = counts[None]
    if counts.ndim != 3 or counts.shape[1:] != (2, 2):
        raise ValueError(
            f"Pair counts have shape [classes, 2, 2] (biased right, deceiving right); got {counts.shape}."
        )
    size = counts.sum((1, 2))
    present = np.flatnonzero(size)
    if not len(present):
        raise ValueError("There are no pairs; without pairs take the unpaired gap.")
    n, only_biased, only_deceiving = size[present], counts[present, 1, 0], counts[present, 0, 1]
    value = float(((only_biased - only_deceiving) / n).mean())
    mean_10, mean_01 = (only_biased + 0.5) / (n + 2.0), (only_deceiving + 0.5) / (n + 2.0)
    variance = (mean_10 + mean_01 - (mean_10 - mean_01) ** 2) / (n + 3.0)
    absent = np.flatnonzero(size == 0)
    note = f"left out: class {listed(list(absent))} without pairs" if len(absent) else ""
    sd = math.sqrt(float(variance.sum())) / len(present)
    return _gap(value, sd, sd, "paired, plug-in ± posterior sd", level, note)


def unpaired_gap(biased: Estimate, deceiving: Estimate, level: float = 0.95) -> Gap:
    """The gap between two test sets with different objects: the two variances add.

    Args:
        biased, deceiving: the same score on both test sets, for example ``confusion_posterior(…).balanced_accuracy``.
        level: of the interval.
    Returns:
        Without an interval, and with a note, when either score has no value or no sd.
    """
    notes = [
        f"{name}: {e.note}" for name, e in (("biased", biased), ("deceiving", deceiving)) if e.note
    ]
    if biased.value is None or deceiving.value is None:
        nothing = Estimate(
            None, None, None, None, "none", "; ".join(["no gap: a test set has no score", *notes])
        )
        return Gap(nothing, nothing)
    value = biased.value - deceiving.value
    if biased.sd is None or deceiving.sd is None:
        note = "; ".join(["no interval of the gap: a test set's score has no sd", *notes])
        none = (None, None, None, "none", note)
        return Gap(Estimate(value, *none), Estimate(abs(value), *none))
    sd = math.hypot(biased.sd, deceiving.sd)
    interval_sd = math.hypot(biased.interval_sd or biased.sd, deceiving.interval_sd or deceiving.sd)
    return _gap(value, sd, interval_sd, "unpaired, variances added", level, "; ".join(notes))


def _gap(value: float, sd: float, interval_sd: float, kind: str, level: float, note: str) -> Gap:
    wide = normal_estimate(value, interval_sd, kind, level, (-1.0, 1.0), note)
    signed = replace(wide, sd=sd)
    return Gap(signed, folded(signed))


def folded(signed: Estimate) -> Estimate:
    """The absolute value of a signed estimate: its interval folded at 0, so that coverage cannot be lost."""
    if signed.value is None:
        return signed
    value = abs(signed.value)
    if signed.low is None or signed.high is None:
        return Estimate(value, signed.sd, None, None, signed.kind, signed.note)
    near, far = sorted((abs(signed.low), abs(signed.high)))
    straddles = signed.low <= 0.0 <= signed.high
    return Estimate(
        value, signed.sd, 0.0 if straddles else near, far, f"{signed.kind}, folded", signed.note
    )
