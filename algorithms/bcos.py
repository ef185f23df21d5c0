"""B-cos networks trained as published, and guided by masks of the evidence."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
)
from benchmark.explain import get
from benchmark.losses import outputs
from benchmark.losses.heatmaps import guidance_loss


def binary_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy, averaged over images and classes.

    Args:
        logits: float[B,K].
        label: int64[B], one class against the others, or float[B,K] of 0 and 1, NaN where a label
            is not known.
    """
    return outputs.binary_loss(logits, one_hot(label, logits.shape[1]).to(logits))


def one_hot(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return labels int64[B] or float[B,K] as float[B,K] of 0 and 1."""
    return label if label.dim() == 2 else F.one_hot(label, num_classes).float()


def draw_class(candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one of the candidate classes of each image, uniformly.

    Args:
        candidates: bool[B,K].

    Returns:
        int64[B], the class, which has no meaning for an image without candidates; and bool[B],
        whether an image has a candidate.
    """
    score = torch.rand(candidates.shape, device=candidates.device)
    return score.masked_fill(~candidates, -1).argmax(1), candidates.any(1)


@ALGORITHMS.register
class BCos(Algorithm):
    """Binary cross-entropy of each class on a B-cos network.

    With several labels per image it is the same as ``erm`` on that network.
    """

    name = "bcos"
    title = "B-cos"
    paper = Paper(
        title="B-cos alignment for inherently interpretable CNNs and vision transformers",
        authors="Böhle, Singh, Fritz, Schiele",
        year=2024,
        url="https://arxiv.org/abs/2306.10898",
    )
    multi_label = True
    objective = Algorithm.total_loss

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        if BACKBONES.get(spec.backbone).capabilities.bcos:
            return None
        able = [n for n in BACKBONES.names() if BACKBONES.get(n).capabilities.bcos]
        return (
            f"it needs a B-cos network, which {spec.backbone} is not; set backbone in "
            f"[override.{cls.name}] to one of {', '.join(able)}."
        )

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"classification": binary_loss(self.predict(batch.image), batch.label)}


@ALGORITHMS.register
class GuidedBCos(BCos):
    """Binary cross-entropy + λ · share of the positive contributions outside the mask.

    For each image one of its classes that have a mask is drawn and explained, as by Rao et al.
    (2023), whose energy loss this is. Images without a mask are not guided.
    """

    name = "bcos_guided"
    title = "B-cos, guided"
    paper = Paper(
        title="Studying how to efficiently and effectively guide models with explanations",
        authors="Rao, Böhle, Parchami-Araghi, Schiele",
        year=2023,
        url="https://arxiv.org/abs/2303.11932",
    )
    needs = Needs(class_masks=True)
    hparams = {
        "guidance_weight": HParam(
            1.0,
            LogUniform(-2, 2),
            "λ, weight of positive contributions outside the mask",
            low=0.0,
            high=1e9,
        )
    }
    may_be_zero = frozenset({"guidance"})  # without masks in a batch

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.class_mask is not None
        present = one_hot(batch.label, self.setting.num_classes) > 0.5
        masked = batch.class_mask.flatten(2).any(2)
        target, guided = draw_class(present & masked)
        trace = get("bcos").trace(
            self.network, batch.image, create_graph=True, track_statistics=self.training
        )
        contributions = trace.heatmap(target)[guided]
        mask = batch.class_mask[guided, target[guided]][:, None]
        outside = guidance_loss(contributions.clamp_min(0), mask)
        guidance = outside.sum() / max(len(outside), 1)
        return {
            "classification": binary_loss(trace.logits, batch.label),
            "guidance": self.hp["guidance_weight"] * guidance,
        }
