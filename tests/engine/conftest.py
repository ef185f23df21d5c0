"""Runs in this process compute with one thread, which is fastest for images this small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.threads import threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield
