"""Heatmaps of marked images, as an illustration of an audit."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.auditing.answers import AuditImages
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.pull import Mark, planted_image
from benchmark.core.errors import UserError
from benchmark.core.seeds import seed_for
from benchmark.core.speed.seeding import seed_generators
from benchmark.engine.explanations import pixel_map
from benchmark.explain import get

#: Explainers in the order in which they are tried; the first three that suit the network are shown.
_TRIED = ("lrp", "gradcam", "gae", "input_gradient", "rise:masks=500")
_SHOWN = 3
_MAX_IMAGES = 32


@dataclass(frozen=True)
class Heatmaps:
    """Heatmaps of images with the mark of another class.

    Attributes:
        mark: The mark.
        area: Share of the image that the mark covers.
        shares: Mean share of the absolute relevance that lies on the mark, by explainer.
        maps: float32[N,H,W] by explainer.
        marked: The marked images, uint8[N,C,H,W].
    """

    mark: Mark
    area: float
    shares: dict[str, float]
    maps: dict[str, np.ndarray]
    marked: np.ndarray


def explain_marks(
    model: AuditedModel, images: AuditImages, mark: Mark, probed: list[int]
) -> Heatmaps | None:
    """Explain why a model gives marked images the class of the mark.

    Returns:
        None for a model without a network, or if no explainer suits it.
    """
    if model.network is None or model.prepare is None:
        return None
    some = AuditImages(
        images.pixels[:_MAX_IMAGES],
        images.truth[:_MAX_IMAGES],
        None if images.mask is None else images.mask[:_MAX_IMAGES],
        None,
        images.multi_label,
    )
    label = probed[0]
    planted = planted_image(some, mark, label)
    image = model.prepare(planted.image)
    target = torch.full((len(image),), label, device=image.device)
    shares: dict[str, float] = {}
    maps: dict[str, np.ndarray] = {}
    for given in _TRIED:
        if len(shares) == _SHOWN:
            break
        name, _, option = given.partition(":")
        options = dict([option.split("=")]) if option else {}
        try:
            with torch.random.fork_rng():
                seed_generators(seed_for("audit heatmaps", name))
                explainer = get(name, **{key: int(value) for key, value in options.items()})
                heatmap = explainer(model.network, image, target)
        except (UserError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            # A network of the user may lack what the explainer needs.
            print(f"no heatmaps by {name}: {error}", file=sys.stderr)
            continue
        pixels = pixel_map(heatmap, image.shape[2:]).float().cpu().numpy()
        total = np.abs(pixels).sum((1, 2))
        inside = (np.abs(pixels) * planted.pasted[:, 0]).sum((1, 2))
        defined = (total > 0) & np.isfinite(total)
        if defined.any():
            shares[name] = float((inside[defined] / total[defined]).mean())
            maps[name] = pixels
    if not shares:
        return None
    return Heatmaps(mark, float(planted.pasted.mean()), shares, maps, planted.image)
