"""Metrics of explanations against stored values of Quantus.

``tests/benchmarks/quantus_values.py`` wrote them, with Quantus 0.5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.explain import metrics

STORED = Path(__file__).with_name("quantus_values.npz")
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    with np.load(STORED) as file:
        assert str(file["version"]) == "0.5.3"
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "version"}


def network(stored: dict[str, torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def logits(image: torch.Tensor) -> torch.Tensor:
        z = image.flatten(1).double() @ stored["weight"].T
        return z + 0.3 * torch.sin(3 * z)

    return logits


def expect(stored: dict[str, torch.Tensor], name: str, found: torch.Tensor) -> None:
    expected = stored[f"expected/{name}"]
    assert len(expected) == 3 and len(set(expected.tolist())) > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_metrics_of_relevance_and_mask(stored: dict[str, torch.Tensor]) -> None:
    relevance, mask = stored["relevance"], stored["mask"]
    expect(stored, "rank", metrics.relevance_rank(relevance, mask))
    expect(stored, "mass", metrics.relevance_mass(relevance, mask))
    expect(stored, "pointing", metrics.pointing_game(relevance, mask))
    expect(stored, "complexity", metrics.complexity(relevance))
    expect(stored, "sparseness", metrics.sparseness(relevance))


def test_faithfulness_estimate(stored: dict[str, torch.Tensor]) -> None:
    # 196 pixels in 56 chunks are steps of 4, as Quantus was asked for
    found = metrics.faithfulness_estimate(
        network(stored), stored["image"], stored["relevance"], stored["target"]
    )
    expect(stored, "faithfulness", found)


def test_faithfulness_correlation(
    stored: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantus drew subsets for each image; ours get the same ones."""
    found = []
    runs, size = stored["subsets"].shape[1:]
    for i in range(len(stored["image"])):
        drawn = iter(stored["subsets"][i])
        monkeypatch.setattr(torch, "randperm", lambda *_, drawn=drawn, **__: next(drawn))
        part = slice(i, i + 1)
        found.append(
            metrics.faithfulness_correlation(
                network(stored),
                stored["image"][part],
                stored["relevance"][part],
                stored["target"][part],
                subsets=runs,
                subset_size=size,
            )
        )
    expect(stored, "faithfulness_correlation", torch.cat(found))
