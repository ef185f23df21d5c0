"""A heatmap inside a loss: its gradients to the weights against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.core.registry import BACKBONES, EXPLAINERS
from tests.support.networks import backbone, images, plain_net

#: The smallest images that use every layer and give a last map of more than one position.
SIZES = {
    "convnet": (3, 16, 16),
    "bcos_convnet": (3, 16, 16),
    "bcos_resnet18": (3, 16, 16),
    "bcos_resnet50": (3, 16, 16),
    "bcos_densenet121": (3, 16, 16),
    "mnist_cnn": (2, 8, 8),
    "resnet18": (3, 16, 16),
    "resnet50": (3, 16, 16),
    "densenet121": (3, 16, 16),
    "alexnet": (3, 63, 63),
    "convnext_base": (3, 32, 64),
    "vit": (3, 16, 16),
    "vit_s_16": (3, 32, 32),
    "vit_b_16": (3, 32, 32),
    "vit_l_16": (3, 32, 32),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "convnet": {"width": 4},
    "bcos_convnet": {"width": 4},
    "vit": {"dim": 16, "depth": 3, "heads": 2},
} | {name: {"small_stem": True} for name in SIZES if "resnet" in name or "densenet" in name}


@cache
def network(name: str) -> Any:
    return backbone(name, SIZES[name], classes=3, **OPTIONS.get(name, {}))


#: Large, and made of the same layers as others: tried with --slow.
LARGE = {"convnext_base", "vit_s_16", "vit_b_16", "vit_l_16", "resnet50", "alexnet"} | {
    "bcos_resnet18",
    "bcos_resnet50",
    "bcos_densenet121",
}


#: Explainers that the fast suite tries with these networks; --slow tries all of them.
FEW = {"resnet18": {"lrp", "gradcam"}, "densenet121": {"lrp"}}


def marks(explainer: str, name: str) -> list[Any]:
    """Return the marks of a pair of an explainer and a backbone."""
    slow = name in LARGE or explainer not in FEW.get(name, {explainer})
    return [pytest.mark.slow] if slow else []


def claimed() -> list[Any]:
    """Every differentiable explainer with every backbone that declares what it requires."""
    pairs: list[Any] = []
    for name in BACKBONES.names():
        for explainer in map(EXPLAINERS.get, EXPLAINERS.names()):
            able = not explainer.requires or getattr(
                BACKBONES.get(name).capabilities, explainer.requires
            )
            if explainer.differentiable and able:
                pair = explainer.name, name
                pairs.append(pytest.param(*pair, marks=marks(*pair)))
    return pairs


def loss_of(heatmap: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Return a loss with linear and quadratic terms of the heatmap, scaled by its initial mean."""
    start = heatmap().detach()
    weight = (
        torch.linspace(0.5, 1.5, start.numel(), dtype=start.dtype).view_as(start).sin()
        / start.abs().mean()
    )

    def loss() -> torch.Tensor:
        weighted = weight * heatmap()
        return weighted.mean() + weighted.square().mean()

    return loss


def some_parameters(model: nn.Module, most: int = 12_000_000) -> list[nn.Parameter]:
    """Return all trained parameters, or a random subset with fewer than ``most`` numbers."""
    everything = [parameter for parameter in model.parameters() if parameter.requires_grad]
    chosen, total = [], 0
    for i in torch.randperm(len(everything)).tolist():
        if total + everything[i].numel() <= most:
            chosen.append(everything[i])
            total += everything[i].numel()
    return chosen


def distance_to_differences(
    loss: Callable[[], torch.Tensor], model: nn.Module, seed: int = 0
) -> float:
    """Return the relative error of the derivative along a random direction of the weights.

    It is compared with the best central difference of four step lengths: long steps cross kinks of
    the ReLUs, and short ones suffer from rounding.
    """
    torch.manual_seed(seed)
    parameters = some_parameters(model)
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    direction = [torch.randn_like(p) * (p.detach().abs().mean() + 1e-3) for p in parameters]
    exact = sum(
        float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None
    )
    assert exact != 0
    del gradients
    errors = []

    def move(step: float) -> None:
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.data.add_(part, alpha=step)

    for step in (1e-6, 1e-7, 1e-5, 1e-8):
        move(step)
        above = float(loss().detach())
        move(-2 * step)
        below = float(loss().detach())
        move(step)
        errors.append(abs((above - below) / (2 * step) - exact) / abs(exact))
        if errors[-1] < 1e-6:
            break
    return min(errors)


@pytest.mark.parametrize(("explainer", "name"), claimed())
def test_heatmap_loss_against_central_differences(explainer: str, name: str) -> None:
    model, chosen, positive = network(name), explain.get(explainer), images(SIZES[name], 1)
    # Grad-CAM's ReLU may give a map of zeros, but not for every class and the negative image too
    tries = (
        (image, torch.tensor([k]))
        for image in (positive, -positive)
        for k in range(model.num_outputs)
    )
    image, target = next((x, k) for x, k in tries if chosen(model, x, k).any())
    error = distance_to_differences(
        loss_of(lambda: chosen(model, image, target, create_graph=True)), model
    )
    print(f"{explainer} on {name}: relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("statistics", ["constant", "train"])
@pytest.mark.parametrize("explainer", ["lrp", "gradient_x_input", "input_gradient"])
@pytest.mark.parametrize("name", ["convnet", pytest.param("resnet18", marks=[pytest.mark.slow])])
def test_in_training_mode(name: str, explainer: str, statistics: str) -> None:
    """In the loss, batch statistics are functions of the weights, whatever the explanation does."""
    model, image, target = network(name), images(SIZES[name], 3), torch.tensor([1, 0, 2])
    chosen = explain.get(explainer, batch_statistics=statistics)
    model.train()
    try:
        error = distance_to_differences(
            loss_of(lambda: chosen(model, image, target, create_graph=True)), model
        )
    finally:
        model.eval()
    print(f"{explainer} on {name}, {statistics} statistics: relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_several_directions_and_epsilons(seed: int) -> None:
    model, image, target = plain_net(seed), images((3, 12, 12), 3, seed), torch.tensor([0, 1, 3])
    lrp = explain.get("lrp", epsilon=10 ** -torch.linspace(1, 3, 3, dtype=torch.float64))
    assert (
        distance_to_differences(
            loss_of(lambda: lrp(model, image, target, create_graph=True)), model, seed
        )
        < 1e-6
    )


def test_loss_of_heatmap_and_logits_together() -> None:
    """After one forward pass, the gradient of a sum is the sum of the separate gradients."""
    model, image = network("convnet"), images(SIZES["convnet"], 3)
    target = torch.tensor([1, 0, 2])
    lrp = explain.get("lrp")

    def both() -> torch.Tensor:
        heatmap, logits = lrp.with_logits(model, image, lambda logits: target, create_graph=True)
        return heatmap.abs().sum() + nn.functional.cross_entropy(logits, target)

    assert distance_to_differences(both, model) < 1e-5
    together = torch.autograd.grad(both(), list(model.parameters()))
    heat = lrp(model, image, target, create_graph=True).abs().sum()
    alone = torch.autograd.grad(heat, list(model.parameters()), allow_unused=True)
    cross = torch.autograd.grad(
        nn.functional.cross_entropy(model(image), target), list(model.parameters())
    )
    for sum_, first, second in zip(together, alone, cross, strict=True):
        torch.testing.assert_close(
            sum_, second if first is None else first + second, rtol=1e-9, atol=1e-12
        )


def test_modified_rule_ends_with_the_heatmap() -> None:
    """Logits have their ordinary gradient after an explanation, in the same graph or a new one."""
    model, image, target = network("resnet18"), images(SIZES["resnet18"], 2), torch.tensor([1, 0])
    expected = torch.autograd.grad(model(image).square().sum(), list(model.parameters()))
    _, logits = explain.get("lrp", epsilon=0.5).with_logits(
        model, image, lambda logits: target, create_graph=True
    )
    for graph in (logits, model(image)):
        found = torch.autograd.grad(graph.square().sum(), list(model.parameters()))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_score_of_the_caller() -> None:
    """The score is Σ log p, whose gradient RRR penalises."""
    model, image = network("convnet"), images(SIZES["convnet"], 2)
    gradient = explain.get("input_gradient")
    found, logits = gradient.with_logits(
        model, image, lambda z: z.log_softmax(1).sum(1), create_graph=True
    )
    leaf = image.clone().requires_grad_()
    expected = torch.autograd.grad(model(leaf).log_softmax(1).sum(), leaf)[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(logits, model(image))
    loss = loss_of(
        lambda: gradient.with_logits(
            model, image, lambda z: z.log_softmax(1).sum(1), create_graph=True
        )[0]
    )
    assert distance_to_differences(loss, model) < 1e-5


def test_image_with_a_graph_of_its_own() -> None:
    """An image made by another network gets a gradient through the heatmap; others get none."""
    model, base = network("convnet"), images(SIZES["convnet"], 2)
    target, weight = (
        torch.tensor([1, 2]),
        torch.ones(3, 1, 1, dtype=torch.float64, requires_grad=True),
    )
    lrp = explain.get("lrp")

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return lrp(model, base * weight, target, create_graph=True).square().sum()

    found = torch.autograd.grad(loss(weight), weight)[0]
    step = 1e-6
    for channel in range(3):
        move = torch.zeros_like(weight)
        move[channel] = step
        with torch.no_grad():
            slope = (loss(weight + move) - loss(weight - move)) / (2 * step)
        torch.testing.assert_close(found[channel, 0, 0], slope, rtol=1e-5, atol=1e-12)
    plain = base.clone()
    lrp(model, plain, target, create_graph=True).sum().backward()
    assert plain.grad is None and not plain.requires_grad
    model.zero_grad(set_to_none=True)


def test_gradcam_with_constant_weights_moves_the_activations_alone() -> None:
    model, image, target = network("convnet"), images(SIZES["convnet"], 2), torch.tensor([1, 2])
    activation = model.feature_map(image)
    score = model.classifier(activation.mean((2, 3))).gather(1, target[:, None]).sum()
    weight = torch.autograd.grad(score, activation, retain_graph=True)[0].mean((2, 3), keepdim=True)
    by_hand = (weight * activation).sum(1, keepdim=True).relu().square().sum()
    parameters = list(model.body.parameters())
    expected = torch.autograd.grad(by_hand, parameters)
    heatmap = explain.get("gradcam", constant_weights=True)(model, image, target, create_graph=True)
    last = torch.autograd.grad(
        heatmap.sum(), model.classifier.weight, retain_graph=True, allow_unused=True
    )[0]
    assert last is None  # the weights of the sum are made of the last layer, and are constants here
    for ours, theirs in zip(
        torch.autograd.grad(heatmap.square().sum(), parameters), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
