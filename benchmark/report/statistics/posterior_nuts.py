"""The TEA paper's engine for the posterior of a confusion matrix: PyMC's NUTS.

It is optional and a check of the exact engine in ``posterior``.
"""

from __future__ import annotations

import logging

import numpy as np

from benchmark.report.statistics.credible import scores_of
from benchmark.report.statistics.estimate import UPPER_PROBABILITY, Floats, Ints
from benchmark.report.statistics.moments import Moments

CHAINS = 4
TUNING = 1_000
#: Batches per chain from whose means the Monte Carlo error of correlated draws is estimated.
_BATCHES = 25


def nuts_moments(
    table: Ints, draws: int, seed: int
) -> tuple[dict[str, Moments], dict[str, Floats], int, int]:
    """Return the posterior moments and credible bounds of every score.

    Args:
        table: [M, M] counts; rows without images are left out of the model, as in the exact engine.
        draws: Draws per chain after 1,000 tuning draws; at least 25.
        seed: Seed of the draws; equal seeds give equal results.

    Returns:
        The moments and the bounds of the 95 % credible intervals by name, the number of draws of
        all chains, and the number of divergent transitions.

    Raises:
        ValueError: PyMC is not installed, or too few draws.

    Source: TEA paper, Appendix H (4 chains of 11,000 draws, the first 1,000 for tuning).
    """
    if draws < _BATCHES:
        raise ValueError(
            f"NUTS needs at least {_BATCHES} draws per chain to estimate its error; got {draws}."
        )
    try:
        import pymc
    except ImportError as error:
        raise ValueError(
            'The NUTS engine needs PyMC: run "pip install pymc", or use the exact engine.'
        ) from error

    present = np.flatnonzero(table.sum(1))
    rows = table[present]
    size = rows.sum(1)
    # PyMC logs a line per chain, which would hide the report's own output.
    logging.getLogger("pymc").setLevel(logging.ERROR)
    with pymc.Model():
        if len(rows) > 1:  # with images of one class only, μ is a constant
            mu = pymc.Dirichlet("mu", a=np.ones(len(rows)))
            pymc.Multinomial("size", n=int(size.sum()), p=mu, observed=size)
        theta = pymc.Dirichlet("theta", a=np.ones(rows.shape))
        pymc.Multinomial("row", n=size, p=theta, observed=rows)
        trace = pymc.sample(
            draws=draws,
            tune=TUNING,
            chains=CHAINS,
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
        )
    theta_draws = np.asarray(trace.posterior["theta"].values, dtype=np.float64)
    if len(rows) > 1:
        mu_draws = np.asarray(trace.posterior["mu"].values, dtype=np.float64)
    else:
        mu_draws = np.ones((*theta_draws.shape[:2], 1))
    divergences = int(np.asarray(trace.sample_stats["diverging"].values).sum())
    scores = scores_of(mu_draws, theta_draws, present, len(table))
    moments = {name: _moments(draw) for name, draw in scores.items()}
    bounds = {name: _bounds(draw) for name, draw in scores.items()}
    return moments, bounds, CHAINS * draws, divergences


def _bounds(draws: Floats) -> Floats:
    """Return the bounds of equal-tailed credible intervals, [scores, 2]."""
    return np.quantile(draws, (1.0 - UPPER_PROBABILITY, UPPER_PROBABILITY), axis=(0, 1)).T


def _moments(draws: Floats) -> Moments:
    """Return the moments over [chains, draws, scores].

    The error of the mean of correlated draws is estimated from the means of batches.
    """
    chains, length, scores = draws.shape
    batch = length // _BATCHES
    mean = draws.mean((0, 1))
    sd = draws.std((0, 1))

    def error(values: Floats) -> Floats:
        means = values[:, : batch * _BATCHES].reshape(chains * _BATCHES, batch, scores).mean(1)
        return means.std(0, ddof=1) / np.sqrt(len(means))

    # sd = √variance, so its error is that of the mean squared deviation over 2 sd; 0 for constants.
    sd_error = error((draws - mean) ** 2) / np.maximum(2.0 * sd, 1e-300)
    return Moments(mean, sd, error(draws), sd_error)
