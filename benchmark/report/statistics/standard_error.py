"""Standard errors that are sums of components, each with its own degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from benchmark.report.statistics.estimate import LEVEL

#: Bisections of the logarithm of a p-value; the error is then below 1e-9 of it.
_BISECTIONS = 40
#: Smallest p-value that is distinguished, and its logarithm.
_LOG_SMALLEST = math.log(1e-30)


@dataclass(frozen=True)
class StandardError:
    """The standard error of an estimate, with one quantile of Student's t for each component.

    One quantile with Satterthwaite's degrees of freedom covers too rarely if a component with few
    degrees of freedom is small by chance. Intervals, p-values and probabilities all come from
    ``half_width``, so that they never contradict each other.

    Attributes:
        variances: The components of the variance of the estimate.
        degrees_of_freedom: Of each component; infinite for a known variance.
        residual: Least true value of the first component, where it is known.

    Source: Howe (1974), as used in the modified large-sample intervals of Graybill & Wang (1980).
    """

    variances: tuple[float, ...]
    degrees_of_freedom: tuple[float, ...]
    residual: float = 0.0

    @property
    def sd(self) -> float:
        """The root of the sum of the components."""
        return math.sqrt(math.fsum(self.variances))

    def half_width(self, tail: float = (1.0 - LEVEL) / 2.0) -> float:
        """Return half the width of the interval that misses with probability ``tail`` per side."""
        return math.sqrt(
            math.fsum(
                variance * quantile(freedom, tail) ** 2
                for variance, freedom in zip(self.variances, self.degrees_of_freedom, strict=True)
                if variance > 0.0
            )
        )

    def p_value(self, difference: float) -> float:
        """Return the two-sided p-value that the true difference is zero."""
        distance = abs(difference)

        def excludes_zero(tail: float) -> bool:
            return self.half_width(tail) < distance

        return level_excluding_zero(excludes_zero)


def level_excluding_zero(excludes_zero: Callable[[float], bool]) -> float:
    """Return the p-value of an interval: the level at which it just excludes zero.

    Args:
        excludes_zero: Whether the interval that is missed with this probability per side excludes
            zero.
    """
    if not excludes_zero(0.5):
        return 1.0
    low = _LOG_SMALLEST
    high = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if excludes_zero(math.exp(middle) / 2.0):
            high = middle
        else:
            low = middle
    return math.exp(high)


def quantile(degrees_of_freedom: float, tail: float) -> float:
    """Return the quantile of Student's t, or of the normal distribution, at ``tail``."""
    if math.isinf(degrees_of_freedom):
        return float(ndtri(tail))
    return float(stdtrit(degrees_of_freedom, tail))
