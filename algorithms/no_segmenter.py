"""The teacher of TEA without its segmenter: its classifier on whole images."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    DatasetInfo,
    Needs,
    Paper,
    RunSpec,
    TrainingRun,
    Upstream,
)


@ALGORITHMS.register
class NoSegmenter(Algorithm):
    """The classifier of ``segment_classify``, applied to images with their background.

    Nothing is trained: the weights are those of the selected step of the ``segment_classify`` run
    of the same trial and draw, whose hyper-parameters and budget are those that the sweep gives to
    that method. The difference to its row is what the segmenter contributes at inference (TEA
    paper, footnotes of tables 2 and 3).
    """

    name = "no_segmenter"
    title = "TEA without a segmenter"
    paper = Paper(
        title="Training with explanations alone: a new paradigm to prevent shortcut learning",
        authors="Bassi, Ali, Cavalli, Decherchi",
        year=2025,
        url="https://github.com/PedroRASB/TrainingWithExplanationsAlone",
    )
    needs = Needs(teacher=True)

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"teacher": Upstream("segment_classify", same_draw=True)}

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return 1  # nothing is trained

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    @torch.no_grad()
    def fit(self, run: TrainingRun) -> None:
        classifier = self.setting.upstream["teacher"].network.classifier
        self.network.load_state_dict(classifier.state_dict())  # type: ignore[union-attr]
        self.network.requires_grad_(False).eval()
        losses = []
        for batch in run.batches("val"):
            logits = self.predict(batch.image)
            losses.append(F.cross_entropy(logits, batch.label, reduction="none"))
        run.log({"validation": torch.cat(losses).mean()})
