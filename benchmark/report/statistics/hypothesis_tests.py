"""p-values of differences: McNemar's exact test, the normal test, and Holm's adjustment."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.special import bdtr, ndtr

from benchmark.report.statistics.estimate import Estimate, checked_counts


def mcnemar(n10: int, n01: int) -> float:
    """Return the exact two-sided p-value that two methods are equally accurate.

    Args:
        n10: Number of images that only the first method classifies correctly.
        n01: Number of images that only the second method classifies correctly.

    Returns:
        min(1, 2 P(X ≤ min(n10, n01))) with X ~ Bin(n10 + n01, ½); 1 if they never disagree.

    Raises:
        ValueError: Negative, fractional or NaN counts.

    Source: McNemar (1947), with the exact binomial in place of the χ² approximation.
    """
    fewer, more = sorted(int(n) for n in checked_counts([n10, n01], "counts of McNemar's test"))
    return min(1.0, 2.0 * float(bdtr(fewer, fewer + more, 0.5)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p-values of one family (one data set and metric), in the given order.

    Args:
        p: p-values. None is a comparison that could not be made: it stays None and is not counted.

    Raises:
        ValueError: A p-value outside [0, 1] or NaN.

    Source: Holm (1979): sorted p_(i) becomes max over k ≤ i of min(1, (m − k + 1) p_(k)).
    """
    made = [(float(value), position) for position, value in enumerate(p) if value is not None]
    for value, _ in made:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"A p-value lies between 0 and 1; got {value!r}.")
    adjusted: list[float | None] = [None] * len(p)
    running = 0.0
    for rank, (value, position) in enumerate(sorted(made)):
        running = max(running, min(1.0, (len(made) - rank) * value))
        adjusted[position] = running
    return adjusted


def two_sided_p(difference: Estimate) -> float | None:
    """Return 2 Φ(−|Δ|/se), the normal p-value of Δ = 0, or None without a standard deviation."""
    if difference.value is None or not difference.sd:
        return None
    return float(2.0 * ndtr(-abs(difference.value) / difference.sd))
