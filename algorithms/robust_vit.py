"""RobustViT: fine-tune a vision transformer so that its relevance lies on the object."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from algorithms._fine_tuned import FINE_TUNE_HPARAMS, FineTuned
from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    Batch,
    Choice,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    RunSpec,
    Setting,
)
from benchmark.explain import get
from benchmark.losses.heatmaps import enlarged_to_unit
from benchmark.losses.precision import exact

#: Ablations and weights, each also with the constant gradients of the published code.
ABLATIONS: dict[str, dict[str, Any]] = {
    "ground_truth": {"target": "label"},
    "no_classification": {"classification_weight": 0.0},
    "no_background": {"background_weight": 0.0},
    "no_foreground": {"foreground_weight": 0.0},
    "only_background": {"foreground_weight": 0.0, "classification_weight": 0.0},
    "only_foreground": {"background_weight": 0.0, "classification_weight": 0.0},
    "weight_4": {"relevance_weight": 4.0},
    "weight_20": {"relevance_weight": 20.0},
}


def robust_vit_loss(
    relevance: torch.Tensor,
    mask: torch.Tensor,
    logits: torch.Tensor,
    temperature: float = 1.0,
    target: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return the three terms of the RobustViT loss, without weights.

    Source: Chefer et al. 2022, section 3.

    Args:
        relevance: float[B,1,H,W], scaled to [0, 1].
        mask: bool[B,1,H,W], True on the object.
        logits: float[B,K].
        temperature: divisor of the logits in the classification term.
        target: int64[B], the class of the classification term; None for the class with the largest
            logit, so that the term keeps the model's own predictions.

    Returns:
        Scalars: ``background``, mean (R (1 − S))²; ``foreground``, mean (R S − S)²;
        ``classification``, the cross-entropy of the target. Means are over images and pixels.
    """
    if target is None:
        target = logits.argmax(1)
    inside = mask.to(relevance.dtype)
    return {
        "background": (relevance * (1 - inside)).square().mean(),
        "foreground": (relevance * inside - inside).square().mean(),
        "classification": F.cross_entropy(exact(logits) / temperature, target),
    }


@ALGORITHMS.register
class RobustViT(FineTuned):
    """0.8 (2 · background + 0.3 · foreground) + 0.2 · classification, from an ERM start.

    The relevance R is GAE of the true label, enlarged to the image and scaled to [0, 1]. It should
    be 0 on the background and 1 on the object; the classification term holds the predictions in
    place. A few masks for each class are enough according to the paper, so that only
    ``masks_per_class`` training images are used.

    With ``constant_gradients`` the gradient of the loss flows through the attention alone. The
    published code does so; the mathematics of the paper does not, and is the default here.
    """

    name = "robust_vit"
    title = "RobustViT"
    paper = Paper(
        title="Optimizing relevance maps of vision transformers improves robustness",
        authors="Chefer, Schwartz, Wolf",
        year=2022,
        url="https://arxiv.org/abs/2206.01161",
    )
    needs = Needs(masks=True)
    hparams = {
        **FINE_TUNE_HPARAMS,
        "batch_size": HParam(8, doc="images per step", low=1, high=65_536),
        "background_weight": HParam(
            2.0, LogUniform(-0.5, 1), "weight of relevance on the background", low=0.0, high=1e9
        ),
        "foreground_weight": HParam(
            0.3, LogUniform(-1.5, 0.5), "weight of missing relevance", low=0.0, high=1e9
        ),
        "relevance_weight": HParam(
            0.8, LogUniform(-0.5, 1.5), "weight of both relevance terms", low=0.0, high=1e9
        ),
        "classification_weight": HParam(
            0.2, doc="weight of the classification term", low=0.0, high=1e9
        ),
        "target": HParam(
            "prediction",
            choices=("prediction", "label"),
            doc="class of the classification term: the model's own prediction, or the label",
        ),
        "explained": HParam(
            "label", choices=("label", "prediction"), doc="class whose relevance is trained"
        ),
        "temperature": HParam(
            1.0, doc="divisor of the logits in the classification term", low=1e-3, high=1e3
        ),
        "constant_gradients": HParam(
            False, doc="let the gradient of the relevance flow through the attention alone"
        ),
        "masks_per_class": HParam(
            3,
            Choice((3, 10, 30, 0)),
            "training images of each class that are used, with their masks; 0: all",
            low=0,
            high=100_000,
        ),
    }
    variants = {
        **ABLATIONS,
        "authors": {"constant_gradients": True},
        **{
            f"authors_{name}": {"constant_gradients": True, **changed}
            for name, changed in ABLATIONS.items()
        },
        "few_masks_ground_truth": {"masks_per_class": 3, "target": "label"},
        "few_masks_weight_20": {"masks_per_class": 3, "relevance_weight": 20.0},
        "ground_truth_weight_4": {"target": "label", "relevance_weight": 4.0},
        "ground_truth_weight_20": {"target": "label", "relevance_weight": 20.0},
    }
    objective = FineTuned.total_loss

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.explainer = get("gae", constant_gradients=self.hp["constant_gradients"])

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        if BACKBONES.get(spec.backbone).capabilities.attention:
            return super().refuses(spec, info)
        return f'it explains attention, which {spec.backbone} lacks; use backbone = "vit".'

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.mask is not None
        trace = self.explainer.trace(
            self.network, batch.image, create_graph=True, track_statistics=True
        )
        explained = batch.label if self.hp["explained"] == "label" else trace.logits.argmax(1)
        heatmap = trace.heatmap(explained)
        terms = robust_vit_loss(
            enlarged_to_unit(heatmap, batch.mask.shape[2:]),
            batch.mask,
            trace.logits,
            temperature=self.hp["temperature"],
            target=batch.label if self.hp["target"] == "label" else None,
        )
        of_relevance = self.hp["relevance_weight"]
        weights = {
            "background": of_relevance * self.hp["background_weight"],
            "foreground": of_relevance * self.hp["foreground_weight"],
            "classification": self.hp["classification_weight"],
        }
        return {name: weights[name] * terms[name] for name in terms if weights[name] > 0}
