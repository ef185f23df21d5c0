"""Gradient SHAP of captum, an explainer for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import IMAGES_PER_PASS, CaptumExplainer
from benchmark.explain.evaluation import Scores


@EXPLAINERS.register
class GradientShap(CaptumExplainer):
    """Gradient SHAP: gradients at random points between mean colour and image.

    Source: Lundberg & Lee 2017.

    Args:
        samples: number of points.
        noise: standard deviation of the noise of the image, in units of normalised images.
    """

    name = "gradient_shap"
    title = "GradientSHAP"
    repetitions = "samples"
    signed = True
    options = {
        "samples": HParam(50, doc="number of random points", low=1, high=10_000),
        "noise": HParam(0.1, doc="standard deviation of the noise", low=0.0, high=100.0),
    }

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        explainer = methods.GradientShap(scores)
        total = torch.zeros_like(image)
        left = self.chosen["samples"]
        while left:
            count = min(left, max(IMAGES_PER_PASS // len(image), 1))
            left -= count
            part = explainer.attribute(
                image,
                baselines=torch.zeros_like(image[:1]),
                target=target,
                n_samples=count,
                stdevs=self.chosen["noise"],
            )
            total += part.detach() * count
        return total / self.chosen["samples"]
