"""Heatmaps of a network in training mode do not depend on its dropout, nor do their logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from algorithms.ex2l import EX2L
from benchmark import explain
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.errors import UserError
from benchmark.core.registry import EXPLAINERS
from tests.support.networks import backbone, images
from tests.support.tiny import build, make_batch

SIZE = (3, 16, 16)
TARGET = torch.tensor([1, 0, 1])
#: Explainers that run the network in training mode; the others always use evaluation mode.
DIFFERENTIABLE = [
    name
    for name in EXPLAINERS.names()
    if EXPLAINERS.get(name).differentiable and name not in ("gae", "rollout", "native", "bcos")
]


class Noisy(nn.Module):
    """A layer that drops features in each of the ways of torch and torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(0.5)
        self.depth = StochasticDepth(0.5, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth(self.dropout(x))
        return F.dropout(x, 0.5, self.training)


def noisy_network() -> Any:
    """A small convnet in training mode with random layers in its body and before its head."""
    model = backbone("convnet", SIZE, classes=3, width=4, dropout=0.5)
    model.body.insert(3, Noisy())
    return model.train()


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_two_passes_give_the_same_heatmap_and_logits(name: str, create_graph: bool) -> None:
    model = noisy_network()
    image = images(SIZE, 3)
    before = modes(model)
    assert not torch.equal(model(image), model(image))
    explainer = explain.get(name)
    pairs = [
        explainer.with_logits(model, image, lambda _: TARGET, create_graph=create_graph)
        for _ in range(2)
    ]
    assert torch.equal(pairs[0][0], pairs[1][0]) and pairs[0][0].any()
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert modes(model) == before


def test_batch_normalisation_keeps_the_statistics_of_the_batch() -> None:
    """The logits are those of training mode with every dropout layer alone in evaluation mode."""
    model = noisy_network()
    image = images(SIZE, 3)
    logits = explain.get("lrp").trace(model, image).logits
    for module in model.modules():
        module.training = isinstance(module, BATCH_NORMS)
    torch.testing.assert_close(logits, model(image))
    model.eval()
    assert not torch.allclose(logits, model(image))


def test_modes_are_restored_after_an_error() -> None:
    model = noisy_network()
    before = modes(model)
    with pytest.raises(UserError):
        explain.get("gradcam").trace(model, images(SIZE, 3)[:, :1])
    assert modes(model) == before


@pytest.mark.parametrize("method", ["ex2l", "rrr", "gain", "isnet"])
def test_classification_loss_of_an_explained_pass_has_no_dropout(method: str) -> None:
    """The pass that is explained also gives the classification loss, which is deterministic."""
    algorithm = build(method, dropout=0.5)
    batch = make_batch()
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(algorithm.loss(batch)["classification"].item())
    assert losses[0] == losses[1]
    torch.manual_seed(3)
    dropped = F.cross_entropy(algorithm.network(batch.image), batch.label).item()
    assert dropped != losses[0]


def test_ex2l_maps_do_not_depend_on_dropout() -> None:
    algorithm: EX2L = build("ex2l", dropout=0.5)
    plain: EX2L = build("ex2l", dropout=0.0)
    plain.load_state_dict(algorithm.state_dict())
    batch = make_batch()
    assert torch.equal(
        algorithm.explain(algorithm.network, batch.image, batch.label)[0],
        plain.explain(plain.network, batch.image, batch.label)[0],
    )
