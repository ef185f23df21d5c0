"""LIME of captum, an explainer for evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain._captum import IMAGES_PER_PASS, CaptumExplainer
from benchmark.explain.evaluation import Scores

#: Width of the kernel and penalty of the linear model, as in the paper's implementation for images.
KERNEL_WIDTH = 0.25
PENALTY = 1.0


@EXPLAINERS.register
class Lime(CaptumExplainer):
    """LIME (Ribeiro et al. 2016): a linear model of the logit in the presence of superpixels.

    Random superpixels get the mean colour, each with probability ½. The coefficient of a superpixel
    is the value of its pixels. The linear model is a ridge regression. An image weighs the more the
    more superpixels it keeps.

    Args:
        samples: number of perturbed images.
        segments: number of superpixels, approximately; small images have fewer.
    """

    name = "lime"
    title = "LIME"
    repetitions = "samples"
    signed = True
    options = {
        "samples": HParam(1000, doc="number of perturbed images", low=1, high=100_000),
        "segments": HParam(50, doc="number of superpixels, approximately", low=1, high=10_000),
    }

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        explainer = methods.Lime(
            scores, interpretable_model=RidgeRegression(), similarity_func=proximity
        )
        maps = []
        for i in range(len(image)):
            labels = superpixels(image[i], self.chosen["segments"])
            attribution = explainer.attribute(
                image[i : i + 1],
                baselines=0,
                target=target[i : i + 1],
                feature_mask=labels.to(image.device)[None, None],
                n_samples=self.chosen["samples"],
                perturbations_per_eval=IMAGES_PER_PASS,
            )
            maps.append(attribution[:, :1])
        return torch.cat(maps)


def superpixels(image: torch.Tensor, count: int) -> torch.Tensor:
    """Return the superpixels of an image by SLIC with adaptive compactness (Achanta et al. 2012).

    The scale of the pixel values does not matter. Images of three channels are compared in CIELAB.

    Args:
        image: float[C,H,W].
        count: number of superpixels, approximately.

    Returns:
        int64[H,W] on the CPU, every number from 0 to the largest.
    """
    from skimage.segmentation import slic  # It starts threads, which break later forks.

    pixels = image.detach().cpu().double().permute(1, 2, 0).numpy()
    span = pixels.max() - pixels.min()
    pixels = (pixels - pixels.min()) / (span if span > 0 else 1.0)
    labels = slic(
        pixels,
        n_segments=min(count, pixels.shape[0] * pixels.shape[1]),
        slic_zero=True,
        convert2lab=pixels.shape[2] == 3,
        channel_axis=-1,
        start_label=0,
    )
    _, numbers = np.unique(labels, return_inverse=True)
    return torch.from_numpy(numbers.reshape(labels.shape).astype(np.int64))


def proximity(
    image: torch.Tensor, perturbed: torch.Tensor, kept: torch.Tensor, **given: Any
) -> torch.Tensor:
    """Return exp(−d² / 2w²), where d is the cosine distance of ``kept`` from a vector of ones.

    Args:
        image: not used, nor is ``perturbed``; captum passes them.
        perturbed: the perturbed image.
        kept: float[1,M], 1 for superpixels that are kept and 0 for the others.
        given: further arguments of captum, which are not used.
    """
    distance = 1 - kept.double().mean().sqrt()
    return (-distance.square() / (2 * KERNEL_WIDTH**2)).exp()


class RidgeRegression:
    """min over w, b of Σ_n π_n (y_n − b − w·z_n)² + λ |w|², in the form that captum expects."""

    def __init__(self) -> None:
        self.coefficients = torch.empty(0)

    def fit(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Compute the coefficients from (z float[N,M], y float[N], π float[N]) in batches."""
        z, y, weight = (torch.cat(part).double() for part in zip(*batches, strict=True))
        share = weight / weight.sum()
        z = z - share @ z
        y = y - share @ y
        scaled = z * weight[:, None]
        gram = scaled.mT @ z + PENALTY * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        self.coefficients = torch.linalg.solve(gram, scaled.mT @ y)

    def representation(self) -> torch.Tensor:
        """Return w, float64[M]."""
        return self.coefficients
