"""Occlusion of captum, an explainer for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import IMAGES_PER_PASS, CaptumExplainer
from benchmark.explain.evaluation import Scores


@EXPLAINERS.register
class Occlusion(CaptumExplainer):
    """Occlusion (Zeiler & Fergus 2014): the drop of the logit when a window has the mean colour.

    Args:
        window: side of the window, as a share of the image's.
        stride: step of the window, as a share of its side.
    """

    name = "occlusion"
    title = "Occlusion"
    signed = True
    options = {
        "window": HParam(0.15, doc="side of the window, share of the image", low=0.01, high=1.0),
        "stride": HParam(0.5, doc="step, share of the window's side", low=0.01, high=1.0),
    }

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        channels, height, width = image.shape[1:]
        window = [max(round(side * self.chosen["window"]), 1) for side in (height, width)]
        stride = [max(round(side * self.chosen["stride"]), 1) for side in window]
        return methods.Occlusion(scores).attribute(  # type: ignore[no-any-return]
            image,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=0,
            target=target,
            perturbations_per_eval=max(IMAGES_PER_PASS // len(image), 1),
        )
