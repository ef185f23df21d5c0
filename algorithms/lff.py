"""Learning from failure: a network is trained on what a biased network finds difficult."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import ALGORITHMS, Algorithm, Batch, Choice, HParam, Paper, Setting

#: Added to the denominator of the relative difficulty, which would be 0 for two zero losses.
TINY = 1e-8
#: Decay per step of the running mean in the report.
MEMORY = 0.99


def generalised_cross_entropy(logits: torch.Tensor, label: torch.Tensor, q: float) -> torch.Tensor:
    """Return (1 − p^q) / q of each row, float[B], with p the softmax of its label.

    Source: Zhang & Sabuncu 2018.

    Its gradient is p^q times that of the cross-entropy, which amplifies what the network already
    predicts confidently.

    Args:
        logits: float[B,K].
        label: int64[B].
        q: from 0 (excluded, where the limit is the cross-entropy) to 1 (mean absolute error).
    """
    return -torch.expm1(-q * F.cross_entropy(logits, label, reduction="none")) / q


def relative_difficulty(biased: torch.Tensor, debiased: torch.Tensor) -> torch.Tensor:
    """Return CE_b / (CE_b + CE_d) of each row (equation 2), float[B], without gradient.

    It is near 1 where only the biased network fails.

    Args:
        biased: cross-entropy of the biased network, float[B].
        debiased: cross-entropy of the debiased network, float[B].
    """
    biased, debiased = biased.detach(), debiased.detach()
    return biased / (biased + debiased + TINY)


@ALGORITHMS.register
class LfF(Algorithm):
    """GCE of the biased network + relative difficulty · cross-entropy of the debiased network.

    The debiased network predicts. Both are trained from the first step on, without group labels.
    This is the paper's algorithm 1; the authors' code replaces the two losses in the difficulty by
    running means per image, divided by the maximum of its class.
    """

    name = "lff"
    title = "LfF"
    paper = Paper(
        title="Learning from failure: training debiased classifier from biased classifier",
        authors="Nam, Cha, Ahn, Lee, Shin",
        year=2020,
        url="https://arxiv.org/abs/2007.02561",
    )
    hparams = {
        "q": HParam(
            0.7,
            Choice((0.3, 0.5, 0.7, 0.9)),
            "amplification of the bias, the q of GCE",
            low=1e-3,
            high=1.0,
        ),
    }
    running_weight: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.biased = setting.build_network(dropout=self.hp["dropout"])
        self.register_buffer("running_weight", torch.tensor(0.5))

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        biased_logits = self.biased(batch.image)
        logits = self.predict(batch.image)
        debiased = F.cross_entropy(logits, batch.label, reduction="none")
        biased = F.cross_entropy(biased_logits, batch.label, reduction="none")
        weight = relative_difficulty(biased, debiased)
        if self.training:
            self.running_weight.lerp_(weight.mean().to(self.running_weight), 1 - MEMORY)
        return {
            "biased": generalised_cross_entropy(biased_logits, batch.label, self.hp["q"]).mean(),
            "debiased": (weight * debiased).mean(),
        }

    def report(self) -> dict[str, Any]:
        """Return the running mean of the relative difficulty up to the selected step.

        A value of 0.5 means that the two networks are alike.
        """
        return {"relative_difficulty": self.running_weight.item()}
