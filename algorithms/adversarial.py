"""DANN and CDAN: features from which a discriminator cannot tell the environment or confounder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    Choice,
    HParam,
    LogUniform,
    Needs,
    Paper,
    Setting,
    make_optimizer,
)
from benchmark.models.base import Backbone


def perceptron(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """Return ``depth`` linear layers with ReLUs between them and ``width`` hidden units."""
    sizes = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@ALGORITHMS.register
class DANN(Algorithm):
    """CE(label) − λ · CE(D(features), environment), minimised by the network.

    The discriminator D minimises CE(D(features), environment); the minus sign is the gradient
    reversal of the paper. In every step D first takes ``d_steps`` optimiser steps on the features
    of the batch, which are constants for it, and then the network takes one. (DomainBed spends
    whole steps of the budget on D; here every step updates the network in every method, so that
    equal budgets are comparable.)
    """

    name = "dann"
    title = "DANN"
    paper = Paper(
        title="Domain-adversarial training of neural networks",
        authors="Ganin et al.",
        year=2016,
        url="https://arxiv.org/abs/1505.07818",
    )
    needs = Needs(environments=True)
    sampling = "environment"
    hparams = {
        "adversary_weight": HParam(
            1.0, LogUniform(-2, 2), "λ, weight of the reversed gradient", low=0.0, high=1e9
        ),
        "lr_d": HParam(
            0.0,
            LogUniform(-4.5, -2.5),
            "learning rate of the discriminator; 0: that of the network",
            low=0.0,
            high=1e3,
            large=HParam(0.0, LogUniform(-5, -3.5), low=0.0, high=1e3),
        ),
        "weight_decay_d": HParam(
            0.0, LogUniform(-6, -2), "weight decay of the discriminator", low=0.0, high=1e3
        ),
        "d_steps": HParam(
            1,
            LogUniform(0, 3, base=2, integer=True),
            "discriminator steps per network step",
            low=1,
            high=1_000,
        ),
        "grad_penalty": HParam(
            0.0,
            LogUniform(-2, 1),
            "weight of the discriminator's gradient penalty",
            low=0.0,
            high=1e9,
        ),
        "beta1": HParam(
            0.5, Choice((0.0, 0.5)), "Adam's β₁, of both optimisers", low=0.0, high=0.999
        ),
        "mlp_width": HParam(
            256,
            LogUniform(6, 10, base=2, integer=True),
            "width of the discriminator",
            low=1,
            high=4_096,
        ),
        "mlp_depth": HParam(
            3, Choice((3, 4, 5)), "linear layers of the discriminator", low=1, high=16
        ),
    }
    network: Backbone

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        width = self.hp["mlp_width"]
        depth = self.hp["mlp_depth"]
        self.discriminator = perceptron(self.joint_size(), self.num_domains(), width, depth)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        betas = (self.hp["beta1"], 0.9)
        adversary = [p for name, p in self.named_parameters() if not name.startswith("network.")]
        return {
            "main": make_optimizer(self.network.parameters(), self.hp, betas=betas),
            "discriminator": make_optimizer(
                adversary,
                self.hp,
                lr=self.hp["lr_d"] or self.hp["lr"],
                weight_decay=self.hp["weight_decay_d"],
                betas=betas,
            ),
        }

    def num_domains(self) -> int:
        """Return the number of outputs of the discriminator."""
        return self.setting.num_environments

    def domain(self, batch: Batch) -> torch.Tensor:
        """Return what the discriminator has to recognise, int64[B]: here the environment."""
        assert batch.environment is not None
        return batch.environment

    def joint_size(self) -> int:
        """Return the number of inputs of the discriminator."""
        return self.network.num_features

    def joint(
        self, features: torch.Tensor, logits: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """Return the input of the discriminator, float[B,joint_size]: here the features."""
        return features

    def average(self, losses: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Average losses float[B] over rows: here with equal weights."""
        return losses.mean()

    def discriminator_loss(
        self, joint: torch.Tensor, batch: Batch, penalty: float = 0.0
    ) -> torch.Tensor:
        """Return CE of the domains + ``penalty`` · mean of ‖∂CE(D(joint)) / ∂joint‖²."""
        losses = F.cross_entropy(self.discriminator(joint), self.domain(batch), reduction="none")
        total = self.average(losses, batch.label)
        if penalty == 0:  # the default needs no second derivative
            return total
        gradient = torch.autograd.grad(losses.sum(), joint, create_graph=True)[0]
        return total + penalty * gradient.square().sum(1).mean()

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        with self.setting.autocast():
            features = self.network.features(batch.image)
            logits = self.network.classifier(self.network.dropout(features))
            classification = F.cross_entropy(logits, batch.label)
        penalty = self.hp["grad_penalty"]
        constant_features = features.detach().requires_grad_(penalty > 0)
        constant_logits = logits.detach()
        for _ in range(self.hp["d_steps"]):
            with self.setting.autocast():
                joint = self.joint(constant_features, constant_logits, batch.label)
                discriminator = self.discriminator_loss(joint, batch, penalty)
            self.minimise({"discriminator": discriminator}, "discriminator")
        with self.setting.autocast():
            joint = self.joint(features, logits, batch.label)
            adversary = -self.hp["adversary_weight"] * self.discriminator_loss(joint, batch)
        self.minimise({"classification": classification, "adversary": adversary}, "main")
        return {
            "classification": classification,
            "adversary": adversary,
            "discriminator": discriminator,
        }


@ALGORITHMS.register
class CDAN(DANN):
    """DANN whose discriminator sees the features together with the class.

    ``condition = "outer"``: the outer product of features and softmax; the gradient passes through
    both factors. ``condition = "embedding"``: features + a learnt vector of the true class, and
    every class of the batch has the same weight: the class-conditional DANN (CDANN) of Li et al.
    (2018), in DomainBed's form.
    """

    name = "cdan"
    title = "CDAN"
    paper = Paper(
        title="Conditional adversarial domain adaptation",
        authors="Long, Cao, Wang, Jordan",
        year=2018,
        url="https://arxiv.org/abs/1705.10667",
    )
    hparams = {
        **DANN.hparams,
        "condition": HParam(
            "outer", choices=("outer", "embedding"), doc="how the discriminator sees the class"
        ),
    }
    variants = {"cdann": {"condition": "embedding"}}
    variant_titles = {"cdann": "CDANN"}

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.hp["condition"] == "embedding":
            self.embedding = nn.Embedding(setting.num_classes, self.joint_size())

    def joint_size(self) -> int:
        factor = self.setting.num_classes if self.hp["condition"] == "outer" else 1
        return super().joint_size() * factor

    def joint(
        self, features: torch.Tensor, logits: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        if self.hp["condition"] == "embedding":
            return features + self.embedding(label)  # type: ignore[no-any-return]
        return (logits.softmax(1)[:, :, None] * features[:, None, :]).flatten(1)

    def average(self, losses: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        if self.hp["condition"] == "outer":
            return super().average(losses, label)
        # a sum of one-hot rows; unlike bincount it does not wait for a GPU
        sizes = F.one_hot(label, self.setting.num_classes).sum(0)
        return (losses / sizes[label]).sum() / (sizes > 0).sum()


class ConfounderDomain(DANN):
    """Replaces the environment by the confounder as the domain of the discriminator.

    Environments in which the confounder is equally frequent give the discriminator nothing to
    recognise, so that DANN is ERM on them. Batches are still drawn equally from the environments.

    This is a class and not a variant because a method declares once which annotations it needs:
    with confounder labels among the needs of DANN, tables would list them for its own row too.
    """

    needs = Needs(environments=True, confounder=True)

    def num_domains(self) -> int:
        return self.setting.num_confounders

    def domain(self, batch: Batch) -> torch.Tensor:
        assert batch.confounder is not None
        return batch.confounder


@ALGORITHMS.register
class DANNConfounder(ConfounderDomain):
    """DANN whose discriminator recognises the confounder."""

    name = "dann_confounder"
    title = "DANN (confounder)"


@ALGORITHMS.register
class CDANConfounder(ConfounderDomain, CDAN):
    """CDAN whose discriminator recognises the confounder."""

    name = "cdan_confounder"
    title = "CDAN (confounder)"
