"""Methods that use CLIP get a tiny random one, whether or not open_clip is installed."""

from __future__ import annotations

import pytest

from tests.support.tiny_clip import use_tiny_clip


@pytest.fixture(autouse=True)
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_clip(monkeypatch)
