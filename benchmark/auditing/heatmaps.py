"""Heatmaps of marked images, as an illustration of an audit."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmark.auditing.answers import AuditImages
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.pull import Mark, planted_image
from benchmark.core.errors import UserError
from benchmark.core.seeds import seed_for
from benchmark.core.speed.seeding import seed_generators
from benchmark.engine.explanations import pixel_map
from benchmark.explain import get

#: Explainers in the order in which they are tried; the first three that suit the network are shown.
_TRIED = ("lrp", "gradcam", "gae", "input_gradient", "rise:masks=500", "gradient_x_input")
#: Those of a model that only returns scores.
_TRIED_ON_SCORES = ("rise:masks=500", "occlusion", "lime:samples=500")
_SHOWN = 3
_MAX_IMAGES = 32
#: Images of explainers that call the model hundreds of times for each.
_MAX_IMAGES_OF_MANY_PASSES = 8


@dataclass(frozen=True)
class Heatmaps:
    """Heatmaps of images with the mark of another class.

    Attributes:
        mark: The mark.
        area: Share of the image that the mark covers.
        shares: Mean share of the absolute relevance that lies on the mark, by explainer.
        maps: float32[N,H,W] by explainer, of the first N marked images.
        marked: The marked images, uint8[N,C,H,W].
    """

    mark: Mark
    area: float
    shares: dict[str, float]
    maps: dict[str, np.ndarray]
    marked: np.ndarray


class _Scored(nn.Module):
    """A model that only returns scores, as a module without gradients.

    It takes images float[N,C,H,W] from which the mean colour of the given images is subtracted,
    so that 0 is the colour with which explainers cover pixels.

    Args:
        model: the model.
        pixels: uint8[N,C,H,W].
    """

    def __init__(self, model: AuditedModel, pixels: np.ndarray) -> None:
        super().__init__()
        self.scores = model.scores
        mean = pixels.mean((0, 2, 3), keepdims=True)
        self.colour = torch.from_numpy(mean.astype(np.float32))

    def prepare(self, pixels: np.ndarray) -> torch.Tensor:
        """Return images uint8[N,C,H,W] as the module takes them."""
        return torch.from_numpy(pixels.astype(np.float32)) - self.colour

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pixels = (image.detach() + self.colour).round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(self.scores(pixels.numpy()).astype(np.float32))


def explain_marks(
    model: AuditedModel, images: AuditImages, mark: Mark, probed: list[int]
) -> Heatmaps | None:
    """Explain why a model gives marked images the class of the mark.

    A model without a network is explained by its scores.

    Returns:
        None if no explainer suits the model.
    """
    some = AuditImages(
        images.pixels[:_MAX_IMAGES],
        images.truth[:_MAX_IMAGES],
        None if images.mask is None else images.mask[:_MAX_IMAGES],
        None,
        images.multi_label,
    )
    label = probed[0]
    planted = planted_image(some, mark, label)
    if model.network is None or model.prepare is None:
        scored = _Scored(model, some.pixels)
        network: nn.Module = scored
        image = scored.prepare(planted.image)
        output = label
        tried: tuple[str, ...] = _TRIED_ON_SCORES
    else:
        network = model.network
        image = model.prepare(planted.image)
        output = model.outputs[label] if model.outputs else label
        tried = _TRIED
    target = torch.full((len(image),), output, device=image.device)
    shares: dict[str, float] = {}
    maps: dict[str, np.ndarray] = {}
    for given in tried:
        if len(shares) == _SHOWN:
            break
        name, _, option = given.partition(":")
        options = dict([option.split("=")]) if option else {}
        most = _MAX_IMAGES_OF_MANY_PASSES if given in _TRIED_ON_SCORES else _MAX_IMAGES
        try:
            with torch.random.fork_rng():
                seed_generators(seed_for("audit heatmaps", name))
                explainer = get(name, **{key: int(value) for key, value in options.items()})
                heatmap = explainer(network, image[:most], target[:most])
        except (UserError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            # A network of the user may lack what the explainer needs.
            print(f"no heatmaps by {name}: {error}", file=sys.stderr)
            continue
        pixels = pixel_map(heatmap, image.shape[2:]).float().cpu().numpy()
        total = np.abs(pixels).sum((1, 2))
        inside = (np.abs(pixels) * planted.pasted[:most, 0]).sum((1, 2))
        defined = (total > 0) & np.isfinite(total)
        if defined.any():
            shares[name] = float((inside[defined] / total[defined]).mean())
            maps[name] = pixels
    if not shares:
        return None
    return Heatmaps(mark, float(planted.pasted.mean()), shares, maps, planted.image)
