"""CLIP as a guide and as a teacher: how well an image fits a sentence, and where it shows that."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    "CLIP needs the package open_clip_torch, which is not installed; install it with "
    "pip install 'shortcutbed[clip]'."
)
#: Documentation of the hyper-parameters of the methods that load a CLIP model.
MODEL_DOC = (
    'a model of open_clip, such as "RN50" or "ViT-B-16" ("RN50-quickgelu" for a file of OpenAI\'s)'
)
WEIGHTS_DOC = "name of weights that open_clip downloads, or a file of weights"
#: In place of a file or of the name of weights: random values, for runs that are only timed.
RANDOM = "random"

Tokenizer = Callable[[list[str]], torch.Tensor]


def is_installed() -> bool:
    """Return True if the package open_clip can be imported."""
    return importlib.util.find_spec("open_clip") is not None


def problem_with(channels: int) -> str | None:
    """Return why CLIP cannot see images with this number of channels, or None if it can.

    The reason is a sentence for the user. It may also be that open_clip is not installed.
    """
    if channels not in (1, 3):
        return f"CLIP takes grey or colour images, and these have {channels} channels."
    return None if is_installed() else NOT_INSTALLED


class ImageTextScores(nn.Module):
    """The scalar products of an image embedding with the embeddings of texts.

    The network can be explained: by Grad-CAM and LRP if the image encoder is a ResNet, by GAE if it
    is a vision transformer. The image embedding is not normalised: the authors of GALS scale the
    text embedding by its norm instead, a factor that no normalised map depends on.

    Args:
        visual: image encoder, which computes float[B,D] from images float[B,3,S,S].
        text: float[P,D], the normalised embeddings of the texts.
        side: side S of the images that the encoder takes, in pixels.
        mean: mean of each channel that the encoder expects to be subtracted.
        std: standard deviation of each channel by which the encoder expects them to be divided.
        capabilities: explanations of this network.
    """

    mean: torch.Tensor
    std: torch.Tensor
    text: torch.Tensor

    def __init__(
        self,
        visual: nn.Module,
        text: torch.Tensor,
        side: int,
        mean: Sequence[float],
        std: Sequence[float],
        capabilities: Capabilities,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.side = side
        self.capabilities = capabilities
        self.register_buffer("text", text)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def cam_module(self) -> nn.Module:
        """Return the stage that Grad-CAM explains."""
        return self.get_submodule(self.capabilities.cam)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Return the embeddings float[B,D] of images float[B,C,H,W] with values in [0, 1].

        Images of another size are resized bicubically. Grey images get three channels. Values that
        the interpolation moves out of [0, 1] are clipped, which no gradient depends on.
        """
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        if tuple(image.shape[2:]) != (self.side, self.side):
            image = F.interpolate(
                image, (self.side, self.side), mode="bicubic", antialias=True, align_corners=False
            )
        image = image + (image.clamp(0, 1) - image).detach()
        return self.visual((image - self.mean) / self.std)  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores float[B,P] of images float[B,C,H,W] with values in [0, 1]."""
        return self.embed(image) @ self.text.T


def open_model(model: str, weights: str, *, load: bool = True) -> tuple[Any, Tokenizer]:
    """Return a CLIP model of open_clip and its tokenizer.

    Args:
        model: name of a model of open_clip, such as ``"RN50"``.
        weights: name of pretrained weights that open_clip downloads, such as ``"openai"``, or a
            file of weights.
        load: False for the architecture with random weights, for which nothing is read.

    Raises:
        UserError: If open_clip is not installed, or if it cannot load the model.
    """
    if not is_installed():
        raise UserError(NOT_INSTALLED)
    import open_clip

    with torch.random.fork_rng(), _quiet(not load):
        try:
            clip: Any = open_clip.create_model(
                model,
                pretrained=weights if load else None,
                force_quick_gelu=weights == "openai",
            )
            tokenize = open_clip.get_tokenizer(model)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"open_clip cannot load the model {model!r} with the weights {weights!r}: {error}"
            ) from None
    return clip, tokenize


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Silence the warning of open_clip that no weights were loaded, if ``quiet`` is true."""
    before = logging.root.manager.disable
    if quiet:
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def load_clip(model: str, weights: str, texts: Sequence[str]) -> ImageTextScores:
    """Load a CLIP model in evaluation mode, without gradients, with the embeddings of texts.

    Args:
        model: as for ``open_model``.
        weights: as for ``open_model``, or ``RANDOM``.
        texts: the texts.

    Raises:
        UserError: As for ``open_model``, or if the image encoder cannot be explained.
    """
    clip, tokenize = open_model(model, weights, load=weights != RANDOM)
    return scores_of(clip, tokenize, texts, model)


def clip_without_weights(model: str, weights: str, texts: int) -> ImageTextScores:
    """Return the result of ``load_clip`` for a number of texts, with random weights.

    A state dict can be loaded into it. The weights are not read.
    """
    clip, tokenize = open_model(model, weights, load=False)
    return scores_of(clip, tokenize, [""] * texts, model)


def scores_of(clip: Any, tokenize: Tokenizer, texts: Sequence[str], name: str) -> ImageTextScores:
    """Return the scores of texts by a CLIP model of open_clip.

    Args:
        clip: the model.
        tokenize: its tokenizer.
        texts: the texts.
        name: name of the model in messages.

    Raises:
        UserError: If the image encoder is neither a ResNet nor a vision transformer with a class
            token.
    """
    visual = clip.visual
    if hasattr(visual, "layer4"):
        capabilities = Capabilities(cam="visual.layer4", lrp=True)
    elif hasattr(visual, "class_embedding") and _uses_class_token(visual):
        capabilities = Capabilities(attention=True)
    else:
        raise UserError(
            f"the image encoder of {name} is neither a ResNet nor a vision transformer with a "
            "class token, so that its attention cannot be explained; use RN50 or ViT-B-16."
        )
    clip.eval().requires_grad_(False)
    with torch.no_grad():
        text = F.normalize(clip.encode_text(tokenize(list(texts))), dim=1)
    side = visual.image_size
    return ImageTextScores(
        visual,
        text,
        side if isinstance(side, int) else side[0],
        getattr(visual, "image_mean", None) or OPENAI_MEAN,
        getattr(visual, "image_std", None) or OPENAI_STD,
        capabilities,
    ).eval()


def _uses_class_token(visual: Any) -> bool:
    return visual.pool_type == "tok" and visual.attn_pool is None


def attention_to_texts(scores: ImageTextScores, image: torch.Tensor) -> torch.Tensor:
    """Return the mean over texts of the maps of their scores, float[B,1,h,w].

    Maps are those of Grad-CAM for a ResNet, and those of GAE for a vision transformer. For each
    image the mean is over the maps that are not zero everywhere. It is zero everywhere if there are
    none.

    Args:
        scores: the network.
        image: float[B,C,H,W], values in [0, 1].
    """
    explainer = get("gradcam" if scores.capabilities.cam else "gae")
    maps = []
    for text in range(len(scores.text)):
        trace = explainer.trace(scores, image)
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
