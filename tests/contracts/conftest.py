"""Methods that use CLIP or ViT-B get tiny ones, whether or not open_clip is installed."""

from __future__ import annotations

import pytest

import algorithms.attention_networks
from tests.support.every_algorithm import SMALL_VIT
from tests.support.tiny_clip import use_tiny_clip


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_clip(monkeypatch)
    monkeypatch.setattr(algorithms.attention_networks, "VIT_B", SMALL_VIT)
