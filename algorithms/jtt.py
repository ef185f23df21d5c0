"""Just train twice: images that a short first training misclassifies are upweighted."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    Choice,
    HParam,
    Paper,
    RunSpec,
    Setting,
    TrainingRun,
    Upstream,
    shared_hparams,
)


def upweighted_mean(
    losses: torch.Tensor, wrong: torch.Tensor, upweight: float, share: float
) -> torch.Tensor:
    """Return Σ w · loss / (B · (1 + (λ − 1) · share)), w = λ for the errors and 1 for the others.

    Its expectation over batches is the mean loss over a training set in which each error is
    repeated λ times (the paper's algorithm 1), whatever the share of errors in this batch.

    Args:
        losses: float[B].
        wrong: bool[B], images that the first model misclassified.
        upweight: λ.
        share: share of the errors in the whole training set, from 0 to 1.
    """
    weight = 1 + (upweight - 1) * wrong.to(losses.dtype)
    return (weight * losses).mean() / (1 + (upweight - 1) * share)


@ALGORITHMS.register
class JTT(Algorithm):
    """Cross-entropy in which the errors of a first, short standard training count λ times.

    The first model ("identification") is the last step of a run of ``identification_share`` of the
    steps, with the learning rate, batch size and so on of the second one. It stops early, so that
    its errors are those of the shortcut. Training uses no group labels. The paper tunes λ and the
    length of the first training by worst-group accuracy on validation, which selecting by
    ``val_worst_group`` does.
    """

    name = "jtt"
    title = "JTT"
    paper = Paper(
        title="Just train twice: improving group robustness without training group information",
        authors="Liu et al.",
        year=2021,
        url="https://arxiv.org/abs/2107.09044",
    )
    hparams = {
        "upweight": HParam(
            50.0,
            Choice((6.0, 20.0, 50.0, 100.0)),
            "λ, weight of an error",
            low=1.0,
            high=1e6,
        ),
        "identification_share": HParam(
            0.2,
            Choice((0.02, 0.1, 0.2)),
            "length of the first training, as a share of the steps",
            low=0.0,
            high=1.0,
        ),
    }
    variants = {
        # the shares are epochs of the first training / epochs of the second
        "waterbirds": {"upweight": 100.0, "identification_share": 60 / 300},
        "celeba": {"upweight": 50.0, "identification_share": 1 / 50},
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        # bool[N] by row of the training split; a resumed run computes it again
        self.wrong: torch.Tensor | None = None

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        steps = max(round(spec.hparams["identification_share"] * spec.training_budget.steps), 1)
        # evaluated only at its end, so that every criterion selects the last step
        budget = {"steps": steps, "evaluate_every": steps, "patience": 0}
        return {
            "identification": Upstream(
                "erm", hparams=shared_hparams(spec.hparams), budget=budget, same_draw=True
            )
        }

    def fit(self, run: TrainingRun) -> None:
        first = self.setting.upstream["identification"]
        with torch.no_grad():
            self.wrong = torch.cat(
                [first.predict(b.image).argmax(1) != b.label for b in run.batches("train")]
            )
        self.share = self.wrong.float().mean().item()
        super().fit(run)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert self.wrong is not None
        losses = F.cross_entropy(self.predict(batch.image), batch.label, reduction="none")
        wrong = self.wrong[batch.index]
        return {"classification": upweighted_mean(losses, wrong, self.hp["upweight"], self.share)}

    def report(self) -> dict[str, Any]:
        """Return the number of errors of the first model and of training images."""
        if self.wrong is None:
            return {}
        return {"errors": int(self.wrong.sum()), "of": len(self.wrong)}
