"""Invariant risk minimisation: features on which one classifier is optimal in all environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmark.core import (
    ALGORITHMS,
    MAX_STEPS,
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


def irm_penalty(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Estimate the squared gradient of an environment's risk with respect to a scale of its logits.

    With CE(s·f, y) = logsumexp(s·f) − s·f_y, the derivative at s = 1 is Σ_k softmax(f)_k · f_k −
    f_y for each row, so that no second differentiation is needed. The product of its means over
    even and odd rows is an unbiased estimate of the square (Arjovsky et al. 2019, section 3.2),
    which may be negative.

    Args:
        logits: float[B,K], rows of one environment.
        label: int64[B].

    Returns:
        A scalar; 0 for fewer than two rows, from which no unbiased estimate can be computed.
    """
    if len(label) < 2:
        return 0.0 * logits.sum()
    logits = exact(logits)
    mean_logits = (logits.softmax(1) * logits).sum(1)
    slope = mean_logits - logits.gather(1, label[:, None]).squeeze(1)
    return slope[::2].mean() * slope[1::2].mean()


@ALGORITHMS.register
class IRM(Algorithm):
    """IRMv1: mean risk of the environments + λ · mean penalty.

    The penalty is averaged over environments with at least two rows in the batch.

    λ is 1 before ``anneal_iters`` and has its full value from then on. At the switch the optimiser
    is rebuilt, since moments gathered at the old scale of the loss would make Adam's first steps
    far too long.
    """

    name = "irm"
    title = "IRM"
    paper = Paper(
        title="Invariant risk minimization",
        authors="Arjovsky, Bottou, Gulrajani, Lopez-Paz",
        year=2019,
        url="https://arxiv.org/abs/1907.02893",
    )
    needs = Needs(environments=True)
    sampling = "environment"
    may_be_zero = frozenset({"penalty"})  # no environment has two rows in the batch
    hparams = {
        "penalty_weight": HParam(
            100.0,
            LogUniform(-1, 5),
            "λ, weight of the penalty after anneal_iters",
            low=0.0,
            high=1e9,
        ),
        "anneal_iters": HParam(
            500,
            LogUniform(0, 4, integer=True),
            "steps during which the weight is 1",
            low=0,
            high=MAX_STEPS,
        ),
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return lacks_pairs(spec, info, "the penalty")

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the step at which λ gets its full value; 0 for λ = 1."""
        return 0 if hparams["penalty_weight"] == 1 else int(hparams["anneal_iters"])

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.environment is not None
        logits = self.predict(batch.image)
        rows = rows_of_each(
            batch.environment, self.setting.num_environments, batch.environment_sizes
        )
        penalties = torch.stack(
            [irm_penalty(logits[chosen], batch.label[chosen]) for chosen in rows]
        )
        num_penalties = max(sum(len(chosen) > 1 for chosen in rows), 1)
        weight = self.hp["penalty_weight"] if self.current_step >= self.hp["anneal_iters"] else 1.0
        return {
            "classification": mean_risk(logits, batch.label, rows),
            "penalty": weight * penalties.sum() / num_penalties,
        }

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        if self.current_step == self.hp["anneal_iters"]:
            self.rebuild_optimizers()
        return super().step(batch)
