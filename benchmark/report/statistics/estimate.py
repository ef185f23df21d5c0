"""A value with its uncertainty, and the quantiles that every interval of the report uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Coverage that every interval of the report aims at.
LEVEL = 0.95
#: Probability below the upper bound of a two-sided interval.
UPPER_PROBABILITY = 0.5 + LEVEL / 2.0
#: Factor of the standard deviation in a two-sided normal interval.
NORMAL_QUANTILE = float(ndtri(UPPER_PROBABILITY))


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty. It never holds NaN: a missing number is None.

    Attributes:
        value: The plug-in value (a fraction, not per cent), or None where the score is undefined.
        sd: Its standard deviation, or None where none can be given.
        low: Lower bound of the interval; None if and only if ``high`` is None.
        high: Upper bound of the interval.
        kind: How the interval was made. This is caption text and never compared, except for
            "none" where there is no interval.
        note: Text of a footnote, for example why something is missing; may be empty.
        is_posterior: Whether ``sd`` is the standard deviation of a posterior.
    """

    value: float | None
    sd: float | None
    low: float | None
    high: float | None
    kind: str
    note: str = ""
    is_posterior: bool = False

    @property
    def interval_sd(self) -> float | None:
        """The standard deviation behind the interval; a subclass may use another than ``sd``."""
        return self.sd


def without_interval(value: float | None, note: str = "") -> Estimate:
    """Return an estimate that consists of a value (or None) and a note."""
    return Estimate(value, None, None, None, "none", note)


NO_ESTIMATE = without_interval(None)


def student_quantile(degrees_of_freedom: float) -> float:
    """Return the factor of the standard error in a two-sided interval of Student's t."""
    return float(stdtrit(degrees_of_freedom, UPPER_PROBABILITY))


def clipped(low: float, high: float, limits: tuple[float, float] | None) -> tuple[float, float]:
    """Return the bounds, moved into the range of the score.

    The true value lies in that range, so coverage does not change.
    """
    if limits is None:
        return low, high
    return max(low, limits[0]), min(high, limits[1])


def normal_estimate(
    value: float,
    sd: float,
    kind: str,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> Estimate:
    """Return ``value`` with the interval ``value`` ± 1.96 ``sd``, kept inside ``limits``."""
    half = NORMAL_QUANTILE * sd
    low, high = clipped(value - half, value + half, limits)
    return Estimate(value, sd, low, high, kind, note)


def finite_or_none(value: float) -> float | None:
    """Return the value as a float, or None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def checked_counts(counts: ArrayLike, name: str) -> Ints:
    """Return counts as int64.

    Args:
        counts: Numbers of any shape.
        name: The counts' name in messages.

    Raises:
        ValueError: NaN, negative or fractional entries, or an empty table.
    """
    array = np.asarray(counts)
    if array.size == 0:
        raise ValueError(f"The {name} are empty; there is nothing to estimate from.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The {name} must be numbers, not {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"The {name} contain NaN or infinity; counts are whole numbers from 0.")
    whole = array.astype(np.int64)
    if (whole != array).any():
        raise ValueError(f"The {name} contain fractions; counts are whole numbers from 0.")
    if (whole < 0).any():
        raise ValueError(f"The {name} contain a negative number; counts are whole numbers from 0.")
    return whole


def checked_values(values: ArrayLike, name: str, ndim: int) -> Floats:
    """Return finite values as float64.

    Args:
        values: Numbers with ``ndim`` axes.
        name: The values' name in messages.
        ndim: Number of axes.

    Raises:
        ValueError: NaN, infinity, no values, or another number of axes.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The {name} must be numbers, not {array.dtype}.")
    array = array.astype(np.float64)
    if array.ndim != ndim:
        raise ValueError(f"The {name} must have {ndim} axes; got shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"The {name} are empty; there is nothing to estimate from.")
    if not np.isfinite(array).all():
        raise ValueError(f"The {name} contain NaN or infinity.")
    return array


def listed(names: Sequence[object]) -> str:
    """Return ``1, 4 and 7``: at most six names, then how many more, so that it stays one line."""
    shown = [str(name) for name in names[:6]]
    if len(names) > 6:
        return f"{', '.join(shown)} and {len(names) - 6} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
