"""The TEA paper's engine for the posterior of a confusion matrix: PyMC's NUTS.

It is optional and a check of the exact engine in ``posterior``.
"""

from __future__ import annotations

import logging

import numpy as np

from benchmark.report.statistics.estimate import Floats, Ints
from benchmark.report.statistics.moments import Moments

CHAINS = 4
TUNING = 1_000
#: Batches per chain from whose means the Monte Carlo error of correlated draws is estimated.
_BATCHES = 25


def nuts_moments(table: Ints, draws: int, seed: int) -> tuple[dict[str, Moments], int, int]:
    """Return the posterior moments of every score.

    Args:
        table: [M, M] counts; rows without images are left out of the model, as in the exact engine.
        draws: Draws per chain after 1,000 tuning draws; at least 25.
        seed: Seed of the draws; equal seeds give equal results.

    Returns:
        The moments by name, the number of draws of all chains, and the number of divergent
        transitions.

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
    return {name: _moments(draw) for name, draw in scores.items()}, CHAINS * draws, divergences


def scores_of(mu: Floats, theta: Floats, present: Ints, classes: int) -> dict[str, Floats]:
    """Return every score for every draw, directly from its definition.

    Args:
        mu: [..., K] probabilities of the K classes that have images.
        theta: [..., K, M] prediction probabilities of those classes.
        present: [K] numbers of these classes.
        classes: Number M of all classes.

    Returns:
        name → [..., M] for a score per class, [..., 1] for an overall one; NaN where undefined.

    Source: TEA paper, Appendix H; Zhang, Wang & Zhao (ICTIR 2015).
    """
    joint = mu[..., None] * theta
    predicted = joint.sum(-2)
    share, correct, recall = np.zeros((3, *predicted.shape))
    share[..., present] = mu
    for row, j in enumerate(present):
        correct[..., j] = joint[..., row, j]
        recall[..., j] = theta[..., row, j]
    absent = np.setdiff1d(np.arange(classes), present)
    recall[..., absent] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = correct / predicted
        f1 = 2.0 * correct / (share + predicted)
        specificity = 1.0 - (predicted - correct) / (1.0 - share)
    precision[..., absent] = f1[..., absent] = np.nan
    return {
        "recall": recall,
        "precision": precision,
        "specificity": specificity,
        "f1": f1,
        "accuracy": correct.sum(-1, keepdims=True),
        "balanced_accuracy": recall[..., present].mean(-1, keepdims=True),
        "macro_precision": precision[..., present].mean(-1, keepdims=True),
        "macro_specificity": specificity[..., present].mean(-1, keepdims=True),
        "macro_f1": f1[..., present].mean(-1, keepdims=True),
    }


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
