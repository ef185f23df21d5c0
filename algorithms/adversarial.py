"""DANN and CDAN: features from which a second network cannot tell the environment."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.hparam import Choice, HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.optim import make_optimizer
from benchmark.core.registry import ALGORITHMS
from benchmark.models.base import Backbone


def perceptron(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """``depth`` linear layers, ``width`` wide inside, with ReLUs between them."""
    sizes = [inputs, *[width] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@ALGORITHMS.register
class DANN(Algorithm):
    """min over the network, max over the discriminator D, of CE(label) − λ · CE(D(features), environment).

    The minus sign is the paper's gradient reversal. In every step D takes ``d_steps`` steps on the batch's features as
    constants, so that the network neither moves nor is differentiated, and then the network takes one. (DomainBed gives
    D whole steps of the budget; here a step moves the network in every method, so that equal budgets are equal.)
    """

    name = "dann"
    paper = Paper(
        "Domain-adversarial training of neural networks",
        "Ganin et al.",
        2016,
        "https://arxiv.org/abs/1505.07818",
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
            "learning rate of the discriminator; 0: as the network's",
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
        width, depth = self.hp["mlp_width"], self.hp["mlp_depth"]
        self.discriminator = perceptron(self.joint_size(), setting.num_environments, width, depth)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        betas = self.hp["beta1"], 0.9
        theirs = {
            "lr": self.hp["lr_d"] or self.hp["lr"],
            "weight_decay": self.hp["weight_decay_d"],
            "betas": betas,
        }
        adversary = [p for name, p in self.named_parameters() if not name.startswith("network.")]
        return {
            "main": make_optimizer(self.network.parameters(), self.hp, betas=betas),
            "discriminator": make_optimizer(adversary, self.hp, **theirs),
        }

    def joint_size(self) -> int:
        """Length of what ``joint`` gives."""
        return self.network.num_features

    def joint(
        self, features: torch.Tensor, logits: torch.Tensor, label: torch.Tensor
    ) -> torch.Tensor:
        """What the discriminator looks at, float[B,joint_size]: here the features alone."""
        return features

    def average(self, losses: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The discriminator's mean over rows, from float[B]: here every row counts the same."""
        return losses.mean()

    def discriminator_loss(
        self, joint: torch.Tensor, batch: Batch, penalty: float = 0.0
    ) -> torch.Tensor:
        """Cross-entropy of the environments + ``penalty`` · mean over rows of ‖∂CE(D(joint)) / ∂joint‖²."""
        assert batch.environment is not None
        losses = F.cross_entropy(self.discriminator(joint), batch.environment, reduction="none")
        total = self.average(losses, batch.label)
        if penalty == 0:  # the default: no second differentiation
            return total
        gradient = torch.autograd.grad(losses.sum(), joint, create_graph=True)[0]
        return total + penalty * gradient.square().sum(1).mean()

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        with self.setting.autocast():
            features = self.network.features(batch.image)
            logits = self.network.classifier(self.network.dropout(features))
            classification = F.cross_entropy(logits, batch.label)
        penalty = self.hp["grad_penalty"]
        constants = features.detach().requires_grad_(penalty > 0), logits.detach()
        for _ in range(self.hp["d_steps"]):
            with self.setting.autocast():
                recognised = self.discriminator_loss(
                    self.joint(*constants, batch.label), batch, penalty
                )
            self.minimise({"discriminator": recognised}, "discriminator")
        with self.setting.autocast():
            fooled = self.discriminator_loss(self.joint(features, logits, batch.label), batch)
            adversary = -self.hp["adversary_weight"] * fooled
        self.minimise({"classification": classification, "adversary": adversary}, "main")
        return {
            "classification": classification,
            "adversary": adversary,
            "discriminator": recognised,
        }


@ALGORITHMS.register
class CDAN(DANN):
    """DANN whose discriminator sees the features together with what is predicted from them.

    ``condition = "outer"``: the outer product of features and softmax; the gradient passes through both factors.
    ``condition = "embedding"``: features + a learnt vector of the true class, and every class of the batch counts the
    same: the class-conditional DANN (CDANN) of Li et al. (2018), in DomainBed's form.
    """

    name = "cdan"
    paper = Paper(
        "Conditional adversarial domain adaptation",
        "Long, Cao, Wang, Jordan",
        2018,
        "https://arxiv.org/abs/1705.10667",
    )
    hparams = {
        **DANN.hparams,
        "condition": HParam(
            "outer", choices=("outer", "embedding"), doc="how the discriminator sees the class"
        ),
    }
    variants = {"cdann": {"condition": "embedding"}}

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
        sizes = torch.bincount(label, minlength=self.setting.num_classes)
        return (losses / sizes[label]).sum() / (sizes > 0).sum()
