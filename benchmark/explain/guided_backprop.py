"""Guided backpropagation of captum, an explainer for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import CaptumExplainer
from benchmark.explain.evaluation import Scores


@EXPLAINERS.register
class GuidedBackprop(CaptumExplainer):
    """Guided backpropagation (Springenberg et al. 2015): gradients that pass ReLUs if positive.

    Every ReLU must be a module of its own; ``F.relu`` keeps its true derivative.
    """

    name = "guided_backprop"
    title = "Guided backpropagation"
    requires = "lrp"
    signed = True

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        return methods.GuidedBackprop(scores).attribute(image, target=target)  # type: ignore[no-any-return]
