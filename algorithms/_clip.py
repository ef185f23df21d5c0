"""CLIP as a guide: where an image shows what a sentence describes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core import UserError
from benchmark.explain import get
from benchmark.models.base import Capabilities

#: Channel means and standard deviations of the images of OpenAI's CLIP models.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
#: Message for a missing package.
NOT_INSTALLED = (
    "gals needs the package open_clip_torch, which is not installed; install it with "
    "pip install 'shortcutbed[clip]'."
)


def is_installed() -> bool:
    """Return True if the package open_clip can be imported."""
    return importlib.util.find_spec("open_clip") is not None


class ImageTextScores(nn.Module):
    """The scalar products of an image embedding with the embeddings of texts.

    The network can be explained by Grad-CAM. The image embedding is not normalised: the authors of
    GALS scale the text embedding by its norm instead, a factor that no normalised map depends on.

    Args:
        visual: image encoder with a convolutional ``stage``; computes float[B,D] from images
            float[B,3,S,S].
        stage: name of the last convolutional stage of the encoder.
        text: float[P,D], the normalised embeddings of the texts.
        side: side S of the images that the encoder takes, in pixels.
        mean: mean of each channel that the encoder expects to be subtracted.
        std: standard deviation of each channel by which the encoder expects them to be divided.
    """

    mean: torch.Tensor
    std: torch.Tensor
    text: torch.Tensor

    def __init__(
        self,
        visual: nn.Module,
        stage: str,
        text: torch.Tensor,
        side: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.visual = visual
        self.side = side
        self.capabilities = Capabilities(cam=f"visual.{stage}")
        self.register_buffer("text", text)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def cam_module(self) -> nn.Module:
        """Return the stage that Grad-CAM explains."""
        return self.get_submodule(self.capabilities.cam)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores float[B,P] of images float[B,C,H,W] with values in [0, 1].

        Images are resized bicubically to the side of the encoder. Grey images get three channels.
        """
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        image = F.interpolate(
            image, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False
        )
        embedded = self.visual((image.clamp(0, 1) - self.mean) / self.std)
        return embedded @ self.text.T  # type: ignore[no-any-return]


def load_clip(model: str, weights: str, texts: Sequence[str]) -> ImageTextScores:
    """Load a CLIP model with a ResNet as image encoder, in evaluation mode without gradients.

    Args:
        model: name of a model of open_clip, such as ``"RN50"``.
        weights: name of pretrained weights that open_clip downloads, such as ``"openai"``, or a
            file of weights.
        texts: the texts.

    Raises:
        UserError: If open_clip is not installed, if it cannot load the model, or if the image
            encoder is not a ResNet.
    """
    if not is_installed():
        raise UserError(NOT_INSTALLED)
    import open_clip

    with torch.random.fork_rng():
        try:
            clip: Any = open_clip.create_model(
                model, pretrained=weights, force_quick_gelu=weights == "openai"
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"open_clip cannot load the model {model!r} with the weights {weights!r}: {error}"
            ) from None
    return scores_of(clip, open_clip.get_tokenizer(model), texts, model)


def scores_of(
    clip: Any, tokenize: Callable[[list[str]], torch.Tensor], texts: Sequence[str], name: str
) -> ImageTextScores:
    """Return the scores of texts by a loaded CLIP model of open_clip.

    Args:
        clip: the model.
        tokenize: its tokenizer.
        texts: the texts.
        name: name of the model in messages.

    Raises:
        UserError: If the image encoder is not a ResNet.
    """
    visual = clip.visual
    if not hasattr(visual, "layer4"):
        raise UserError(
            f"the image encoder of {name} has no convolutional stage for Grad-CAM; use a model "
            "with a ResNet, such as RN50."
        )
    clip.eval().requires_grad_(False)
    with torch.no_grad():
        text = F.normalize(clip.encode_text(tokenize(list(texts))), dim=1)
    side = visual.image_size
    return ImageTextScores(
        visual,
        "layer4",
        text,
        side if isinstance(side, int) else side[0],
        getattr(visual, "image_mean", None) or OPENAI_MEAN,
        getattr(visual, "image_std", None) or OPENAI_STD,
    ).eval()


def attention_to_texts(scores: ImageTextScores, image: torch.Tensor) -> torch.Tensor:
    """Return the mean over texts of the Grad-CAM maps of their scores, float[B,1,h,w].

    For each image the mean is over the maps that are not zero everywhere. It is zero everywhere if
    there are none.

    Args:
        scores: the network.
        image: float[B,C,H,W], values in [0, 1].
    """
    gradcam = get("gradcam")
    maps = []
    for text in range(len(scores.text)):
        trace = gradcam.trace(scores, image)
        with torch.inference_mode(False), torch.enable_grad():
            score = trace.logits[:, text]
        maps.append(trace.heatmap(score))
    return mean_of_nonzero(torch.stack(maps))


def mean_of_nonzero(maps: torch.Tensor) -> torch.Tensor:
    """Return the mean over the first dimension of the maps that are not zero everywhere.

    Args:
        maps: float[P,B,1,h,w].

    Returns:
        float[B,1,h,w]; zeros for an image whose maps are all zero.
    """
    count = (maps.flatten(2) != 0).any(2).sum(0)
    return maps.sum(0) / count.clamp_min(1)[:, None, None, None]
