"""Empirical risk minimisation: the standard classifier, blind to everything but the label."""

from __future__ import annotations

import torch

from benchmark.core.algorithm import Algorithm, Paper
from benchmark.core.batch import Batch
from benchmark.core.registry import ALGORITHMS
from benchmark.losses.outputs import classification_loss


@ALGORITHMS.register
class ERM(Algorithm):
    """Cross-entropy, averaged over the images of a batch; the binary one of each label where there are several."""

    name = "erm"
    paper = Paper(
        "An overview of statistical learning theory",
        "Vapnik",
        1999,
        "https://doi.org/10.1109/72.788640",
    )
    multi_label = True
    # how TEA's teacher of Coloured MNIST learns (F.3), for 200 epochs
    variants = {
        "tea_teacher": {"optimizer": "sgd", "momentum": 0.9, "lr": 0.001, "weight_decay": 0.001}
    }

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"classification": classification_loss(self.predict(batch.image), batch.label)}

    def objective(self, batch: Batch) -> torch.Tensor:
        return self.loss(batch)["classification"]
