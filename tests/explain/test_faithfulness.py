"""Faithfulness and the randomisation check against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from benchmark import explain
from benchmark.explain.metrics import (
    faithfulness_correlation,
    faithfulness_estimate,
    randomization_check,
)
from tests.support.networks import backbone, images

SIZE = (3, 8, 8)
TARGET = torch.tensor([1, 0, 2])


def model() -> torch.nn.Module:
    network: torch.nn.Module = backbone("convnet", SIZE, classes=3, width=4)
    return network


def maps(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 8, 8, dtype=torch.float64, generator=generator)


def drop(network: torch.nn.Module, image: torch.Tensor, k: int, pixels: list[int]) -> float:
    changed = image.clone()
    for pixel in pixels:
        changed[:, pixel // 8, pixel % 8] = image.min()
    with torch.no_grad():
        logits = network(torch.stack([image, changed]))
    return float(logits[0, k] - logits[1, k])


@pytest.mark.parametrize("chunks", [5, 56, 64])
def test_estimate_against_loops(chunks: int) -> None:
    network = model()
    image = images(SIZE, 3)
    relevance = maps()
    step = math.ceil(64 / chunks)
    expected = []
    for b in range(3):
        order = np.argsort(-relevance[b].numpy().ravel(), kind="stable").tolist()
        parts = [order[i : i + step] for i in range(0, 64, step)]
        sums = [relevance[b].flatten()[part].sum().item() for part in parts]
        drops = [drop(network, image[b], int(TARGET[b]), part) for part in parts]
        expected.append(pearsonr(sums, drops)[0])
    found = faithfulness_estimate(network, image, relevance, TARGET, chunks=chunks)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_correlation_against_loops() -> None:
    network = model()
    image = images(SIZE, 3)
    relevance = maps()
    generator = torch.Generator().manual_seed(4)
    subsets = [torch.randperm(64, generator=generator)[:10].tolist() for _ in range(20)]
    expected = []
    for b in range(3):
        sums = [relevance[b].flatten()[subset].sum().item() for subset in subsets]
        drops = [drop(network, image[b], int(TARGET[b]), subset) for subset in subsets]
        expected.append(pearsonr(sums, drops)[0])
    found = faithfulness_correlation(
        network,
        image,
        relevance,
        TARGET,
        subsets=20,
        subset_size=10,
        generator=torch.Generator().manual_seed(4),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_linear_model_is_explained_faithfully_by_its_own_terms() -> None:
    weight = maps(1).flatten(1).T  # [64,3]
    image = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    image[:, 0, 0, 0] = 0  # the smallest value, so that a drop is the term itself
    terms = image[:, 0] * weight.T[TARGET].view(3, 8, 8)
    found = faithfulness_estimate(lambda x: x.flatten(1) @ weight, image, terms, TARGET)
    np.testing.assert_allclose(found, 1.0, rtol=1e-9)


def test_constant_maps_and_constant_models_are_undefined() -> None:
    image = images(SIZE, 3)
    relevance = maps()
    relevance[1] = 0.3
    found = faithfulness_estimate(model(), image, relevance, TARGET, chunks=8)
    assert found.isnan().tolist() == [False, True, False]
    zeros = faithfulness_estimate(
        lambda x: torch.zeros(len(x), 3, dtype=torch.float64), image, maps(), TARGET
    )
    assert zeros.isnan().all()
    with pytest.raises(ValueError, match=r"\[3, 8, 8\]"):
        faithfulness_estimate(model(), image, relevance[:, :4], TARGET)


def test_randomisation_from_the_last_layer_to_the_first() -> None:
    network = model()
    image = images(SIZE, 3)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    found = randomization_check(explain.get("lrp"), network, image, TARGET, generator=generator)
    names = [name for name, m in network.named_modules() if any(True for _ in m.parameters(False))]
    assert list(found) == names[::-1]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    # the first step by hand: only the last layer is random
    generator.manual_seed(0)
    before = explain.get("lrp")(network, image, TARGET).sum(1).abs()
    with torch.no_grad():
        for parameter in (network.classifier.weight, network.classifier.bias):
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.copy_(parameter.mean() + parameter.std() * noise)
    after = explain.get("lrp")(network, image, TARGET).sum(1).abs()
    expected = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(found["classifier"], expected, rtol=1e-9)
    assert found["classifier"].mean() < 0.95


def test_a_map_that_ignores_the_network_passes_no_randomisation_check() -> None:
    found = randomization_check(
        lambda network, image, target: image, model(), images(SIZE, 3), TARGET
    )
    for similarity in found.values():
        np.testing.assert_allclose(similarity, 1.0)
