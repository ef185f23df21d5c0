"""Empirical risk minimisation: the standard classifier, which uses nothing but the label."""

from __future__ import annotations

import torch

from benchmark.core import ALGORITHMS, Algorithm, Batch, Paper
from benchmark.losses.outputs import classification_loss


@ALGORITHMS.register
class ERM(Algorithm):
    """Cross-entropy, averaged over images; binary cross-entropy for data with several labels."""

    name = "erm"
    title = "ERM"
    paper = Paper(
        title="An overview of statistical learning theory",
        authors="Vapnik",
        year=1999,
        url="https://doi.org/10.1109/72.788640",
    )
    multi_label = True
    # training of the teacher for Coloured MNIST in the TEA paper (F.3), for 200 epochs
    variants = {
        "tea_teacher": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.001, "weight_decay": 0.001}
    }
    objective = Algorithm.total_loss

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"classification": classification_loss(self.predict(batch.image), batch.label)}
