"""ISNet in its stochastic form: relevance (LRP-ε) leaves the background and keeps its size in the foreground."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Run, Setting, Upstream
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import Choice, HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.spec import MOST_STEPS, RunSpec
from benchmark.explain import get
from benchmark.losses.heatmaps import TINY, choose_class, foreground_mean

#: Training images from which the foreground's bounds are computed, at most.
MEASURED = 2_000


def weighted_rank_pooling(values: torch.Tensor, d: float) -> torch.Tensor:
    """Σ_i d^i v_(i) / Σ_i d^i over the last dimension, v_(0) ≥ v_(1) ≥ …: the maximum at d = 0, the mean at d = 1."""
    weights = d ** torch.arange(values.shape[-1], device=values.device, dtype=values.dtype)
    return (values.sort(dim=-1, descending=True).values * weights).sum(-1) / weights.sum()


def background_loss(heatmap: torch.Tensor, mask: torch.Tensor, d: float) -> torch.Tensor:
    """Mean of −log(1 − a) with a = g / (g + 1), that is of log(1 + g), over channels and images.

    g is the rank-pooled background of |H| divided by its mean over the foreground. An image without foreground says
    nothing of where evidence may lie and adds 0, as does one that is all foreground.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W].
        d: decay of the rank pooling.
    """
    size = heatmap.abs()
    inside = foreground_mean(size, mask)[:, None, None]
    g = weighted_rank_pooling(size.masked_fill(mask, 0).flatten(2) / (inside + TINY), d)
    return (g.log1p() * mask.flatten(1).any(1)[:, None]).mean()


def foreground_loss(
    heatmap: torch.Tensor, mask: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """(min(s/C₁, 1) − 1)² + (max(s/C₁, C₂/C₁) − C₂/C₁)² with s = Σ m |H|: 0 while C₁ ≤ s ≤ C₂; mean over images.

    Without it a heatmap that vanishes altogether would be the best one.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W]; an image without foreground adds 0.
        low, high: C₁ and C₂.
    """
    s = (heatmap.abs() * mask).flatten(1).sum(1) / low
    outside = (s.clamp_max(1) - 1).square() + (s - high / low).clamp_min(0).square()
    return (outside * mask.flatten(1).any(1)).mean()


def bounds(total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """C₁ = max(μ/5, μ − 3σ) and C₂ = min(25 C₁, μ + 3σ), from Σ|H| of a standard classifier's images, float[N]."""
    mean, deviation = total.mean(), total.std(correction=0)
    low = torch.maximum(mean / 5, mean - 3 * deviation)
    return low, torch.minimum(25 * low, mean + 3 * deviation)


@ALGORITHMS.register
class ISNet(Algorithm):
    """(1 − P) · cross-entropy + P · (background loss + foreground loss), one LRP-ε heatmap per image.

    This is the stochastic form of "Faster ISNet" (Bassi, Decherchi, Cavalli 2024); the losses are the first paper's.
    The heatmap explains the network's arg-max with probability ½, else another class. C₁ and C₂ are measured once, on
    a standard classifier that was trained before for a short while.
    """

    name = "isnet"
    paper = Paper(
        "Improving deep neural network generalization and robustness to background bias via layer-wise relevance "
        "propagation optimization", "Bassi, Dertkigil, Cavalli", 2024, "https://doi.org/10.1038/s41467-023-44371-z",
    )  # fmt: skip
    needs = Needs(masks=True)
    may_be_zero = frozenset({"foreground"})  # while the relevance lies within its bounds
    hparams = {
        "heatmap_share": HParam(
            0.95,
            Choice((0.5, 0.7, 0.9, 0.95, 0.99)),
            "P, share of the heatmap's losses",
            low=0.0,
            high=1.0,
        ),
        "rank_decay": HParam(
            0.96,
            Choice((0.9, 0.96, 0.99, 0.996)),
            "d, decay of the rank pooling",
            low=0.0,
            high=1.0,
        ),
        "epsilon": HParam(1e-2, doc="LRP's ε", low=1e-8, high=1e3),
        "warm_steps": HParam(
            200,
            doc="steps of the standard classifier from which C₁ and C₂ are measured",
            low=1,
            high=MOST_STEPS,
        ),
        "lr": HParam(1e-3, LogUniform(-4, -2), "learning rate", low=0.0, high=1e3),
        "clip_norm": HParam(
            1.0, doc="bound on the norm of the gradient; 0 for none", low=0.0, high=1e9
        ),
    }
    variants = {"waterbirds": {"heatmap_share": 0.99, "rank_decay": 0.996}}
    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"standard": Upstream("erm", budget={"steps": spec.hparams["warm_steps"]})}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return (
            None
            if BACKBONES.get(spec.backbone).capabilities.lrp
            else f"LRP-ε is not defined for {spec.backbone}."
        )

    def fit(self, run: Run) -> None:
        if self.low == 0:  # a resumed run has them
            standard = self.setting.upstream["standard"].network
            self.low, self.high = bounds(
                total_relevance(standard, run.batches("train"), self.hp["epsilon"])
            )
        super().fit(run)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        lrp = get("lrp", epsilon=self.hp["epsilon"])
        heatmap, logits = lrp.with_logits(
            self.network, batch.image, choose_class, True, self.training
        )
        share = self.hp["heatmap_share"]
        return {
            "classification": (1 - share) * F.cross_entropy(logits, batch.label),
            "background": share * background_loss(heatmap, batch.mask, self.hp["rank_decay"]),
            "foreground": share * foreground_loss(heatmap, batch.mask, self.low, self.high),
        }

    def objective(self, batch: Batch) -> torch.Tensor:
        return sum(self.loss(batch).values())  # type: ignore[return-value]

    def report(self) -> dict[str, Any]:
        """C₁ and C₂."""
        return {"foreground_bounds": [self.low.item(), self.high.item()]}


def total_relevance(
    network: torch.nn.Module, batches: Iterator[Batch], epsilon: float
) -> torch.Tensor:
    """Σ|H| of MEASURED images or a few more, float[N], of the class that the network answers."""
    lrp, totals = get("lrp", epsilon=epsilon), []
    for batch in batches:
        heatmap, _ = lrp.with_logits(network, batch.image, lambda logits: logits.argmax(1))
        totals.append(heatmap.abs().flatten(1).sum(1))
        if sum(map(len, totals)) >= MEASURED:
            break
    return torch.cat(totals)
