"""Attri-Net: class-specific counterfactual attribution maps, and a logistic regression on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from algorithms._attri_net_network import AttriNetwork
from algorithms._attri_net_schedule import CRITIC, GENERATOR, HEADS, Schedule
from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    DatasetInfo,
    Draw,
    HParam,
    LogUniform,
    Paper,
    RunSpec,
    Setting,
    make_optimizer,
)
from benchmark.losses.precision import exact
from benchmark.models.attribution_generator import Critic

#: Share of a class centre that a step replaces.
CENTRE_RATE = 0.1
#: Side of the images, in pixels, at which the paper sums the centre loss over pixels.
PAPER_SIDE = 320


def centre_loss(
    attribution: torch.Tensor, label: torch.Tensor, centres: torch.Tensor
) -> torch.Tensor:
    """Return ½ mean ‖M − v₀‖² over negatives + ½ mean ‖M − v₁‖² over positives, a scalar.

    Squared distances are sums over channels and pixels. A side without images adds 0.

    Args:
        attribution: float[B,C,H,W], maps M of one class.
        label: int64[B] or bool[B], 1 for images that have the class.
        centres: float[2,C,H,W], centres v of the negatives and of the positives.
    """
    side = label.long()
    squares = (attribution - centres[side]).flatten(1).square().sum(1)
    return 0.5 * (mean_or_zero(squares[side == 0]) + mean_or_zero(squares[side == 1]))


def gradient_penalty(
    critic: Callable[[torch.Tensor], torch.Tensor],
    real: torch.Tensor,
    fake: torch.Tensor,
    alpha: torch.Tensor,
) -> torch.Tensor:
    """Return mean (‖∇D(z)‖₂ − 1)² at z = α · real + (1 − α) · fake, a scalar.

    Source: Gulrajani et al. 2017.

    Args:
        critic: computes float[B] from images float[B,C,H,W].
        real: float[B,C,H,W].
        fake: float[B,C,H,W].
        alpha: float[B], in [0, 1].
    """
    weight = alpha.view(-1, 1, 1, 1)
    point = (weight * real + (1 - weight) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return mean_or_zero((norm - 1).square())


def mean_or_zero(values: torch.Tensor) -> torch.Tensor:
    """Return the mean, or 0 with a graph for no values."""
    return values.sum() / max(values.numel(), 1)


@ALGORITHMS.register
class AttriNet(Algorithm):
    """A generator, a critic and linear heads, trained in turn, one class at a time.

    For class c the generator turns an image x into a map M such that x + M looks like an image
    without c. The critic compares x + M of positives with images of negatives. The head of c tells
    positives from negatives by M alone, so that the map is the whole evidence for its prediction.

    The generator minimises adversarial + sparsity + classification + centre losses. Data with one
    label per image are treated as one class against the rest. The sweep's backbone is not used.
    """

    name = "attri_net"
    title = "Attri-Net"
    paper = Paper(
        title="Attri-Net: a globally and locally inherently interpretable model for multi-label "
        "classification using class-specific counterfactuals",
        authors="Sun, Woerner, Maier, Koch, Baumgartner",
        year=2025,
        url="https://arxiv.org/abs/2406.05477",
    )
    sampling = "one_vs_rest"
    multi_label = True
    hparams = {
        "width": HParam(
            16, doc="channels of the generator at full size", low=1, high=512,
            large=HParam(64, low=1, high=512),
        ),
        "critic_width": HParam(
            16, doc="channels of the critic's first layer", low=1, high=512,
            large=HParam(64, low=1, high=512),
        ),
        "blocks": HParam(
            2, doc="residual blocks of the generator", low=1, high=32,
            large=HParam(6, low=1, high=32),
        ),
        "pool": HParam(
            4, doc="side of a cell of the heads, in pixels", low=1, high=512,
            large=HParam(32, low=1, high=512),
        ),
        "batch_size": HParam(
            8, doc="images per step, half of them with the class", low=2, high=65_536
        ),
        "lr": HParam(
            5e-4, LogUniform(-4, -3), "learning rate of generator and critic", low=0.0, high=1e3,
            large=HParam(1e-4, LogUniform(-4.5, -3.5), low=0.0, high=1e3),
        ),
        "head_lr": HParam(
            1e-2, doc="learning rate of the heads", low=0.0, high=1e3,
            large=HParam(1e-4, low=0.0, high=1e3),
        ),
        "weight_decay": HParam(1e-5, doc="weight decay", low=0.0, high=1e3),
        "critic_steps": HParam(5, doc="critic steps per generator step", low=0, high=10_000),
        "burst": HParam(
            20, doc="critic steps in a burst", low=0, high=10_000,
            large=HParam(100, low=0, high=10_000),
        ),
        "first_bursts": HParam(
            5, doc="generator steps at the start that follow a burst", low=0, high=10_000,
            large=HParam(25, low=0, high=10_000),
        ),
        "burst_every": HParam(100, doc="generator steps between later bursts", low=1, high=100_000),
        "head_steps": HParam(5, doc="steps of the heads per generator step", low=1, high=10_000),
        "adversarial_weight": HParam(1.0, doc="weight of realism", low=0.0, high=1e9),
        "sparsity_weight": HParam(100.0, doc="weight of the maps' size", low=0.0, high=1e9),
        "classification_weight": HParam(100.0, doc="weight of the heads' loss", low=0.0, high=1e9),
        "centre_weight": HParam(
            0.01, doc="weight of the centre loss, summed over the pixels of a 320-pixel image",
            low=0.0, high=1e9,
        ),
        "penalty_weight": HParam(10.0, doc="weight of the gradient penalty", low=0.0, high=1e9),
        "penalty_between": HParam(
            "negatives",
            choices=("negatives", "positives"),
            doc="images that the gradient penalty mixes with counterfactuals; the published code "
            "mixes positives",
        ),
    }  # fmt: skip
    variants = {
        "authors": {"penalty_between": "positives"},
        "cls": {"adversarial_weight": 0.0, "sparsity_weight": 0.0, "centre_weight": 0.0},
        "cls_adv": {"sparsity_weight": 0.0, "centre_weight": 0.0},
        "cls_adv_reg": {"centre_weight": 0.0},
    }
    # without positives in a batch, or with a weight of 0
    may_be_zero = frozenset({"adversarial", "sparsity", "centre"})
    network: AttriNetwork

    def __init__(self, setting: Setting) -> None:
        super().__init__(replace(setting, build_network=lambda **options: AttriNetwork(setting)))
        self.critic = Critic(setting.num_classes, setting.image_size, self.hp["critic_width"])
        self.schedule = Schedule(self.hp, setting.steps)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        _, height, width = info.image_size
        pool = spec.hparams["pool"]
        if min(height, width) < 16 or height % 4 or width % 4:
            return (
                f"it needs images of at least 16×16 pixels with sides that 4 divides, got "
                f"{height}×{width}; resize them."
            )
        if height % pool or width % pool:
            return (
                f"pool = {pool} does not divide the sides of the images, {height}×{width}; set "
                f"pool = 4, for example."
            )
        return None

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return 1  # no normalisation over the batch

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the first step of the heads, after a burst and one step of the generator."""
        return int(hparams["burst"]) + 1

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        adam = {"optimizer": "adam", "betas": (0.0, 0.9)}
        heads = {"optimizer": "adam", "lr": self.hp["head_lr"]}
        return {
            CRITIC: make_optimizer(self.critic.parameters(), self.hp, **adam),
            GENERATOR: make_optimizer(self.network.generator.parameters(), self.hp, **adam),
            HEADS: make_optimizer(self.network.heads.parameters(), self.hp, **heads),
        }

    def draw(self, step: int) -> Draw:
        """Return the stream and the position that ``one_vs_rest`` sampling reads for a step."""
        update = self.schedule.update(step)
        return Draw(update.part, update.count)

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        update = self.schedule.update(self.current_step)
        k, positive = self.class_of_step(batch)
        label = torch.full((1,), k, device=batch.image.device)
        parts = {
            CRITIC: self.critic,
            GENERATOR: self.network.generator,
            HEADS: self.network.heads,
        }
        for name, module in parts.items():
            module.requires_grad_(name == update.part)
        with self.setting.autocast():
            if update.part == CRITIC:
                terms = self.critic_loss(batch, label, positive)
            elif update.part == GENERATOR:
                terms = self.generator_loss(batch, label, positive)
            else:
                terms = self.heads_loss(batch, label, positive)
        self.minimise(terms, update.part)
        for module in parts.values():
            module.requires_grad_(True)
        return terms

    def class_of_step(self, batch: Batch) -> tuple[int, torch.Tensor]:
        """Return the class of the current step, and which images have it, bool[B]."""
        k = self.schedule.update(self.current_step).count % self.setting.num_classes
        positive = batch.label[:, k] > 0.5 if batch.label.dim() == 2 else batch.label == k
        return k, positive

    def critic_loss(
        self, batch: Batch, label: torch.Tensor, positive: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return mean D(x̂) of positives − mean D(x) of negatives, and the gradient penalty."""
        image = self.network.unit(batch.image)
        with torch.no_grad():
            fake = image[positive] + self.network.generator(image[positive], label)
        real = image[~positive]

        def realism(images: torch.Tensor) -> torch.Tensor:
            return exact(self.critic(images, label))

        found = realism(torch.cat([fake, real]))
        terms = {
            "critic": mean_or_zero(found[: len(fake)]) - mean_or_zero(found[len(fake) :]),
        }
        other = real if self.hp["penalty_between"] == "negatives" else image[positive]
        pairs = min(len(other), len(fake))
        if self.hp["penalty_weight"] > 0 and pairs:
            alpha = torch.rand(pairs, device=image.device)
            penalty = gradient_penalty(realism, other[:pairs], fake[:pairs], alpha)
            terms["penalty"] = self.hp["penalty_weight"] * penalty
        return terms

    def generator_loss(
        self, batch: Batch, label: torch.Tensor, positive: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the weighted terms of the generator, and move the class centres."""
        image = self.network.unit(batch.image)
        attribution = exact(self.network.generator(image, label))
        k = int(label[0])
        terms: dict[str, torch.Tensor] = {}
        size = attribution.abs().flatten(1).mean(1)
        if self.hp["adversarial_weight"] > 0:
            counterfactual = (image + attribution)[positive]
            realism = self.critic(counterfactual, label)
            terms["adversarial"] = -self.hp["adversarial_weight"] * mean_or_zero(exact(realism))
        if self.hp["sparsity_weight"] > 0:
            sparsity = mean_or_zero(size[positive]) + 2 * mean_or_zero(size[~positive])
            terms["sparsity"] = self.hp["sparsity_weight"] * sparsity
        logits = self.network.heads(attribution, label)
        classification = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype))
        terms["classification"] = self.hp["classification_weight"] * classification
        centres = self.network.centres_of(k)
        if self.hp["centre_weight"] > 0:
            pixels = attribution.shape[2] * attribution.shape[3]
            weight = self.hp["centre_weight"] * PAPER_SIDE**2 / pixels
            terms["centre"] = weight * centre_loss(attribution, positive, centres)
        terms.update(self.guidance(batch, attribution, positive, k))
        with torch.no_grad():
            for side in (0, 1):
                rows = attribution[positive == bool(side)]
                if len(rows):
                    centres[side].lerp_(rows.mean(0).to(centres.dtype), CENTRE_RATE)
        return terms

    def guidance(
        self, batch: Batch, attribution: torch.Tensor, positive: torch.Tensor, k: int
    ) -> dict[str, torch.Tensor]:
        """Return further terms of the generator for class k; none here."""
        return {}

    def global_explanations(self) -> dict[str, torch.Tensor]:
        """Return the class centres, the weights of the heads per pixel, and their product."""
        network = self.network
        centres = network.centres.unflatten(0, (-1, 2))
        label = torch.arange(len(centres), device=centres.device)
        ones = torch.ones_like(centres[:, 1])
        return {
            "class centre": centres[:, 1],
            "centre without the class": centres[:, 0],
            "head weights": network.heads.contributions(ones, label),
            "centre × weights": network.heads.contributions(centres[:, 1], label),
        }

    def heads_loss(
        self, batch: Batch, label: torch.Tensor, positive: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the cross-entropy of the heads on maps that are constants."""
        with torch.no_grad():
            attribution = exact(self.network.attribution(batch.image, label))
        logits = self.network.heads(attribution, label)
        loss = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype))
        return {"heads": loss}
