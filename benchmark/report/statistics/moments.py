"""Posterior mean and standard deviation of a score, as the engines return them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.report.statistics.estimate import Floats


@dataclass(frozen=True)
class Moments:
    """Posterior mean and sd of one score, and their Monte Carlo errors: one entry per class, or one if overall."""

    mean: Floats
    sd: Floats
    error: Floats
    sd_error: Floats
