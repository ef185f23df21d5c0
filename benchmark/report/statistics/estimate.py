"""What every interval of the report is: a value, its standard deviation, its bounds, and how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty. Never holds NaN: what does not exist is None, and ``note`` says why.

    Attributes:
        value: the plug-in value (a fraction, not per cent), or None where the score is undefined.
        sd: its standard deviation, or None where none can be given.
        low, high: the interval's bounds; both are numbers or both are None.
        kind: how the interval was made, for the table's caption.
        note: what a footnote must say; empty when there is nothing to add.
    """

    value: float | None
    sd: float | None
    low: float | None
    high: float | None
    kind: str
    note: str = ""

    @property
    def interval_sd(self) -> float | None:
        """The sd that the interval is made from; another than ``sd`` only where a subclass says so."""
        return self.sd


def normal_quantile(level: float) -> float:
    """The factor of a two-sided normal interval: 1.96 for ``level`` = 0.95. ValueError outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"The level of an interval lies between 0 and 1, for example 0.95; got {level!r}."
        )
    return float(ndtri(0.5 + level / 2.0))


def clipped(low: float, high: float, limits: tuple[float, float] | None) -> tuple[float, float]:
    """Bounds kept inside the range of the score; the truth is never outside it, so coverage does not change."""
    if limits is None:
        return low, high
    return max(low, limits[0]), min(high, limits[1])


def normal_estimate(
    value: float,
    sd: float,
    kind: str,
    level: float,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> Estimate:
    """``value`` ± normal quantile · ``sd``, kept inside ``limits``."""
    half = normal_quantile(level) * sd
    low, high = clipped(value - half, value + half, limits)
    return Estimate(value, sd, low, high, kind, note)


def checked_counts(counts: ArrayLike, what: str) -> Ints:
    """Counts as int64. ValueError for NaN, negative or fractional entries and for an empty table."""
    array = np.asarray(counts)
    if array.size == 0:
        raise ValueError(f"The {what} are empty; there is nothing to estimate from.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The {what} must be numbers, not {array.dtype}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"The {what} contain NaN or infinity; counts are whole numbers from 0.")
    whole = array.astype(np.int64)
    if (whole != array).any():
        raise ValueError(f"The {what} contain fractions; counts are whole numbers from 0.")
    if (whole < 0).any():
        raise ValueError(f"The {what} contain a negative number; counts are whole numbers from 0.")
    return whole


def checked_values(values: ArrayLike, what: str, ndim: int) -> Floats:
    """Finite float64 values with ``ndim`` axes. ValueError for NaN, infinity, no values or another shape."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The {what} must be numbers, not {array.dtype}.")
    array = array.astype(np.float64)
    if array.ndim != ndim:
        raise ValueError(f"The {what} must have {ndim} axes; got shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"The {what} are empty; there is nothing to estimate from.")
    if not np.isfinite(array).all():
        raise ValueError(f"The {what} contain NaN or infinity.")
    return array


def listed(names: Sequence[object]) -> str:
    """``1, 4 and 7``: at most six names, then how many more, so that a footnote stays one line."""
    shown = [str(name) for name in names[:6]]
    if len(names) > 6:
        return f"{', '.join(shown)} and {len(names) - 6} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
