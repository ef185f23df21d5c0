"""Posterior mean and standard deviation of a score, as both engines return them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.report.statistics.estimate import Floats


@dataclass(frozen=True)
class Moments:
    """Posterior moments of one score: one entry per class, or one entry for an overall score.

    Attributes:
        mean: [M] or [1] posterior mean.
        sd: Posterior standard deviation.
        error: Monte Carlo error of ``mean``; 0 for a closed form.
        sd_error: Monte Carlo error of ``sd``.
    """

    mean: Floats
    sd: Floats
    error: Floats
    sd_error: Floats
