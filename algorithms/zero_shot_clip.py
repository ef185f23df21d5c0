"""Zero-shot CLIP: classes by their descriptions, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from algorithms import _clip
from benchmark.core import (
    ALGORITHMS,
    Algorithm,
    DatasetInfo,
    HParam,
    Paper,
    RunSpec,
    Setting,
    TrainingRun,
)
from benchmark.models.base import Backbone

#: The part of a prompt that the name of a class replaces.
PLACE = "{class}"


class ZeroShotNetwork(Backbone):
    """CLIP as a classifier whose last layer is the matrix of normalised text embeddings.

    The logits are the cosines between the embedding of an image and those of the texts, multiplied
    by the temperature. The features are the normalised embedding of the image. Its norm is a
    constant of every explanation: the cosine does not depend on the scale of the embedding, so that
    with a variable norm the relevance of the features would sum to 0.

    Not registered as a backbone: its weights are not trained.

    Args:
        scores: image encoder and text embeddings.
        temperature: factor of the cosines.
        image_size: (C, H, W) of the images.
        mean: mean of each channel that was subtracted from the values in [0, 1] of an image.
        std: standard deviation of each channel by which they were divided.
    """

    name = "zero_shot_clip"
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        scores: _clip.ImageTextScores,
        temperature: float,
        image_size: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        nn.Module.__init__(self)
        self.chosen = {"side": scores.side}
        self.image_size = image_size
        self.num_outputs, self.num_features = scores.text.shape
        self.capabilities = scores.capabilities  # type: ignore[misc]
        self.scores = scores
        self.temperature = temperature
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(self.num_features, self.num_outputs, bias=False)
        self.register_buffer("pixel_mean", torch.tensor(mean or [0.0])[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(std or [1.0])[:, None, None])
        self.take(scores)

    def take(self, scores: _clip.ImageTextScores) -> None:
        """Replace the weights and the text embeddings by those of another model of this shape."""
        self.scores.load_state_dict(scores.state_dict())
        with torch.no_grad():
            self.classifier.weight.copy_(self.temperature * scores.text)
        self.requires_grad_(False)

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """Return the normalised embeddings of images, as maps of one position float[B,D,1,1]."""
        embedded = self.scores.embed(image * self.pixel_std + self.pixel_mean)
        norm = embedded.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return (embedded / norm.detach())[:, :, None, None]

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return self.feature_map(image).flatten(1)

    def cam_module(self) -> nn.Module:
        return self.scores.cam_module()


@ALGORITHMS.register
class ZeroShotCLIP(Algorithm):
    """The class whose description fits the image best, by the cosine of the embeddings of CLIP.

    Nothing is trained: the budget and the shared hyper-parameters have no effect, and the only step
    that can be selected is step 0. It serves as a teacher whose training data do not have the bias
    of the data (TEA paper, F.3, where the temperature is 10).
    """

    name = "zero_shot_clip"
    title = "CLIP, zero-shot"
    paper = Paper(
        title="Learning transferable visual models from natural language supervision",
        authors="Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, "
        "Krueger, Sutskever",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
    )
    hparams = {
        "prompt": HParam(
            "",
            doc='description of a class, in which "{class}" is its name; or one description for '
            'each class, separated by "|"; required',
        ),
        "temperature": HParam(10.0, doc="factor of the cosines", low=1e-3, high=1e6),
        "clip_model": HParam("RN50", doc=_clip.MODEL_DOC),
        "clip_weights": HParam("openai", doc=_clip.WEIGHTS_DOC),
    }
    variants = {"dogs_with_ties": {"prompt": "a photo of a dog of the {class} breed"}}
    network: ZeroShotNetwork

    def __init__(self, setting: Setting) -> None:
        def build(**options: object) -> ZeroShotNetwork:
            hp = setting.hparams
            scores = _clip.clip_without_weights(
                hp["clip_model"], hp["clip_weights"], setting.num_classes
            )
            return ZeroShotNetwork(
                scores, hp["temperature"], setting.image_size, setting.mean, setting.std
            )

        super().__init__(replace(setting, build_network=build))

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        prompt = spec.hparams["prompt"]
        classes = len(info.label_names)
        if not prompt.strip():
            return (
                "zero_shot_clip needs a prompt that describes the classes, such as "
                'prompt = "a photo of a {class}".'
            )
        found = len(descriptions(prompt, info.label_names))
        if found != classes:
            return (
                f"the prompt of zero_shot_clip describes {found} classes, and the data has "
                f'{classes}; write "{PLACE}" in place of their names, or separate {classes} '
                'descriptions by "|".'
            )
        return _clip.problem_with(info.image_size[0])

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        return 1  # nothing is trained

    @classmethod
    def without_files(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        return {**hparams, "clip_weights": _clip.RANDOM}

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    @torch.no_grad()
    def fit(self, run: TrainingRun) -> None:
        texts = descriptions(self.hp["prompt"], self.setting.label_names)
        self.network.take(_clip.load_clip(self.hp["clip_model"], self.hp["clip_weights"], texts))
        self.network.eval()
        losses = []
        for batch in run.batches("val"):
            logits = self.predict(batch.image)
            losses.append(F.cross_entropy(logits, batch.label, reduction="none"))
        run.log({"validation": torch.cat(losses).mean()})


def descriptions(prompt: str, label_names: Sequence[str]) -> list[str]:
    """Return the texts that a prompt stands for.

    Args:
        prompt: a text with ``{class}``, or texts that "|" separates.
        label_names: names of the classes. In the text, their underscores are spaces.
    """
    if PLACE in prompt:
        return [prompt.replace(PLACE, name.replace("_", " ")).strip() for name in label_names]
    return [text.strip() for text in prompt.split("|")]
