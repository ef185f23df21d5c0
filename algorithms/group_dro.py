"""Group distributionally robust optimisation: minimise the loss of the worst group."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import ALGORITHMS, Algorithm, Batch, HParam, LogUniform, Needs, Paper, Setting


@torch.no_grad()
def update_group_weights(
    q: torch.Tensor, group_losses: torch.Tensor, eta: float, present: torch.Tensor
) -> torch.Tensor:
    """Take one step of exponentiated gradient ascent on the group weights.

    Sagawa et al. 2020, algorithm 1: q_g ← q_g · exp(η · loss_g) for the groups that are present,
    then all weights are divided by their sum. As in the paper, where one group is drawn per step,
    the division also changes the weights of absent groups.

    Args:
        q: float[G], weights that sum to 1.
        group_losses: float[G], mean loss of each group; entries of absent groups are ignored.
        eta: step size.
        present: bool[G], the groups in the batch.

    Returns:
        float[G], the new weights, without gradient. They are computed from logarithms, so that a
        huge loss gives a weight of 1 instead of NaN, and no weight becomes an exact zero that a
        later loss could not raise.
    """
    limits = torch.finfo(q.dtype)
    growth = torch.where(present, eta * group_losses, torch.zeros_like(q))
    growth = growth.clamp(max=limits.max / 2)
    return torch.softmax(q.clamp_min(limits.tiny).log() + growth, 0).clamp_min(limits.tiny)


@ALGORITHMS.register
class GroupDRO(Algorithm):
    """Σ_g q_g · loss_g with the updated q, over the groups (label, confounder) of the batch.

    Groups are sampled uniformly, as in the eX2L paper and in algorithm 1 of Sagawa et al. (g ~
    Uniform). DomainBed applies the same rule to environments; here groups are always (label,
    confounder).
    """

    name = "group_dro"
    title = "GroupDRO"
    paper = Paper(
        title="Distributionally robust neural networks for group shifts: on the "
        "importance of regularization for worst-case generalization",
        authors="Sagawa, Koh, Hashimoto, Liang",
        year=2020,
        url="https://arxiv.org/abs/1911.08731",
    )
    needs = Needs(groups=True)
    sampling = "group"
    hparams = {
        "eta": HParam(1e-2, LogUniform(-3, -1), "step size of the group weights", low=0.0, high=1e6)
    }
    q: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer("q", torch.full((setting.num_groups,), 1 / setting.num_groups))

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.group is not None
        losses = F.cross_entropy(self.predict(batch.image), batch.label, reduction="none")
        member = F.one_hot(batch.group, self.setting.num_groups).to(losses.dtype)
        size = member.sum(0)
        # product and sum are deterministic on a GPU too, unlike index_add
        group_losses = (member * losses[:, None]).sum(0) / size.clamp_min(1)
        self.q = update_group_weights(self.q, group_losses, self.hp["eta"], size > 0)
        return {"robust": (self.q * group_losses).sum()}

    def report(self) -> dict[str, Any]:
        """Return the group weights of the selected step, in the order of the group names."""
        return {"group_weights": self.q.tolist()}
