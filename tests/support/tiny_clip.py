"""A tiny random CLIP in place of a model of open_clip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from algorithms import _clip
from algorithms._clip import ImageTextScores, scores_of

#: Side of the images that the tiny image encoder takes.
SIDE = 16


class TinyImageEncoder(nn.Module):
    """An image encoder with the names of open_clip's ResNets: float[B,3,16,16] to float[B,5]."""

    image_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.layer4 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.attnpool = nn.Linear(6 * 4 * 4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.attnpool(self.layer4(self.stem(image).relu()).flatten(1))


class TinyCLIP(nn.Module):
    """A random network with the methods of a CLIP model that GALS uses."""

    def __init__(self) -> None:
        super().__init__()
        self.visual: Any = TinyImageEncoder()
        self.tokens = nn.Embedding(128, 5)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.tokens(tokens).mean(1)


def tokenize(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(letter) for letter in text.ljust(60)[:60]] for text in texts])


def tiny_scores(texts: tuple[str, ...] = ("a photo of a bird", "an image")) -> ImageTextScores:
    torch.manual_seed(0)
    return scores_of(TinyCLIP(), tokenize, texts, "tiny")


def use_tiny_clip(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """Replace every model of open_clip by the tiny one; return the models that were asked for.

    The tiny model has the same random weights whenever weights are loaded, and others otherwise.
    """
    asked = []

    def open_model(model: str, weights: str, *, load: bool = True) -> tuple[Any, Any]:
        asked.append((model, weights, load))
        with torch.random.fork_rng():
            torch.manual_seed(0 if load else 1)
            return TinyCLIP(), tokenize

    monkeypatch.setattr(_clip, "is_installed", lambda: True)
    monkeypatch.setattr(_clip, "open_model", open_model)
    return asked
