"""MMD and CORAL: features whose distribution is the same in every environment."""

from __future__ import annotations

from itertools import combinations

import torch

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
)
from benchmark.losses.environments import lacks_pairs, mean_risk, rows_of_each
from benchmark.losses.precision import exact
from benchmark.models.base import Backbone

#: Bandwidths of the Gaussian kernels that are summed (DomainBed).
GAMMAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)


def mmd(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the squared maximum mean discrepancy of two samples.

    This is the biased estimate of Gretton et al. (2012): mean k(x,x) + mean k(y,y) − 2 mean k(x,y)
    with k(a,b) = Σ_γ exp(−γ‖a−b‖²), over all pairs of rows including a row with itself.

    Args:
        x: float[n,F], at least one row.
        y: float[m,F], at least one row.

    Returns:
        A scalar, 0 for equal samples.
    """
    return _mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y)


def _mean_kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # |x|² + |y|² − 2xy would round: with γ = 1000, a row would have a distance from itself
    squared = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([torch.exp(-gamma * squared).mean() for gamma in GAMMAS]).sum()


def coral(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of means plus that of covariances (denominator n − 1).

    Sun & Saenko (2016) compare covariances only; comparing means, and averaging instead of summing,
    are DomainBed's changes.

    Args:
        x: float[n,F], at least one row.
        y: float[m,F], at least one row.

    Returns:
        A scalar, 0 for equal samples. If a sample has only one row, and thus no covariance, only
        the means are compared.
    """
    means = (x.mean(0) - y.mean(0)).square().mean()
    if min(len(x), len(y)) < 2:
        return means
    return means + (_covariance(x) - _covariance(y)).square().mean()


def _covariance(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


class MomentMatching(Algorithm):
    """Mean risk of the environments + weight · mean distance between their features.

    The distance is averaged over all pairs of environments.
    """

    needs = Needs(environments=True)
    sampling = "environment"
    may_be_zero = frozenset({"penalty"})  # a batch of one environment
    hparams = {
        "penalty_weight": HParam(
            1.0, LogUniform(-1, 1), "weight of the distance between environments", low=0.0, high=1e9
        )
    }
    network: Backbone

    @staticmethod
    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the distance between the features of two environments, a scalar."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.environment is not None
        features = self.network.features(batch.image)
        logits = self.network.classifier(self.network.dropout(features))
        rows = rows_of_each(
            batch.environment, self.setting.num_environments, batch.environment_sizes
        )
        return {
            "classification": mean_risk(logits, batch.label, rows),
            "penalty": self.hp["penalty_weight"] * self._mean_distance(features, rows),
        }

    def _mean_distance(self, features: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
        # bf16 products and exponentials of features would lose the difference to be measured
        with torch.autocast(features.device.type, enabled=False):
            x = exact(features)
            distances = [self.distance(x[a], x[b]) for a, b in combinations(rows, 2)]
        return torch.stack(distances).mean() if distances else x.new_zeros(())


@ALGORITHMS.register
class MMD(MomentMatching):
    """Distance: squared maximum mean discrepancy with a sum of Gaussian kernels."""

    name = "mmd"
    title = "MMD"
    paper = Paper(
        title="Domain generalization with adversarial feature learning",
        authors="Li, Pan, Wang, Kot",
        year=2018,
        url="https://openaccess.thecvf.com/content_cvpr_2018/html/Li_Domain_Generalization_With_CVPR_2018_paper.html",
    )
    distance = staticmethod(mmd)


@ALGORITHMS.register
class CORAL(MomentMatching):
    """Distance: squared difference of means and covariances."""

    name = "coral"
    title = "CORAL"
    paper = Paper(
        title="Deep CORAL: correlation alignment for deep domain adaptation",
        authors="Sun, Saenko",
        year=2016,
        url="https://arxiv.org/abs/1607.01719",
    )
    distance = staticmethod(coral)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return lacks_pairs(spec, info, "the covariance")
