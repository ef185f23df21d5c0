"""GALS: the evidence of a classifier is guided to where CLIP sees what a prompt describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from algorithms import _clip
from algorithms._attention_file import AttentionFile
from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Paper,
    RunSpec,
    Setting,
    TrainingRun,
)
from benchmark.explain import get
from benchmark.losses.precision import exact

#: Images that CLIP sees at a time, before training.
IMAGES_PER_PASS = 64


def normalised_attention(
    attention: torch.Tensor, size: tuple[int, int], authors: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Enlarge maps of attention to the size of the image, and normalise each.

    Args:
        attention: float[B,1,h,w], not negative.
        size: (H, W).
        authors: True for (a − min) / max, as in the authors' code, whose largest value is below 1
            unless the smallest is 0. False for (a − min) / (max − min).

    Returns:
        float[B,1,H,W] in [0, 1], and bool[B]: False for images whose map has the same value
        everywhere and so says nothing. The values of such a map are 0.
    """
    guided = attention.amax(dim=(1, 2, 3)) > attention.amin(dim=(1, 2, 3))
    large = F.interpolate(attention, size, mode="bilinear", align_corners=False)
    low = large.amin(dim=(1, 2, 3), keepdim=True)
    high = large.amax(dim=(1, 2, 3), keepdim=True)
    kept = guided[:, None, None, None]
    scale = torch.where(kept, high if authors else high - low, torch.ones_like(high))
    return torch.where(kept, (large - low) / scale, torch.zeros_like(large)), guided


def unguided_gradient(
    gradient: torch.Tensor, attention: torch.Tensor, guided: torch.Tensor
) -> torch.Tensor:
    """Return the mean of |g − g ⊙ A| over channels, pixels and guided images, a scalar.

    Args:
        gradient: g, float[B,C,H,W], the gradient of each image's own loss.
        attention: A, float[B,1,H,W] in [0, 1].
        guided: bool[B], the images with a map of attention. The result is 0 if there are none.
    """
    outside = (gradient - gradient * attention).abs().flatten(1).mean(1)
    return (outside * guided).sum() / guided.sum().clamp_min(1)


@ALGORITHMS.register
class GALS(Algorithm):
    """Cross-entropy + λ · mean |g − g ⊙ A|, g = ∂CE/∂x and A the attention of CLIP to the prompts.

    The attention is made once for each training image, before training: Grad-CAM of the product of
    the image embedding with that of a prompt at the last convolutional stage of a ResNet, or GAE of
    that product for a vision transformer. Maps of several prompts are averaged, without those that
    are zero everywhere. Images without a map are left out of the term. Maps that were made before
    can be read from a file instead; see ``_attention_file.py``.

    The gradient is that of each image's own cross-entropy, so that λ does not depend on the batch
    size. The authors' λ multiplies the gradient of a mean over a batch: 1e4 over 96 images
    (Waterbirds) and 100 over 16 (DogsWithTies, TEA paper).

    The attention is not transformed with the image, so that the data must not be augmented.
    """

    name = "gals"
    title = "GALS"
    paper = Paper(
        title="On guiding visual attention with language specification",
        authors="Petryk, Dunlap, Nasseri, Gonzalez, Darrell, Rohrbach",
        year=2022,
        url="https://arxiv.org/abs/2202.08926",
    )
    hparams = {
        "gradient_weight": HParam(
            100.0,
            LogUniform(0, 3),
            "λ, weight of the gradient outside the attention",
            low=0.0,
            high=1e9,
        ),
        "prompts": HParam(
            "", doc='descriptions of the object, separated by "|"; required without attention_file'
        ),
        "normalisation": HParam(
            "min_max",
            choices=("min_max", "authors"),
            doc="of the attention: (a − min) / (max − min), or the authors' (a − min) / max",
        ),
        "clip_model": HParam("RN50", doc=_clip.MODEL_DOC),
        "clip_weights": HParam("openai", doc=_clip.WEIGHTS_DOC),
        "attention_file": HParam(
            "", doc="file of attention maps that replaces CLIP (write_attention)", omit_default=True
        ),
    }
    variants = {
        "waterbirds": {
            "gradient_weight": 1e4 / 96,
            "prompts": "a photo of a bird|an image of a bird",
        },
        "dogs_with_ties": {
            "gradient_weight": 100 / 16,
            "prompts": "a photo of a dog|an image of a dog",
        },
        "authors": {"normalisation": "authors"},
    }
    may_be_zero = frozenset({"attention"})  # a batch may have no image with a map

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        #: Attention float[N,1,h,w] to the prompts in each training image, made by ``fit``.
        self.attention = torch.empty(0)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        file = spec.hparams.get("attention_file", "")
        if not file and not prompts_of(spec.hparams["prompts"]):
            return (
                "gals needs prompts that describe the object, such as "
                'prompts = "a photo of a bird|an image of a bird".'
            )
        if any(spec.augmentation.values()):
            return (
                "the attention of gals is not transformed with the image; leave out augmentation."
            )
        if file:
            return None if Path(file).is_file() else f"there is no attention_file {file}."
        return _clip.problem_with(info.image_size[0])

    @classmethod
    def without_files(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        replaced = "attention_file" if hparams.get("attention_file") else "clip_weights"
        return {**hparams, replaced: _clip.RANDOM}

    def fit(self, run: TrainingRun) -> None:
        self.attention = self.attend(run)
        super().fit(run)

    def attend(self, run: TrainingRun) -> torch.Tensor:
        """Return the attention to the object in each training image, float[N,1,h,w].

        It is that of CLIP to the prompts, or that of the file.
        """
        if self.hp["attention_file"]:
            return self.read_attention(run)
        prompts = prompts_of(self.hp["prompts"])
        device = next(self.network.parameters()).device
        scores = _clip.load_clip(self.hp["clip_model"], self.hp["clip_weights"], prompts).to(device)
        maps = [
            _clip.attention_to_texts(scores, self.pixel_values(images))
            for batch in run.batches("train")
            for images in batch.image.split(IMAGES_PER_PASS)
        ]
        return torch.cat(maps)

    def read_attention(self, run: TrainingRun) -> torch.Tensor:
        """Return the maps of the training images from the file, float[N,1,h,w]."""
        device = next(self.network.parameters()).device
        images = [
            (255 * self.pixel_values(batch.image)).round().to(torch.uint8).cpu()
            for batch in run.batches("train")
        ]
        if self.hp["attention_file"] == _clip.RANDOM:
            maps = torch.rand(sum(map(len, images)), 1, *self.setting.image_size[1:])
        else:
            file = AttentionFile(self.hp["attention_file"])
            maps = torch.from_numpy(file.of(torch.cat(images).numpy()))
        return maps.to(device)

    def pixel_values(self, image: torch.Tensor) -> torch.Tensor:
        """Return normalised images float[B,C,H,W] as values in [0, 1]."""
        mean = image.new_tensor(self.setting.mean)[:, None, None]
        std = image.new_tensor(self.setting.std)[:, None, None]
        return (image * std + mean).clamp(0, 1)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        trace = get("input_gradient").trace(
            self.network, batch.image, create_graph=True, track_statistics=self.training
        )
        losses = F.cross_entropy(exact(trace.logits), batch.label, reduction="none")
        gradient = trace.heatmap(losses)
        attention, guided = normalised_attention(
            self.attention[batch.index].to(gradient.dtype),
            self.setting.image_size[1:],
            authors=self.hp["normalisation"] == "authors",
        )
        outside = unguided_gradient(gradient, attention, guided)
        return {
            "classification": losses.mean(),
            "attention": self.hp["gradient_weight"] * outside,
        }

    def report(self) -> dict[str, Any]:
        """Return the number of training images with and without a map of attention."""
        flat = self.attention.flatten(1)
        guided = int((flat.amax(1) > flat.amin(1)).sum()) if len(flat) else 0
        return {"guided_images": guided, "unguided_images": len(flat) - guided}


def prompts_of(text: str) -> list[str]:
    """Return the prompts of a list that "|" separates, without empty ones."""
    return [prompt.strip() for prompt in text.split("|") if prompt.strip()]
