"""Group distributionally robust optimisation: minimise the loss of the group that fares worst."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS


@torch.no_grad()
def update_group_weights(
    q: torch.Tensor, group_losses: torch.Tensor, eta: float, present: torch.Tensor
) -> torch.Tensor:
    """One step of exponentiated gradient ascent on the weights of the groups (Sagawa et al. 2020, algorithm 1).

    q_g ← q_g · exp(η · loss_g) for the groups that are present; absent groups keep theirs; then all are divided by
    their sum. As in the paper, where one group is drawn per step, the division reaches the absent groups too.

    Args:
        q: float[G], weights that sum to 1.
        group_losses: float[G], mean loss of each group; what stands at absent groups is ignored.
        eta: step size.
        present: bool[G], the groups that the batch holds.

    Returns:
        float[G], the new weights, without gradient. Worked out on logarithms, so that a huge loss gives a weight of
        one and not NaN, and a weight never becomes an exact zero that no later loss could raise.
    """
    numbers = torch.finfo(q.dtype)
    growth = torch.where(present, eta * group_losses, torch.zeros_like(q)).clamp(
        max=numbers.max / 2
    )
    return torch.softmax(q.clamp_min(numbers.tiny).log() + growth, 0).clamp_min(numbers.tiny)


@ALGORITHMS.register
class GroupDRO(Algorithm):
    """Σ_g q_g · loss_g with the updated q, over the groups (label, confounder) that the batch holds.

    Groups are sampled uniformly, as the eX2L paper does and as algorithm 1 of Sagawa et al. does (g ~ Uniform).
    DomainBed runs the same rule on environments; here groups are always (label, confounder).
    """

    name = "group_dro"
    paper = Paper(
        "Distributionally robust neural networks for group shifts: on the importance of regularization for worst-case "
        "generalization", "Sagawa, Koh, Hashimoto, Liang", 2020, "https://arxiv.org/abs/1911.08731",
    )  # fmt: skip
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
        # a product and a sum rather than index_add: the same bits on every run, on a GPU too
        group_losses = (member * losses[:, None]).sum(0) / size.clamp_min(1)
        self.q = update_group_weights(self.q, group_losses, self.hp["eta"], size > 0)
        return {"robust": (self.q * group_losses).sum()}

    def report(self) -> dict[str, Any]:
        """The group weights of the selected step, in the order of the group names."""
        return {"group_weights": self.q.tolist()}
