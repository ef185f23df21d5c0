"""Grad-CAM of a linear layer on means: the closed form against a backward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark import explain
from benchmark.core.registry import BACKBONES
from benchmark.explain import gradcam
from tests.support.networks import backbone, images

SIZE = (3, 16, 16)
TARGET = torch.tensor([1, 0, 1])


def map_and_gradients(
    name: str, constant: bool, model: Any, image: torch.Tensor
) -> list[torch.Tensor]:
    """Return the map, and the gradient of a loss of map and logits at every weight."""
    model.zero_grad()
    chosen = explain.get(name, constant_weights=constant)
    cam, logits = chosen.with_logits(model, image, lambda _: TARGET, create_graph=True)
    (cam.square().sum() + logits.square().sum()).backward()
    return [
        cam.detach(),
        *(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()),
    ]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", ["gradcam", "gradcam++"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_closed_form_is_the_gradient(
    classes: int, name: str, constant: bool, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = (
        backbone("convnet", SIZE, classes=classes, width=4).train(training),
        images(SIZE, 3),
    )
    assert gradcam.is_linear_in_means(model)
    closed = map_and_gradients(name, constant, model, image)
    monkeypatch.setattr(gradcam, "is_linear_in_means", lambda model: False)
    monkeypatch.setattr(gradcam, "gradient_of_linear_head", None)
    for ours, theirs in zip(closed, map_and_gradients(name, constant, model, image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert closed[0].any()


@pytest.mark.parametrize("name", ["alexnet", "convnext_base"])
def test_other_heads_take_the_backward_pass(name: str) -> None:
    with torch.device("meta"):  # its weights do not matter
        model = BACKBONES.get(name)(3, (3, 64, 64))
    assert not gradcam.is_linear_in_means(model)


def test_a_network_of_somebody_else_takes_the_backward_pass() -> None:
    assert not gradcam.is_linear_in_means(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_statistics_are_tracked_once_when_no_rule_is_needed() -> None:
    """A training step asks for a plain forward pass: running statistics move as they do in one."""
    model, image = backbone("convnet", SIZE, classes=3, width=4).train(), images(SIZE, 3)
    again = backbone("convnet", SIZE, classes=3, width=4).train()
    explain.get("gradcam", constant_weights=True).with_logits(
        model, image, lambda _: TARGET, create_graph=True, track_statistics=True
    )
    again(image)
    for ours, theirs in zip(model.buffers(), again.buffers(), strict=True):
        assert torch.equal(ours, theirs)
