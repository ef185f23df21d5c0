"""Invariant risk minimisation: features on which one and the same classifier is the best in every environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from benchmark.core.algorithm import Algorithm, Paper
from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import MOST_STEPS
from benchmark.losses.environments import lacks_pairs, mean_risk, rows_of_each
from benchmark.losses.precision import exact

if TYPE_CHECKING:
    from benchmark.core.dataset import DatasetInfo
    from benchmark.core.spec import RunSpec


def irm_penalty(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Squared gradient of one environment's risk with respect to a scale of its logits, at scale 1, without bias.

    With CE(s·f, y) = logsumexp(s·f) − s·f_y the derivative at s = 1 is Σ_k softmax(f)_k · f_k − f_y for each row, so no
    second differentiation is needed. The product of its means over even and odd rows is an unbiased estimate of the
    square (Arjovsky et al. 2019, section 3.2), and may be negative.

    Args:
        logits: float[B,K], rows of one environment.
        label: int64[B].

    Returns:
        A scalar; 0 for fewer than two rows, of which there is no unbiased estimate.
    """
    if len(label) < 2:
        return 0.0 * logits.sum()
    logits = exact(logits)
    slope = (logits.softmax(1) * logits).sum(1) - logits.gather(1, label[:, None]).squeeze(1)
    return slope[::2].mean() * slope[1::2].mean()


@ALGORITHMS.register
class IRM(Algorithm):
    """IRMv1: mean risk of the environments + λ · mean penalty of the environments that have two rows or more.

    λ is 1 before ``anneal_iters`` and its full value from there on. At the switch Adam is rebuilt, since moments
    gathered at the old scale of the loss would make its first steps far too long.
    """

    name = "irm"
    paper = Paper(
        "Invariant risk minimization",
        "Arjovsky, Bottou, Gulrajani, Lopez-Paz",
        2019,
        "https://arxiv.org/abs/1907.02893",
    )
    needs = Needs(environments=True)
    sampling = "environment"
    may_be_zero = frozenset({"penalty"})  # a batch that has less than two rows of every environment
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
            high=MOST_STEPS,
        ),
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return lacks_pairs(spec, info, "the penalty")

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """The step at which λ gets its value; at λ = 1 it has it from the start."""
        return 0 if hparams["penalty_weight"] == 1 else int(hparams["anneal_iters"])

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.environment is not None
        logits = self.predict(batch.image)
        rows = rows_of_each(batch.environment, self.setting.num_environments)
        penalties = torch.stack(
            [irm_penalty(logits[chosen], batch.label[chosen]) for chosen in rows]
        )
        counted = max(sum(len(chosen) > 1 for chosen in rows), 1)
        weight = self.hp["penalty_weight"] if self.current_step >= self.hp["anneal_iters"] else 1.0
        return {
            "classification": mean_risk(logits, batch.label, rows),
            "penalty": weight * penalties.sum() / counted,
        }

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        if self.current_step == self.hp["anneal_iters"]:
            self.rebuild_optimizers()
        return super().step(batch)
