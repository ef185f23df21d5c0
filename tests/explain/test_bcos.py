"""Contributions of B-cos networks: they sum to the logit, and their derivative is exact."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from benchmark import explain
from benchmark.core.errors import UserError
from benchmark.engine.explanations import choose_explainer
from benchmark.models.bcos import BcosConv2d
from tests.models.test_bcos import NAMES, network
from tests.support.networks import backbone

TARGET = torch.tensor([1, 0, 2])
SIDE = 16


def convnet(**options: Any) -> Any:
    model = network("bcos_convnet", SIDE, width=2, **options)
    model.set_normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    return model


def images(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_contributions_sum_to_the_logit_without_its_bias(name: str) -> None:
    options = {"small_stem": True} if name == "bcos_densenet121" else {}
    model = network(name, SIDE, channels=1, **options)
    image = torch.rand(2, 1, SIDE, SIDE, dtype=torch.float64)
    target = torch.tensor([3, 0])
    heatmap, logits = explain.get("bcos").with_logits(model, image, lambda z: target)
    assert heatmap.shape == image.shape and not heatmap.requires_grad
    torch.testing.assert_close(logits, model(image).detach())
    expected = (logits - model.classifier.bias).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(heatmap.sum((1, 2, 3)), expected, rtol=1e-9, atol=1e-12)


def test_contributions_are_the_input_times_the_matrix_at_the_image() -> None:
    """With every |cos| and scale fixed to its value at the image, the network is linear."""
    model, image = convnet(), images()
    heatmap = explain.get("bcos")(model, image, TARGET)
    encoded = model.encode(image).requires_grad_()
    x = encoded
    for layer in [*model.layers, model.last]:
        if isinstance(layer, BcosConv2d):
            weight = layer.weight / layer.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            linear = torch.conv2d(x, weight, None, layer.stride, layer.padding)
            x = linear * (layer(x) / linear).detach()
        else:
            x = layer(x)
    score = x.mean((2, 3)).gather(1, TARGET[:, None]).sum()
    (row,) = torch.autograd.grad(score, encoded)
    torch.testing.assert_close(heatmap, (encoded * row).sum(1, keepdim=True).detach())


def test_derivative_of_a_loss_of_the_contributions() -> None:
    """Against finite differences: also |cos| and the batch's scales move with the weights."""
    model, image = convnet().train(), images()
    explainer = explain.get("bcos")
    weighting = torch.randn(3, 1, SIDE, SIDE, dtype=torch.float64)

    def loss() -> torch.Tensor:
        heatmap, logits = explainer.with_logits(
            model, image, lambda z: TARGET, create_graph=True, track_statistics=False
        )
        return (heatmap.square() * weighting).sum() + logits.square().sum()

    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), weights)
    generator = torch.Generator().manual_seed(0)
    for weight, gradient in zip(weights, gradients, strict=True):
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        step = 1e-6
        with torch.no_grad():
            weight.add_(direction, alpha=step)
        up = loss().item()
        with torch.no_grad():
            weight.sub_(direction, alpha=2 * step)
        down = loss().item()
        with torch.no_grad():
            weight.add_(direction, alpha=step)
        slope = (up - down) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum().item(), slope, rtol=1e-4, atol=1e-5)


def test_gradient_to_an_image_that_asks_for_one() -> None:
    model, image = convnet(), images().requires_grad_()
    heatmap = explain.get("bcos")(model, image, TARGET, create_graph=True)
    (gradient,) = torch.autograd.grad(heatmap.square().sum(), image)
    assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_of_the_model_changes(create_graph: bool) -> None:
    model, image = convnet().train(), images()
    state = copy.deepcopy(model.state_dict())
    heatmap = explain.get("bcos")(model, image, TARGET, create_graph=create_graph)
    assert heatmap.requires_grad == create_graph
    assert not model.encode._forward_hooks and model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_tracked_statistics_are_those_of_a_training_step() -> None:
    model, image = convnet().train(), images()
    other = copy.deepcopy(model)
    other(image)
    explain.get("bcos").with_logits(model, image, lambda z: TARGET, track_statistics=True)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


def test_only_this_explainer_holds_the_scales_constant() -> None:
    model, image = convnet(), images().requires_grad_()
    score = model(image).gather(1, TARGET[:, None]).sum()
    (expected,) = torch.autograd.grad(score, image)
    gradient = explain.get("input_gradient")(model, image.detach(), TARGET)
    torch.testing.assert_close(gradient, expected)


def test_evaluation_chooses_it_for_bcos_networks_only() -> None:
    assert choose_explainer(convnet()).name == "bcos"
    with pytest.raises(UserError, match="declares 'bcos', which convnet does not"):
        explain.get("bcos")(backbone("convnet", (3, SIDE, SIDE), width=2), images(), TARGET)
