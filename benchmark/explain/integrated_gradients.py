"""Integrated gradients of captum, an explainer for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import IMAGES_PER_PASS, CaptumExplainer
from benchmark.explain.evaluation import Scores


@EXPLAINERS.register
class IntegratedGradients(CaptumExplainer):
    """Integrated gradients (Sundararajan et al. 2017) from the mean colour to the image.

    Args:
        steps: points of the integral.
    """

    name = "integrated_gradients"
    title = "Integrated gradients"
    repetitions = "steps"
    signed = True
    options = {"steps": HParam(50, doc="points of the integral", low=1, high=10_000)}

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        return methods.IntegratedGradients(scores).attribute(  # type: ignore[no-any-return]
            image,
            target=target,
            n_steps=self.chosen["steps"],
            internal_batch_size=max(IMAGES_PER_PASS, len(image)),
        )
