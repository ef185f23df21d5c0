"""Just train twice: what a short standard training gets wrong counts more in the second one."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Run, Setting, Upstream
from benchmark.core.batch import Batch
from benchmark.core.hparam import Choice, HParam
from benchmark.core.optim import shared_hparams
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import RunSpec


def upweighted_mean(
    losses: torch.Tensor, wrong: torch.Tensor, upweight: float, share: float
) -> torch.Tensor:
    """Σ w · loss / (B · (1 + (λ − 1) · share)), w = λ for the errors and 1 for the others.

    Its expectation over batches is the mean loss of the training set in which each error stands λ times, as the paper
    trains (its algorithm 1), whatever the share of the errors in this batch.

    Args:
        losses: float[B].
        wrong: bool[B], what the first model got wrong.
        upweight: λ.
        share: of the errors in the whole training set, from 0 to 1.
    """
    weight = 1 + (upweight - 1) * wrong.to(losses.dtype)
    return (weight * losses).mean() / (1 + (upweight - 1) * share)


@ALGORITHMS.register
class JTT(Algorithm):
    """Cross-entropy in which the training images that a first, short standard training got wrong count λ times.

    The first model ("identification") is the last step of a run of ``identification_share`` of the steps, with the
    learning rate, batch size and so on of the second; its early stop is what makes its errors those of the shortcut. No
    group label is used in training; the paper tunes λ and the length of the first training by worst-group accuracy on
    validation, as selecting by ``val_worst_group`` does.
    """

    name = "jtt"
    paper = Paper(
        "Just train twice: improving group robustness without training group information", "Liu et al.", 2021,
        "https://arxiv.org/abs/2107.09044",
    )  # fmt: skip
    hparams = {
        "upweight": HParam(
            50.0,
            Choice((6.0, 20.0, 50.0, 100.0)),
            "λ, how often an error counts",
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
        "waterbirds": {
            "upweight": 100.0,
            "identification_share": 60 / 300,
        },  # epochs of the first and of the second
        "celeba": {"upweight": 50.0, "identification_share": 1 / 50},
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.wrong: torch.Tensor | None = (
            None  # bool[N] by row of the training split; a resumed run finds it again
        )

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        steps = max(round(spec.hparams["identification_share"] * spec.budget["steps"]), 1)
        # evaluated at its end alone, so that any criterion selects the last step
        budget = {"steps": steps, "evaluate_every": steps, "patience": 0}
        return {
            "identification": Upstream(
                "erm", hparams=shared_hparams(spec.hparams), budget=budget, same_draw=True
            )
        }

    def fit(self, run: Run) -> None:
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
        """How many training images count more."""
        return (
            {} if self.wrong is None else {"errors": int(self.wrong.sum()), "of": len(self.wrong)}
        )
