"""Explainers of captum, for evaluation: integrated gradients, SHAP, SmoothGrad, occlusion, …"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.evaluation import EvaluationExplainer, Scores

#: Images that pass the network together, at most.
IMAGES_PER_PASS = 256


class CaptumExplainer(EvaluationExplainer):
    """Base class of explainers that call captum, which is imported when it is needed."""

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        try:
            import captum.attr
        except ImportError:
            raise UserError(
                f"{self.name} needs the package captum; install it with "
                "pip install 'shortcutbed[explain]'."
            ) from None
        with torch.enable_grad(), numpy_seeded_by_torch(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum reports the hooks that it sets
            heatmap: torch.Tensor = self.call(captum.attr, scores, image.clone(), target)
        return heatmap.detach().to(image.dtype)

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Return captum's attribution float[B,C,H,W]; ``methods`` is ``captum.attr``."""
        raise NotImplementedError


@contextmanager
def numpy_seeded_by_torch() -> Iterator[None]:
    """Seed numpy's generator, from which captum draws, by torch's; its state is restored."""
    state = np.random.get_state()
    np.random.seed(int(torch.randint(2**31, ())))
    try:
        yield
    finally:
        np.random.set_state(state)


@EXPLAINERS.register
class IntegratedGradients(CaptumExplainer):
    """Integrated gradients (Sundararajan et al. 2017) from the mean colour to the image.

    Args:
        steps: points of the integral.
    """

    name = "integrated_gradients"
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


@EXPLAINERS.register
class GradientShap(CaptumExplainer):
    """Gradient SHAP: gradients at random points between mean colour and image.

    Source: Lundberg & Lee 2017.

    Args:
        samples: number of points.
        noise: standard deviation of the noise of the image, in units of normalised images.
    """

    name = "gradient_shap"
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


@EXPLAINERS.register
class SmoothGrad(CaptumExplainer):
    """SmoothGrad (Smilkov et al. 2017): the mean gradient at noisy copies of the image.

    Args:
        samples: number of copies.
        noise: standard deviation of the noise, as a share of the range of each image.
    """

    name = "smoothgrad"
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


@EXPLAINERS.register
class Occlusion(CaptumExplainer):
    """Occlusion (Zeiler & Fergus 2014): the drop of the logit when a window has the mean colour.

    Args:
        window: side of the window, as a share of the image's.
        stride: step of the window, as a share of its side.
    """

    name = "occlusion"
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


@EXPLAINERS.register
class GuidedBackprop(CaptumExplainer):
    """Guided backpropagation (Springenberg et al. 2015): gradients that pass ReLUs if positive.

    Every ReLU must be a module of its own; ``F.relu`` keeps its true derivative.
    """

    name = "guided_backprop"
    requires = "lrp"
    signed = True

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        return methods.GuidedBackprop(scores).attribute(image, target=target)  # type: ignore[no-any-return]
