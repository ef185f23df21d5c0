"""Attri-Net that is guided by masks of the evidence for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import torch
from torch.nn import functional as F

from algorithms._attri_net_schedule import GENERATOR
from algorithms.attri_net import AttriNet, mean_or_zero
from benchmark.core import (
    ALGORITHMS,
    Batch,
    Draw,
    HParam,
    LogUniform,
    Needs,
    Setting,
    TrainingRun,
    seed_for,
)
from benchmark.losses.heatmaps import guidance_loss
from benchmark.losses.precision import exact


class Guidance(StrEnum):
    """The masks in which evidence is expected; the values of the hyper-parameter ``guidance``."""

    FULL = "full"
    PSEUDO_MASK = "pseudo_mask"
    PSEUDO_BOX = "pseudo_box"
    WEIGHTED = "weighted"
    MIXED = "mixed"
    MIXED_WEIGHTED = "mixed_weighted"


#: Guidance by the mask of the image where there is one, and by another mask elsewhere.
MIXTURES = (Guidance.MIXED, Guidance.MIXED_WEIGHTED)
#: Of the steps of the generator, one in so many has positives with masks only, in mixtures.
ANNOTATED_EVERY = 10
#: Side of the central square that guides a class without masks, as a share of the image's.
CENTRAL_SIDE = 300 / 320


def pseudo_masks(counts: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Return the mask that guides images without a mask of their own, float[K,1,H,W] in [0, 1].

    A class without any mask gets a central square.

    Args:
        counts: int64[K,H,W], the number of training images whose mask has a pixel.
        guidance: a kind other than ``full``.
    """
    masks = []
    for count in counts:
        union = count > 0
        if not union.any():
            masks.append(_central_square(union.shape[0], union.shape[1]))
        elif guidance in (Guidance.WEIGHTED, Guidance.MIXED_WEIGHTED):
            masks.append(count / count.max())
        elif guidance == Guidance.PSEUDO_BOX:
            masks.append(_bounding_box(union))
        else:
            masks.append(union)
    return torch.stack([mask.float() for mask in masks])[:, None]


def _bounding_box(union: torch.Tensor) -> torch.Tensor:
    """Return the bounding box of a mask, bool[H,W]."""
    box = torch.zeros_like(union)
    rows = torch.nonzero(union.any(1))[:, 0]
    columns = torch.nonzero(union.any(0))[:, 0]
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _central_square(height: int, width: int) -> torch.Tensor:
    square = torch.zeros(height, width, dtype=torch.bool)
    top, left = round(height * (1 - CENTRAL_SIDE) / 2), round(width * (1 - CENTRAL_SIDE) / 2)
    square[top : height - top, left : width - left] = True
    return square


@ALGORITHMS.register
class GuidedAttriNet(AttriNet):
    """Attri-Net with guidance: evidence for a class should lie in a mask of it.

    Guidance is the share of the absolute attribution outside the mask, averaged over the positives
    of a batch that have a mask. With ``full`` it is the mask of the image. Other kinds serve where
    few images have one: the union of the class's masks in training (``pseudo_mask``), the bounding
    box of that union (``pseudo_box``), or the share of the masks that have a pixel, divided by its
    largest value (``weighted``). ``mixed`` and ``mixed_weighted`` use the image's own mask where
    there is one, and in every tenth step of the generator only positives that have one.

    The published code sums over four positives, and trained with 1500 where masks replace a
    shortcut: 120 (``summed``) and 6000 (``strong``) times the mean.

    Guidance of the map alone may hide a shortcut that the prediction still depends on. Two changes
    that are not in the paper aim at the prediction. With ``swap``, a positive and a negative
    exchange everything outside the mask of the positive, so that it does not tell them apart. With
    ``counterfactual_weight``, the classification loss also asks for no evidence in x + G ⊙ M, the
    image that is changed within the mask only.
    """

    name = "attri_net_guided"
    title = "Attri-Net, guided"
    needs = Needs(class_masks=True)
    hparams = {
        **AttriNet.hparams,
        "guidance_weight": HParam(
            30.0, LogUniform(1, 4), "weight of attribution outside the mask", low=0.0, high=1e9
        ),
        "guidance": HParam(
            Guidance.FULL.value,
            choices=tuple(guidance.value for guidance in Guidance),
            doc="the masks in which evidence is expected",
        ),
        "swap": HParam(
            0.0,
            doc="share of the pairs of a positive and a negative that exchange what is outside the "
            "mask",
            low=0.0,
            high=1.0,
        ),
        "counterfactual_weight": HParam(
            0.0,
            doc="weight of the evidence in images that are changed within the mask only",
            low=0.0,
            high=1e9,
        ),
    }
    variants = {
        "authors": {"penalty_between": "positives", "guidance_weight": 120.0},
        "summed": {"guidance_weight": 120.0},
        "strong": {"guidance_weight": 6000.0},
        "swap": {"swap": 0.5},
        "counterfactual": {"counterfactual_weight": 100.0},
        **{kind.value: {"guidance": kind.value} for kind in Guidance if kind != Guidance.FULL},
    }
    may_be_zero = AttriNet.may_be_zero | {"guidance", "counterfactual"}
    pseudo: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.kind = Guidance(self.hp["guidance"])
        _, height, width = setting.image_size
        self.register_buffer("pseudo", torch.ones(setting.num_classes, 1, height, width))

    def fit(self, run: TrainingRun) -> None:
        if self.kind != Guidance.FULL:
            self.pseudo.copy_(pseudo_masks(run.class_mask_counts(), self.kind))
        super().fit(run)

    def draw(self, step: int) -> Draw:
        drawn = super().draw(step)
        annotated = (
            self.kind in MIXTURES
            and drawn.stream == GENERATOR
            and seed_for("annotated", drawn.position) % ANNOTATED_EVERY == 0
        )
        return Draw(drawn.stream, drawn.position, annotated)

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        assert batch.class_mask is not None
        if self.hp["swap"] > 0:
            k, positive = self.class_of_step(batch)
            mask, guided = self.masks(batch, positive, k)
            rows = torch.nonzero(guided)[:, 0]
            others = torch.nonzero(~positive)[:, 0]
            pairs = min(len(rows), len(others))
            chosen = torch.rand(pairs, device=rows.device) < self.hp["swap"]
            one, other = rows[:pairs][chosen], others[:pairs][chosen]
            image = swap_outside(batch.image, one, other, mask[one] > 0)
            batch = replace(batch, image=image)
        return super().step(batch)

    def masks(
        self, batch: Batch, positive: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mask of class k for each image, float[B,1,H,W], and which are guided."""
        assert batch.class_mask is not None
        own = batch.class_mask[:, k : k + 1].to(batch.image.dtype)
        known = own.flatten(1).any(1)
        if self.kind == Guidance.FULL:
            return own, positive & known
        mask = self.pseudo[k].to(own.dtype).expand(len(own), -1, -1, -1)
        if self.kind in MIXTURES:
            mask = torch.where(known.view(-1, 1, 1, 1), own, mask)
        return mask, positive

    def guidance(
        self, batch: Batch, attribution: torch.Tensor, positive: torch.Tensor, k: int
    ) -> dict[str, torch.Tensor]:
        mask, guided = self.masks(batch, positive, k)
        mask = mask.to(attribution.dtype)[guided]
        attribution = attribution[guided]
        outside = guidance_loss(attribution, mask)
        terms = {"guidance": self.hp["guidance_weight"] * mean_or_zero(outside)}
        if self.hp["counterfactual_weight"] > 0:
            image = self.network.unit(batch.image)[guided]
            changed = (image + mask * attribution).detach()
            label = torch.full((1,), k, device=image.device)
            logits = exact(self.network.heads(self.network.generator(changed, label), label))
            evidence = F.softplus(logits)  # the cross-entropy of an image without the class
            terms["counterfactual"] = self.hp["counterfactual_weight"] * mean_or_zero(evidence)
        return terms


def swap_outside(
    image: torch.Tensor, one: torch.Tensor, other: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return images of which pairs have exchanged the pixels outside a mask.

    Args:
        image: float[B,C,H,W].
        one: int64[P], rows of the first image of each pair.
        other: int64[P], rows of the second one.
        mask: bool[P,1,H,W], the pixels that stay.
    """
    swapped = image.clone()
    swapped[one] = torch.where(mask, image[one], image[other])
    swapped[other] = torch.where(mask, image[other], image[one])
    return swapped
