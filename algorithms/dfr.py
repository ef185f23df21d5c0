"""Deep feature reweighting: refit the last layer of a standard classifier on balanced groups."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    HParam,
    Needs,
    Paper,
    RunSpec,
    Setting,
    TrainingRun,
    Upstream,
    seed_for,
    shared_hparams,
)
from benchmark.models.base import Backbone

#: Candidate inverse strengths C of the L1 penalty (Kirichenko et al. 2023, appendix B).
INVERSE_STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)


def fit_logistic(
    x: torch.Tensor, y: torch.Tensor, classes: int, c: float, iterations: int = 2000
) -> torch.Tensor:
    """Minimise ‖W‖₁ + C · Σ CE(W x + b, y) by accelerated proximal gradient descent (FISTA).

    The bias b is not penalised. The momentum restarts when it points uphill (O'Donoghue & Candès
    2015).

    Args:
        x: float[N,D], standardised.
        y: int64[N].
        classes: K.
        c: C, inverse strength of the penalty, above 0.
        iterations: largest number of steps.

    Returns:
        float[K,D+1]: W, with b as the last column.
    """
    data = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    target = F.one_hot(y, classes).to(x.dtype)
    # the Hessian of the softmax is at most half the identity, which bounds the curvature
    step = 1 / (0.5 * c * torch.linalg.matrix_norm(data, 2).square()).clamp_min(1e-12)
    weight = torch.zeros(classes, data.shape[1], dtype=x.dtype, device=x.device)
    extrapolated = weight
    momentum = 1.0
    for _ in range(iterations):
        gradient = c * ((extrapolated @ data.T).softmax(0) - target.T) @ data
        moved = extrapolated - step * gradient
        new_weight = torch.cat([F.softshrink(moved[:, :-1], float(step)), moved[:, -1:]], 1)
        change = new_weight - weight
        uphill = ((extrapolated - new_weight) * change).sum() > 0
        previous_momentum = 1.0 if uphill else momentum
        momentum = 1.0 if uphill else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        weight = new_weight
        extrapolated = weight + (previous_momentum - 1) / momentum * change
        if change.abs().max() <= 1e-7 * weight.abs().max():
            break
    return weight


def balanced_rows(group: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a random subset of rows in which all groups present are as large as the smallest one.

    Args:
        group: int64[N].
        generator: source of the random numbers.

    Returns:
        int64[n], sorted.
    """
    members = [torch.nonzero(group == g)[:, 0] for g in group.unique()]
    smallest = min(map(len, members))
    chosen = [rows[torch.randperm(len(rows), generator=generator)[:smallest]] for rows in members]
    return torch.cat(chosen).sort().values


def worst_group(
    weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, group: torch.Tensor
) -> float:
    """Return the accuracy of the worst group present.

    Args:
        weight: linear classifier float[K,D+1], as from ``fit_logistic``.
        x: float[N,D].
        y: int64[N].
        group: int64[N].
    """
    correct = (x @ weight[:, :-1].T + weight[:, -1]).argmax(1) == y
    return min(correct[group == g].double().mean().item() for g in group.unique())


@ALGORITHMS.register
class DFR(Algorithm):
    """L1-regularised logistic regression on an ERM model's features of balanced validation images.

    C is selected first: regressions are fitted on one half of the validation split, group-balanced,
    and compared by worst-group accuracy on the other half. Then the weights of ``retrainings``
    regressions on balanced subsets of the whole split are averaged. This is the paper's DFR with
    validation data.

    Learning rate, batch size and so on are those of the ERM run, and so is the budget, since DFR
    makes no training step. Its accuracy on validation images, by which a sweep selects, is measured
    on images that it has learned from; within a draw nothing depends on it, as there is only one
    step to select. Groups without validation images cannot be balanced and are left out.
    """

    name = "dfr"
    title = "DFR"
    paper = Paper(
        title="Last layer re-training is sufficient for robustness to spurious correlations",
        authors="Kirichenko, Izmailov, Wilson",
        year=2023,
        url="https://arxiv.org/abs/2204.02937",
    )
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
        self.summary: dict[str, Any] = {}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        share = spec.hparams["standard_share"]
        own = spec.training_budget
        budget = {}
        if share != 1:
            budget["steps"] = max(round(share * own.steps), 1)
            budget["evaluate_every"] = max(round(share * own.evaluate_every), 1)
        hparams = shared_hparams(spec.hparams)
        return {"standard": Upstream("erm", hparams=hparams, budget=budget, same_draw=True)}

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    @torch.no_grad()
    def fit(self, run: TrainingRun) -> None:
        self.network.eval()
        x, y, group = self.validation_features(run)
        mean = x.mean(0)
        deviation = x.std(0, correction=0)
        deviation[deviation < 1e-12] = 1  # a constant feature gets no weight
        weight, c = self.retrain((x - mean) / deviation, y, group)
        # the regression on standardised features as one on the features themselves
        slope = weight[:, :-1] / deviation
        bias = weight[:, -1] - slope @ mean
        self.network.classifier.weight.copy_(slope)
        self.network.classifier.bias.copy_(bias)
        self.summary = {
            "c": c,
            "balanced": len(balanced_rows(group, torch.Generator())),
            "validation": len(y),
        }
        run.log({"validation": F.cross_entropy(x @ slope.T + bias, y)})

    def validation_features(
        self, run: TrainingRun
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features float64[N,D], labels and groups of the validation split, on the CPU."""
        features = []
        labels = []
        groups = []
        for batch in run.batches("val"):
            assert batch.group is not None
            features.append(self.network.features(batch.image).double().cpu())
            labels.append(batch.label.cpu())
            groups.append(batch.group.cpu())
        return torch.cat(features), torch.cat(labels), torch.cat(groups)

    def retrain(
        self, x: torch.Tensor, y: torch.Tensor, group: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        """Return the averaged weights float[K,D+1] and the selected C.

        Args:
            x: standardised features, float[N,D].
            y: int64[N].
            group: int64[N].
        """
        classes = self.setting.num_classes
        generator = torch.Generator().manual_seed(seed_for("dfr", len(y)))
        order = torch.randperm(len(y), generator=generator)
        first = order[: len(y) // 2]
        second = order[len(y) // 2 :]
        rows = first[balanced_rows(group[first], generator)]
        scores = {}
        for c in INVERSE_STRENGTHS:
            weight = fit_logistic(x[rows], y[rows], classes, c)
            scores[c] = worst_group(weight, x[second], y[second], group[second])
        # of equal scores the first is selected, which is the least regularised
        best = max(INVERSE_STRENGTHS, key=lambda c: scores[c])
        subsets = [balanced_rows(group, generator) for _ in range(self.hp["retrainings"])]
        weights = [fit_logistic(x[rows], y[rows], classes, best) for rows in subsets]
        return torch.stack(weights).mean(0), best

    def report(self) -> dict[str, Any]:
        """Return the selected C and the sizes of a balanced subset and of the validation split."""
        return self.summary
