"""From differences to p-values and probabilities: McNemar, Holm, and "is it better, is it the same"."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import bdtr, ndtr

from benchmark.report.statistics.estimate import Estimate, checked_counts


def mcnemar(n10: int, n01: int) -> float:
    """Exact two-sided p-value that two methods are equally accurate on the same images.

    Args:
        n10: images that only the first method classifies rightly. n01: only the second.
    Returns:
        min(1, 2 P(X ≤ min(n10, n01))), X ~ Bin(n10 + n01, ½); 1 where they never disagree.
    Raises:
        ValueError: negative, fractional or NaN counts.
    Source: McNemar (1947), with the exact binomial in place of the χ² approximation.
    """
    fewer, more = sorted(int(n) for n in checked_counts([n10, n01], "counts of McNemar's test"))
    return min(1.0, 2.0 * float(bdtr(fewer, fewer + more, 0.5)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of one family (one dataset and metric), in the order given.

    Args:
        p: p-values; None stands for a comparison that could not be made: it stays None and is not counted.
    Raises:
        ValueError: a p-value outside [0, 1] or NaN.
    Source: Holm (1979): sorted p_(i) becomes max over k ≤ i of min(1, (m − k + 1) p_(k)).
    """
    made = [(float(value), at) for at, value in enumerate(p) if value is not None]
    for value, _ in made:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"A p-value lies between 0 and 1; got {value!r}.")
    adjusted: list[float | None] = [None] * len(p)
    running = 0.0
    for rank, (value, at) in enumerate(sorted(made)):
        running = max(running, min(1.0, (len(made) - rank) * value))
        adjusted[at] = running
    return adjusted


def probability_positive(difference: Estimate) -> float | None:
    """P(Δ > 0) = Φ(Δ/se): how sure it is that the first method is better. None where there is no sd."""
    if difference.value is None or not difference.sd:
        return None
    return float(ndtr(difference.value / difference.sd))


def probability_equivalent(difference: Estimate, margin: float = 0.01) -> float | None:
    """P(|Δ| < margin), normal. None where there is no sd.

    Args:
        margin: in the unit of the difference; 0.01 is one point of accuracy. ValueError unless positive.
    """
    if not (margin > 0.0 and math.isfinite(margin)):
        raise ValueError(
            f"The margin of equivalence is a positive number, for example 0.01; got {margin!r}."
        )
    if difference.value is None or not difference.sd:
        return None
    upper, lower = (
        (margin - difference.value) / difference.sd,
        (-margin - difference.value) / difference.sd,
    )
    return float(ndtr(upper) - ndtr(lower))


def two_sided_p(difference: Estimate) -> float | None:
    """2 Φ(−|Δ|/se): the normal p-value of Δ = 0. None where there is no sd."""
    if difference.value is None or not difference.sd:
        return None
    return float(2.0 * ndtr(-abs(difference.value) / difference.sd))
