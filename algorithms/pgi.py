"""Predictive group invariance: equal mean predictions for both groups of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.func import functional_call
from torch.nn import functional as F

from benchmark.core import ALGORITHMS, Algorithm, Batch, HParam, LogUniform, Needs, Paper, Setting
from benchmark.losses.environments import mean_risk_of_parts
from benchmark.losses.precision import exact
from benchmark.models.base import Backbone

#: Smallest distance of mean probabilities from 0 and 1 (the authors' code).
CLIP = 1e-12


def pgi_penalty(
    logits: torch.Tensor,
    label: torch.Tensor,
    minority: torch.Tensor,
    mean_over_outputs: bool = False,
) -> torch.Tensor:
    """Return Σ_k p̄¹_k log(p̄¹_k / p̄⁰_k), averaged over classes.

    p̄¹ and p̄⁰ are the mean softmax of a class's minority and of its majority.

    Args:
        logits: float[B,K].
        label: int64[B].
        minority: bool[B].
        mean_over_outputs: whether the sum over k is divided by K, as in the authors' code.

    Returns:
        A scalar. A class without minority or without majority in the batch adds 0, as do equal
        groups.
    """
    softmax = exact(logits).softmax(1)
    member = F.one_hot(label, logits.shape[1]).T.to(softmax.dtype)  # [class, row]
    means = []
    sizes = []
    for part in (~minority, minority):
        chosen = member * part
        sizes.append(chosen.sum(1))
        means.append((chosen[:, :, None] * softmax).sum(1) / sizes[-1].clamp_min(1)[:, None])
    majority_mean, minority_mean = (mean.clamp(CLIP, 1 - CLIP) for mean in means)
    divergence = (minority_mean * (minority_mean / majority_mean).log()).sum(1)
    both = (sizes[0] > 0) & (sizes[1] > 0)
    scale = logits.shape[1] * (logits.shape[1] if mean_over_outputs else 1)
    return torch.where(both, divergence, 0.0).sum() / scale


def ramp_steps(share: float, steps: int) -> float:
    """Return the number of steps over which the weight of the penalty rises, at least 1."""
    return max(share * steps, 1.0)


@ALGORITHMS.register
class PGI(Algorithm):
    """Cross-entropy + weight · penalty, where the penalty trains the features, not the last layer.

    The majority of a class are its images with the confounder that was most frequent in the class
    so far; the other images are its minority. The authors infer this division; here it follows from
    the group labels. The weight rises linearly.
    """

    name = "pgi"
    title = "PGI"
    paper = Paper(
        title="Systematic generalisation with group invariant predictions",
        authors="Ahmed, Bengio, van Seijen, Courville",
        year=2021,
        url="https://openreview.net/forum?id=b9PoimzZFJ",
    )
    needs = Needs(groups=True)
    may_be_zero = frozenset({"penalty"})  # no class has both a majority and a minority in the batch
    hparams = {
        "penalty_weight": HParam(
            50.0, LogUniform(0, 3), "weight of the penalty once it has risen", low=0.0, high=1e9
        ),
        "ramp": HParam(
            1.0, None, "share of the steps over which the weight rises", low=0.0, high=1.0
        ),
        "balanced": HParam(
            False, None, "give majority and minority equal weight in the cross-entropy"
        ),
        "mean_over_outputs": HParam(False, None, "divide each divergence by the number of classes"),
    }
    variants = {
        "colour": {"penalty_weight": 100.0, "balanced": True},
        "published_code": {"mean_over_outputs": True},
    }
    network: Backbone
    seen: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.register_buffer(
            "seen", torch.zeros(setting.num_classes, setting.num_confounders, dtype=torch.int64)
        )

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the first step at which the penalty has at least half its weight.

        The ramp is part of the method and by default lasts as long as the run. If the full weight
        were required, only the last step could be selected.
        """
        return math.ceil(ramp_steps(hparams["ramp"], budget["steps"]) / 2) - 1

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.group is not None
        minority = self._minority(batch.group)
        features = self.network.dropout(self.network.features(batch.image))
        logits = self.network.classifier(features)
        last_layer = {name: p.detach() for name, p in self.network.classifier.named_parameters()}
        fixed = functional_call(self.network.classifier, last_layer, (features,))
        penalty = pgi_penalty(fixed, batch.label, minority, self.hp["mean_over_outputs"])
        if self.hp["balanced"]:
            classification = mean_risk_of_parts(logits, batch.label, minority.long(), 2)
        else:
            classification = F.cross_entropy(logits, batch.label)
        return {"classification": classification, "penalty": self._weight() * penalty}

    def _minority(self, group: torch.Tensor) -> torch.Tensor:
        """Return the rows in the minority of their class, bool[B]; counts include this batch."""
        # a sum of one-hot rows; unlike bincount it does not wait for a GPU
        counts = F.one_hot(group, self.seen.numel()).sum(0)
        self.seen = self.seen + counts.view_as(self.seen)
        confounders = self.seen.shape[1]
        return group % confounders != self.seen.argmax(1)[group // confounders]

    def _weight(self) -> float:
        steps = ramp_steps(self.hp["ramp"], self.setting.steps)
        return float(self.hp["penalty_weight"] * min(1.0, (self.current_step + 1) / steps))
