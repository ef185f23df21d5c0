"""Extremal perturbations: the smooth mask of a given area that keeps most of a class's score."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.evaluation import EvaluationExplainer, Scores

#: Side of the images of the paper, in which its lengths in pixels are stated.
_PAPER_SIDE = 224
#: Distance of the parameters of a mask, and radius of its smoothing, in pixels of the paper.
_SPACING = 7
_RADIUS = 21
#: Standard deviation of the strongest blur, in pixels of the paper, and number of strengths.
_BLUR = 20
_LEVELS = 8
#: Inverse temperature of the smooth maximum.
_COLDNESS = 20
#: Gradient ascent with momentum, and the growth of the weight of the area in each step.
_RATE = 0.01
_MOMENTUM = 0.9
_GROWTH = 1.0035
#: Differences that are rounding errors.
_TIE = 1e-6
#: Values of a smooth maximum that are computed together, at most.
_VALUES_PER_PASS = 2**25


@EXPLAINERS.register
class ExtremalPerturbation(EvaluationExplainer):
    """Extremal perturbation with a smooth mask (Fong, Patrick & Vedaldi 2019), float[B,1,H,W].

    The mask maximises z_c(m ⊗ x) − max_{k≠c} z_k(m ⊗ x) − λ ‖sort(m) − r‖² / P for the logits z
    (the contrastive reward), where r has a share ``area`` of ones, zeros elsewhere, and P is the
    number of pixels. Where the mask is 0, the image m ⊗ x is blurred. Spacing, radius and blur of
    the paper are scaled from 224 pixels to the image.

    Args:
        area: share of the image that the mask keeps.
        steps: steps of the gradient ascent.
        weight: λ in the first step.
    """

    name = "extremal_perturbation"
    title = "Smooth pixel mask"
    repetitions = "steps"
    options = {
        "area": HParam(0.05, doc="share of the image that the mask keeps", low=0.001, high=0.999),
        "steps": HParam(800, doc="steps of the gradient ascent", low=1, high=100_000),
        "weight": HParam(300.0, doc="weight of the area in the first step", low=0.0, high=1e6),
    }

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        smoother = _Smoother(image.shape[2], image.shape[3], image)
        size = max(_VALUES_PER_PASS // smoother.weight.numel(), 1)
        with torch.enable_grad():
            masks = [
                self._best_masks(scores, smoother, part, classes)
                for part, classes in zip(
                    image.clone().split(size), target.clone().split(size), strict=True
                )
            ]
        return torch.cat(masks)

    def _best_masks(
        self, scores: Scores, smoother: _Smoother, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Return the masks float[B,1,H,W] of images float[B,C,H,W] and classes int64[B]."""
        kept = max(round(image[0, 0].numel() * self.chosen["area"]), 1)
        goal = smoother.weight.new_zeros(smoother.weight[0].numel())
        goal[len(goal) - kept :] = 1
        blurred = blurred_levels(image)
        parameters = smoother.start(len(image)).requires_grad_()
        velocity = torch.zeros_like(parameters)
        weight = self.chosen["weight"]
        for step in range(self.chosen["steps"]):
            canvas = smoother(parameters)
            shown = blend(blurred, smoother.cut(canvas))
            if step % 2 == 0:  # mirrored in every second step, as in the authors' code
                shown = shown.flip(3)
            logits = scores(shown)
            own = logits.gather(1, target[:, None])[:, 0]
            other = logits.scatter(1, target[:, None], -math.inf).amax(1)
            flat = canvas.flatten(1)
            area = (flat - _by_rank(flat, goal)).square().mean(1)
            (gradient,) = torch.autograd.grad((own - other - weight * area).sum(), parameters)
            velocity = _MOMENTUM * velocity + (1 - _MOMENTUM) * gradient
            with torch.no_grad():
                parameters += _RATE * velocity
                parameters.clamp_(0, 1)
            weight *= _GROWTH
        with torch.no_grad():
            return smoother.cut(smoother(parameters))


def _by_rank(value: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Return the entry of a sorted goal float[P] for each value float[B,P] by its rank.

    Equal values have the mean of their entries, since otherwise the order of the pixels would
    decide which part of a constant mask is kept.
    """
    value = value.detach()
    ordered, order = value.sort(stable=True, dim=1)
    total = F.pad(goal.cumsum(0), (1, 0))
    first = torch.searchsorted(ordered, ordered - _TIE, right=False)
    last = torch.searchsorted(ordered, ordered + _TIE, right=True)
    mean = (total[last] - total[first]) / (last - first)
    return torch.empty_like(value).scatter(1, order, mean)


class _Smoother:
    """Masks from a coarse grid of parameters by a smooth maximum over weighted neighbours.

    m(u) = Σ_i v_i exp(20 v_i) / Σ_i exp(20 v_i) with v_i = k(|u − u_i| / r) p_i over the points i
    of the grid near u, and k(z) = exp(−2 max(z − ½, 0)²). The mask has a margin around the image,
    so that parameters at its border have the same influence on the area as others.

    Args:
        height: height of the images.
        width: width of the images.
        like: a tensor with the device and the type of the masks.
    """

    def __init__(self, height: int, width: int, like: torch.Tensor) -> None:
        side = min(height, width)
        self.size = (height, width)
        self.spacing = max(round(side * _SPACING / _PAPER_SIDE), 1)
        self.grid = (-(-height // self.spacing), -(-width // self.spacing))
        radius = max(side * _RADIUS / _PAPER_SIDE, 1.0)
        self.reach = math.ceil(2 * radius / self.spacing)
        offsets = torch.arange(-self.reach, self.reach + 1)
        # the distance from a pixel to the points around its own cell, along each axis
        inside = torch.arange(self.spacing) - (self.spacing - 1) / 2
        along = (offsets[:, None] * self.spacing - inside[None]).double().square()
        down = along[:, None, :, None]
        right = along[None, :, None, :]
        distance = (down + right).sqrt() / radius
        kernel = torch.exp(-2 * (distance - 0.5).clamp(min=0).square())
        cells = [count + 2 * self.reach for count in self.grid]
        #: Weight of each neighbour of each pixel, float[N,H + margins,W + margins].
        self.weight = kernel.flatten(0, 1).repeat(1, *cells).to(like)

    def start(self, count: int) -> torch.Tensor:
        """Return the parameters of masks that keep everything, float[B,1,h,w]."""
        return self.weight.new_ones(count, 1, *self.grid)

    def __call__(self, parameters: torch.Tensor) -> torch.Tensor:
        """Return masks with margins, float[B,1,H + margins,W + margins].

        Args:
            parameters: float[B,1,h,w], from 0 to 1.
        """
        cells = [count + 2 * self.reach for count in self.grid]
        neighbours = F.unfold(parameters, 2 * self.reach + 1, padding=2 * self.reach)
        neighbours = neighbours.unflatten(2, cells)
        for axis in (2, 3):
            neighbours = neighbours.repeat_interleave(self.spacing, axis)
        values = neighbours * self.weight
        return (values * (_COLDNESS * values).softmax(1)).sum(1, keepdim=True)

    def cut(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a mask without its margins, float[B,1,H,W]."""
        margin = self.reach * self.spacing
        height, width = self.size
        return mask[:, :, margin : margin + height, margin : margin + width]


def blurred_levels(image: torch.Tensor) -> torch.Tensor:
    """Return images from the most blurred to the sharp one, float[L,B,C,H,W]."""
    side = min(image.shape[2:])
    levels = []
    for k in range(_LEVELS - 1):
        deviation = side * _BLUR / _PAPER_SIDE * (1 - k / (_LEVELS - 1))
        reach = min(math.ceil(3 * deviation), side - 1)
        levels.append(gaussian_blur(image, [2 * reach + 1] * 2, [deviation] * 2))
    return torch.stack([*levels, image])


def blend(levels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return images that are as sharp as a mask says, by linear interpolation between levels.

    Args:
        levels: float[L,B,C,H,W], from the most blurred image to the sharp one.
        mask: float[B,1,H,W], 0 for the most blurred image, 1 for the sharp one.

    Returns:
        float[B,C,H,W].
    """
    last = len(levels) - 1
    number = torch.arange(len(levels), device=mask.device, dtype=mask.dtype)
    weight = (1 - (last * mask[None] - number.view(-1, 1, 1, 1, 1)).abs()).clamp(min=0)
    return (weight * levels).sum(0)
