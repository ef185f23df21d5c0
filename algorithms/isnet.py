"""ISNet in its stochastic form: LRP-ε relevance is moved from the background to the foreground."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    MAX_STEPS,
    Algorithm,
    Batch,
    Choice,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
    Setting,
    TrainingRun,
    Upstream,
)
from benchmark.explain import get
from benchmark.losses.heatmaps import TINY, choose_class, foreground_mean

#: Number of training images, roughly, from which the bounds C₁ and C₂ are computed.
IMAGES_FOR_BOUNDS = 2_000


def weighted_rank_pooling(values: torch.Tensor, d: float) -> torch.Tensor:
    """Return Σ_i d^i v_(i) / Σ_i d^i over the last dimension, with v_(0) ≥ v_(1) ≥ ….

    This is the maximum for d = 0 and the mean for d = 1.
    """
    weights = d ** torch.arange(values.shape[-1], device=values.device, dtype=values.dtype)
    return (values.sort(dim=-1, descending=True).values * weights).sum(-1) / weights.sum()


def background_loss(heatmap: torch.Tensor, mask: torch.Tensor, d: float) -> torch.Tensor:
    """Return the mean of −log(1 − a) with a = g / (g + 1), that is of log(1 + g).

    g is the rank-pooled background of |H| divided by the mean of |H| over the foreground; the mean
    is taken over channels and images. An image without foreground does not show where evidence may
    lie and adds 0, as does one without background.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W].
        d: decay of the rank pooling.
    """
    magnitude = heatmap.abs()
    foreground = foreground_mean(magnitude, mask)[:, None, None]
    background = magnitude.masked_fill(mask, 0).flatten(2)
    g = weighted_rank_pooling(background / (foreground + TINY), d)
    has_foreground = mask.flatten(1).any(1)
    return (g.log1p() * has_foreground[:, None]).mean()


def foreground_loss(
    heatmap: torch.Tensor, mask: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """Return the mean over images of (min(s/C₁, 1) − 1)² + (max(s/C₁, C₂/C₁) − C₂/C₁)².

    s = Σ m |H|, so that the loss is 0 while C₁ ≤ s ≤ C₂. Without it, a heatmap of zeros would
    minimise the background loss.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W]; an image without foreground adds 0.
        low: C₁.
        high: C₂.
    """
    ratio = (heatmap.abs() * mask).flatten(1).sum(1) / low  # s / C₁
    too_small = (ratio.clamp_max(1) - 1).square()
    too_large = (ratio - high / low).clamp_min(0).square()
    has_foreground = mask.flatten(1).any(1)
    return ((too_small + too_large) * has_foreground).mean()


def bounds(total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return C₁ = max(μ/5, μ − 3σ) and C₂ = min(25 C₁, μ + 3σ).

    Args:
        total: Σ|H| of images under a standard classifier, float[N], with mean μ and standard
            deviation σ.
    """
    mean = total.mean()
    deviation = total.std(correction=0)
    low = torch.maximum(mean / 5, mean - 3 * deviation)
    return low, torch.minimum(25 * low, mean + 3 * deviation)


@ALGORITHMS.register
class ISNet(Algorithm):
    """(1 − P) · cross-entropy + P · (background loss + foreground loss), from LRP-ε heatmaps.

    The losses are those of the paper. One heatmap per image is the stochastic form of "Faster
    ISNet" (Bassi, Decherchi, Cavalli 2024): it explains the arg-max of the network with probability
    ½, else another class. C₁ and C₂ are measured once, on a standard classifier that is trained
    briefly beforehand.
    """

    name = "isnet"
    title = "ISNet"
    paper = Paper(
        title="Improving deep neural network generalization and robustness to background bias via "
        "layer-wise relevance propagation optimization",
        authors="Bassi, Dertkigil, Cavalli",
        year=2024,
        url="https://doi.org/10.1038/s41467-023-44371-z",
    )
    needs = Needs(masks=True)
    may_be_zero = frozenset({"foreground"})  # while the relevance lies within its bounds
    hparams = {
        "heatmap_share": HParam(
            0.95,
            Choice((0.5, 0.7, 0.9, 0.95, 0.99)),
            "P, weight of the heatmap losses; 1 − P: of the cross-entropy",
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
            doc="training steps of the standard classifier on which C₁ and C₂ are measured",
            low=1,
            high=MAX_STEPS,
        ),
        "lr": HParam(1e-3, LogUniform(-4, -2), "learning rate", low=0.0, high=1e3),
        "clip_norm": HParam(
            1.0, doc="bound on the norm of the gradient; 0 for none", low=0.0, high=1e9
        ),
    }
    variants = {"waterbirds": {"heatmap_share": 0.99, "rank_decay": 0.996}}
    objective = Algorithm.total_loss
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
        if BACKBONES.get(spec.backbone).capabilities.lrp:
            return None
        return f"LRP-ε is not defined for {spec.backbone}."

    def fit(self, run: TrainingRun) -> None:
        if self.low == 0:  # a resumed run has the bounds in its checkpoint
            standard = self.setting.upstream["standard"].network
            total = total_relevance(standard, run.batches("train"), self.hp["epsilon"])
            self.low, self.high = bounds(total)
        super().fit(run)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        lrp = get("lrp", epsilon=self.hp["epsilon"])
        trace = lrp.trace(
            self.network, batch.image, create_graph=True, track_statistics=self.training
        )
        heatmap = trace.heatmap(choose_class(trace.logits))
        share = self.hp["heatmap_share"]
        return {
            "classification": (1 - share) * F.cross_entropy(trace.logits, batch.label),
            "background": share * background_loss(heatmap, batch.mask, self.hp["rank_decay"]),
            "foreground": share * foreground_loss(heatmap, batch.mask, self.low, self.high),
        }

    def report(self) -> dict[str, Any]:
        """Return C₁ and C₂."""
        return {"foreground_bounds": [self.low.item(), self.high.item()]}


def total_relevance(
    network: torch.nn.Module, batches: Iterator[Batch], epsilon: float
) -> torch.Tensor:
    """Return Σ|H| of the predicted class for the first images, float[N].

    Stops after the batch with which ``IMAGES_FOR_BOUNDS`` is reached.
    """
    lrp = get("lrp", epsilon=epsilon)
    totals: list[torch.Tensor] = []
    for batch in batches:
        trace = lrp.trace(network, batch.image)
        heatmap = trace.heatmap(trace.logits.argmax(1))
        totals.append(heatmap.abs().flatten(1).sum(1))
        if sum(map(len, totals)) >= IMAGES_FOR_BOUNDS:
            break
    return torch.cat(totals)
