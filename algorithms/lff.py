"""Learning from failure: a second network is taught what a network that falls for the shortcut finds hard."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.hparam import Choice, HParam
from benchmark.core.registry import ALGORITHMS

#: Added to the denominator of the relative difficulty, so that two losses of 0 give a weight of 0.
TINY = 1e-8
#: What a step leaves of the running means that are on record.
MEMORY = 0.99


def generalised_cross_entropy(logits: torch.Tensor, label: torch.Tensor, q: float) -> torch.Tensor:
    """(1 − p^q) / q of each row, p the softmax of its label (Zhang & Sabuncu 2018); float[B].

    Its gradient is p^q times that of the cross-entropy: what is already believed is believed the more.

    Args:
        logits: float[B,K].
        label: int64[B].
        q: from 0 (excluded; the limit is the cross-entropy) to 1 (the mean absolute error).
    """
    return -torch.expm1(-q * F.cross_entropy(logits, label, reduction="none")) / q


def relative_difficulty(biased: torch.Tensor, debiased: torch.Tensor) -> torch.Tensor:
    """CE_b / (CE_b + CE_d) of each row (equation 2), without gradient: near 1 where only the biased network fails.

    Args:
        biased, debiased: cross-entropies of the two networks, float[B].
    """
    biased, debiased = biased.detach(), debiased.detach()
    return biased / (biased + debiased + TINY)


@ALGORITHMS.register
class LfF(Algorithm):
    """GCE of the biased network + relative difficulty · cross-entropy of the debiased network, which predicts.

    Both learn at once, from the first step on; neither sees a group. The rule is the paper's algorithm 1. The authors'
    code replaces the two losses in the difficulty by running means per image, divided by the maximum of its class.
    """

    name = "lff"
    paper = Paper(
        "Learning from failure: training debiased classifier from biased classifier",
        "Nam, Cha, Ahn, Lee, Shin", 2020, "https://arxiv.org/abs/2007.02561",
    )  # fmt: skip
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
        guesses, logits = self.biased(batch.image), self.predict(batch.image)
        ours = F.cross_entropy(logits, batch.label, reduction="none")
        weight = relative_difficulty(F.cross_entropy(guesses, batch.label, reduction="none"), ours)
        if self.training:
            self.running_weight.lerp_(weight.mean().to(self.running_weight), 1 - MEMORY)
        return {
            "biased": generalised_cross_entropy(guesses, batch.label, self.hp["q"]).mean(),
            "debiased": (weight * ours).mean(),
        }

    def report(self) -> dict[str, Any]:
        """Mean relative difficulty of the batches up to the selected step; one half says the networks are alike."""
        return {"relative_difficulty": self.running_weight.item()}
