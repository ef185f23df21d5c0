"""Deep feature reweighting: a standard classifier keeps its features and gets a new last layer from balanced groups."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Run, Setting, Upstream
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.optim import shared_hparams
from benchmark.core.registry import ALGORITHMS
from benchmark.core.seeds import seed_for
from benchmark.core.spec import RunSpec
from benchmark.models.base import Backbone

#: Inverse strengths of the L1 penalty among which validation chooses (Kirichenko et al. 2023, appendix B).
STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)


def fit_logistic(
    x: torch.Tensor, y: torch.Tensor, classes: int, c: float, iterations: int = 2000
) -> torch.Tensor:
    """The minimum of ‖W‖₁ + C · Σ CE(W x + b, y), b free of penalty, by accelerated proximal gradient steps (FISTA).

    Args:
        x: float[N,D], standardised.
        y: int64[N].
        classes: K.
        c: C, inverse strength of the penalty, above 0.
        iterations: steps at most; the momentum starts anew where it points uphill (O'Donoghue & Candès 2015).

    Returns:
        float[K,D+1], the bias last.
    """
    data = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    target = F.one_hot(y, classes).to(x.dtype)
    # the softmax's Hessian is at most half the identity, so this bounds the curvature
    step = 1 / (0.5 * c * torch.linalg.matrix_norm(data, 2).square()).clamp_min(1e-12)
    now = ahead = torch.zeros(classes, data.shape[1], dtype=x.dtype, device=x.device)
    pace = 1.0
    for _ in range(iterations):
        gradient = c * ((ahead @ data.T).softmax(0) - target.T) @ data
        moved = ahead - step * gradient
        following = torch.cat([F.softshrink(moved[:, :-1], float(step)), moved[:, -1:]], 1)
        uphill = ((ahead - following) * (following - now)).sum() > 0
        pace, before = (1.0, 1.0) if uphill else ((1 + (1 + 4 * pace**2) ** 0.5) / 2, pace)
        change, now = following - now, following
        ahead = now + (before - 1) / pace * change
        if change.abs().max() <= 1e-7 * now.abs().max():
            break
    return now


def balanced_rows(group: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rows in which every group that is there is as large as the smallest one, drawn at random; int64[n], sorted."""
    members = [torch.nonzero(group == g)[:, 0] for g in group.unique()]
    least = min(map(len, members))
    return (
        torch.cat(
            [rows[torch.randperm(len(rows), generator=generator)[:least]] for rows in members]
        )
        .sort()
        .values
    )


def worst_group(
    weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, group: torch.Tensor
) -> float:
    """Smallest accuracy of a group that is there, of the linear classifier float[K,D+1]."""
    right = (x @ weight[:, :-1].T + weight[:, -1]).argmax(1) == y
    return min(right[group == g].double().mean().item() for g in group.unique())


@ALGORITHMS.register
class DFR(Algorithm):
    """L1-regularised logistic regression on the features of a finished ERM run, on group-balanced validation images.

    Learning rate, batch size and the like are those of the ERM run.

    Half of the validation split, balanced, chooses C by worst-group accuracy on the other half; then the weights of
    ``retrainings`` regressions on balanced subsets of the whole split are averaged (the paper's DFR with validation
    data). No training step is made, so the budget is ERM's. Since it learns from validation images, its accuracy on
    them, by which a sweep selects, is that of images seen; it has but one step to select from, so nothing depends on it
    within a draw. Groups without validation images cannot be balanced and are left out.
    """

    name = "dfr"
    paper = Paper(
        "Last layer re-training is sufficient for robustness to spurious correlations",
        "Kirichenko, Izmailov, Wilson", 2023, "https://arxiv.org/abs/2204.02937",
    )  # fmt: skip
    needs = Needs(val_groups=True)
    hparams = {
        "retrainings": HParam(
            10, doc="regressions on different balanced subsets, averaged", low=1, high=10_000
        ),
        "standard_share": HParam(
            1.0, doc="length of the ERM run, as a share of the steps", low=1e-3, high=1e3
        ),
    }
    network: Backbone

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.network.load_state_dict(setting.upstream["standard"].network.state_dict())
        self.network.requires_grad_(False)
        self.about: dict[str, Any] = {}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        share = spec.hparams["standard_share"]
        longer = (
            {k: max(round(share * spec.budget[k]), 1) for k in ("steps", "evaluate_every")}
            if share != 1
            else {}
        )
        return {
            "standard": Upstream(
                "erm", hparams=shared_hparams(spec.hparams), budget=longer, same_draw=True
            )
        }

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    @torch.no_grad()
    def fit(self, run: Run) -> None:
        self.network.eval()
        columns = []
        for batch in run.batches("val"):
            assert batch.group is not None
            columns.append(
                (
                    self.network.features(batch.image).double().cpu(),
                    batch.label.cpu(),
                    batch.group.cpu(),
                )
            )
        x, y, group = (torch.cat(column) for column in zip(*columns, strict=True))
        mean, deviation = x.mean(0), x.std(0, correction=0)
        deviation[deviation < 1e-12] = (
            1  # a feature that never fires says nothing and gets no weight
        )
        weight, c = self.retrain((x - mean) / deviation, y, group)
        scaled = weight[:, :-1] / deviation
        last = self.network.classifier
        last.weight.copy_(scaled)
        last.bias.copy_(weight[:, -1] - scaled @ mean)
        loss = F.cross_entropy(x @ scaled.T + (weight[:, -1] - scaled @ mean), y)
        self.about = {
            "c": c,
            "balanced": len(balanced_rows(group, torch.Generator())),
            "validation": len(y),
        }
        run.log({"validation": loss})

    def retrain(
        self, x: torch.Tensor, y: torch.Tensor, group: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """The averaged weights float[K,D+1] and the C that validation chose, from standardised features."""
        classes, generator = (
            self.setting.num_classes,
            torch.Generator().manual_seed(seed_for("dfr", len(y))),
        )
        order = torch.randperm(len(y), generator=generator)
        first, second = order[: len(y) // 2], order[len(y) // 2 :]
        scores = dict.fromkeys(STRENGTHS, 0.0)
        rows = first[balanced_rows(group[first], generator)]
        for c in STRENGTHS:
            scores[c] = worst_group(
                fit_logistic(x[rows], y[rows], classes, c), x[second], y[second], group[second]
            )
        best = max(STRENGTHS, key=lambda c: scores[c])  # of equals the first, the least regularised
        subsets = [balanced_rows(group, generator) for _ in range(self.hp["retrainings"])]
        fits = [fit_logistic(x[rows], y[rows], classes, best) for rows in subsets]
        return torch.stack(fits).mean(0), best

    def report(self) -> dict[str, Any]:
        """The chosen C, the size of a balanced subset, and of the validation split."""
        return self.about
