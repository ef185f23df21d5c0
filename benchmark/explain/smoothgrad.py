"""SmoothGrad of captum, an explainer for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import IMAGES_PER_PASS, CaptumExplainer
from benchmark.explain.evaluation import Scores


@EXPLAINERS.register
class SmoothGrad(CaptumExplainer):
    """SmoothGrad (Smilkov et al. 2017): the mean gradient at noisy copies of the image.

    Args:
        samples: number of copies.
        noise: standard deviation of the noise, as a share of the range of each image.
    """

    name = "smoothgrad"
    title = "SmoothGrad"
    repetitions = "samples"
    signed = True
    options = {
        "samples": HParam(50, doc="number of noisy copies", low=1, high=10_000),
        "noise": HParam(0.15, doc="standard deviation, share of the range", low=0.0, high=10.0),
    }

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        span = image.amax((1, 2, 3), keepdim=True) - image.amin((1, 2, 3), keepdim=True)
        tunnel = methods.NoiseTunnel(methods.Saliency(scores))
        maps = []
        for i in range(len(image)):
            maps.append(
                tunnel.attribute(
                    image[i : i + 1],
                    nt_type="smoothgrad",
                    nt_samples=self.chosen["samples"],
                    nt_samples_batch_size=min(self.chosen["samples"], IMAGES_PER_PASS),
                    stdevs=float(span[i]) * self.chosen["noise"],
                    target=target[i : i + 1],
                    abs=False,
                ).detach()
            )
        return torch.cat(maps)
