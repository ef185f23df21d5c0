"""LRP against zennit with ε at the ReLU, against dense textbook LRP-ε, and its limits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import zennit.core
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from torch import nn

from benchmark import explain
from tests.support.networks import backbone, images, plain_net

TINY = 1e-30  # zennit divides by z + TINY: only against 0 / 0


class DampedRelu(zennit.core.Hook):
    """Multiplies relevance by a / (a + ε), without state, so that a ReLU can be used twice."""

    def __init__(self, epsilon: torch.Tensor) -> None:
        super().__init__()
        self.epsilon = epsilon

    def post_forward(self, module: nn.Module, input: Any, output: torch.Tensor) -> torch.Tensor:
        share = (output / (output + self.epsilon.view(-1, *[1] * (output.dim() - 1)))).detach()
        output.register_hook(lambda relevance: relevance * share)
        return output

    def copy(self) -> DampedRelu:
        return DampedRelu(self.epsilon)

    def register(self, module: nn.Module) -> Any:
        return zennit.core.RemovableHandleList([module.register_forward_hook(self.post_forward)])


class Whole(nn.Module):
    """A backbone with its mean over positions as a module, which zennit can hook."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.mean, self.flat = model, nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.classifier(self.flat(self.mean(self.model.stages(x))))  # type: ignore[no-any-return]


def frozen_norms(model: nn.Module) -> nn.Module:
    """Return a copy with batch norms as the 1×1 convolutions that they are in evaluation mode."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(module, nn.ReLU):
            module.inplace = False
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                assert child.running_mean is not None and child.running_var is not None
                scale = child.weight / (child.running_var + child.eps).sqrt()
                conv = nn.Conv2d(len(scale), len(scale), 1, groups=len(scale)).to(scale.dtype)
                conv.weight.data = scale.detach().view(-1, 1, 1, 1)
                conv.bias.data = (child.bias - child.running_mean * scale).detach()  # type: ignore[union-attr]
                setattr(module, name, conv)
    return model


def zennit_lrp(
    model: nn.Module, image: torch.Tensor, target: torch.Tensor, epsilon: torch.Tensor
) -> torch.Tensor:
    rules = [
        (zennit.types.Convolution, zennit.rules.Epsilon(TINY)),
        (nn.Linear, zennit.rules.Epsilon(TINY)),
        (zennit.types.AvgPool, zennit.rules.Norm(TINY)),
        (zennit.layer.Sum, zennit.rules.Norm(TINY)),
        (nn.ReLU, DampedRelu(epsilon)),
    ]

    def rule_of(context: dict[str, Any], name: str, module: nn.Module) -> Any:
        return next((rule for kind, rule in rules if isinstance(module, kind)), None)

    composite = zennit.core.Composite(rule_of, [zennit.torchvision.ResNetBasicBlockCanonizer()])
    image = image.clone().requires_grad_()
    with composite.context(model) as hooked:
        logits = hooked(image)
        start = nn.functional.one_hot(target, logits.shape[1]) * logits.detach()
        return torch.autograd.grad(logits, image, start)[0]


CASES: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "plain convnet": (plain_net, (3, 12, 12)),
    "convnet with batch norm": (lambda: backbone("convnet", (3, 16, 16), width=6), (3, 16, 16)),
    "resnet18": (lambda: backbone("resnet18", (3, 48, 48)), (3, 48, 48)),
    "densenet121": (lambda: backbone("densenet121", (3, 32, 32)), (3, 32, 32)),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case == "densenet121" else [])
        for case in CASES
    ],
)
def test_against_zennit(case: str) -> None:
    make, size = CASES[case]
    count = 1 if case == "densenet121" else 2
    model, image, target = make(), images(size, count), torch.tensor([1, 3])[:count]
    epsilon = torch.tensor([0.01, 0.003], dtype=torch.float64)[:count]
    ours = explain.get("lrp", epsilon=epsilon)(model, image, target)
    frozen = frozen_norms(model)
    whole = Whole(frozen) if hasattr(frozen, "stages") else frozen
    with torch.no_grad():
        torch.testing.assert_close(whole(image), model(image), rtol=1e-9, atol=1e-9)
    theirs = zennit_lrp(whole, image, target, epsilon)
    error = float((ours - theirs).abs().sum() / theirs.abs().sum())
    print(f"{case}: relative L1 distance to zennit {error:.1e}")
    assert theirs.abs().sum() > 0
    assert error < 1e-9


def test_textbook_lrp_with_dense_matrices() -> None:
    """The ε rule of Bach et al. 2015 differs by the factor z / (z + ε sign z) of the output."""
    torch.manual_seed(3)
    conv, first, last = nn.Conv2d(2, 4, 3, stride=2), nn.Linear(4 * 2 * 2, 6), nn.Linear(6, 3)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), first, nn.ReLU(), last).double()
    image, epsilon = images((2, 5, 5), 1), 0.05
    with torch.no_grad():
        basis = torch.eye(50, dtype=torch.float64).view(50, 2, 5, 5)
        dense = (
            nn.functional.conv2d(basis, conv.weight, stride=2).flatten(1).T
        )  # a row for each output
        layers = [
            (dense, conv.bias.repeat_interleave(4)),
            (first.weight, first.bias),
            (last.weight, last.bias),
        ]  # type: ignore[union-attr]
        activations, z = [image.flatten()], []
        for matrix, bias in layers:
            z.append(matrix @ activations[-1] + bias)
            activations.append(z[-1].clamp(min=0))
        relevance = torch.zeros(3, dtype=torch.float64)
        relevance[2] = z[-1][2]
        for (matrix, _), a, out in zip(layers[::-1], activations[-2::-1], z[::-1], strict=True):
            relevance = a * (matrix.T @ (relevance / (out + epsilon * out.sign())))
    ours = explain.get("lrp", epsilon=epsilon)(model, image, torch.tensor([2])).flatten()
    logit = z[-1][2]
    torch.testing.assert_close(
        ours * logit / (logit + epsilon * logit.sign()), relevance, rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize("case", ["plain convnet", "convnet with batch norm"])
def test_small_epsilon_is_gradient_times_input(case: str) -> None:
    make, size = CASES[case]
    model, image, target = make(), images(size), torch.tensor([0, 2])
    limit = explain.get("gradient_x_input")(model, image, target)
    distance = [
        float((explain.get("lrp", epsilon=e)(model, image, target) - limit).abs().sum())
        for e in (1e-6, 1e-9)
    ]
    assert distance[1] < 1e-4 * float(limit.abs().sum())
    assert distance[1] < 0.01 * distance[0]  # linear in ε


def test_epsilon_of_each_image_is_its_own() -> None:
    model, image, target = plain_net(), images((3, 12, 12), 3), torch.tensor([0, 1, 2])
    epsilon = torch.tensor([0.5, 0.01, 1e-3])
    together = explain.get("lrp", epsilon=epsilon)(model, image, target)
    for i, each in enumerate(epsilon):
        alone = explain.get("lrp", epsilon=float(each))(model, image[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-14)


def test_every_spelling_of_the_relu() -> None:
    """A ReLU is a ReLU: as a module, shared, as a function, as a method, in place or not."""
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 3, 3, padding=1).double() for _ in range(6)]
    for layer in conv:
        nn.init.constant_(layer.bias, 0.3)  # type: ignore[arg-type]
    shared = nn.ReLU(inplace=True)
    F = nn.functional

    def forward(relus: list[Any]) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            for layer, relu in zip(conv, relus, strict=True):
                x = relu(layer(x))
            return x.mean((2, 3))

        return call

    class Net(nn.Module):
        def __init__(self, relus: list[Any]) -> None:
            super().__init__()
            self.call = forward(relus)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.call(x)  # type: ignore[no-any-return]

    def discarding(x: torch.Tensor) -> torch.Tensor:
        F.relu(x, inplace=True)
        return x

    image, target = images((3, 6, 6)), torch.tensor([0, 2])
    mixed = Net(
        [shared, shared, discarding, torch.relu, torch.Tensor.relu_, lambda x: F.relu(input=x)]
    )
    plain = Net([nn.ReLU() for _ in conv])
    lrp = explain.get("lrp", epsilon=0.1)
    expected = lrp(plain, image, target)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(lrp(mixed, image, target), expected, rtol=1e-12, atol=1e-15)


def test_degenerate_images() -> None:
    model = backbone("convnet", (3, 16, 16), width=4)
    lrp = explain.get("lrp")
    zero = torch.zeros(2, 3, 16, 16).double()
    assert torch.equal(lrp(model, zero, torch.tensor([0, 1])), zero)
    image = images((3, 16, 16), 3)
    one = lrp(model, image[:1], torch.tensor([1]))
    torch.testing.assert_close(
        one, lrp(model, image, torch.tensor([1, 0, 2]))[:1], rtol=1e-9, atol=1e-12
    )
    dead = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 4)
    ).double()
    nn.init.constant_(dead[0].bias, -1e3)  # type: ignore[arg-type]
    assert (
        lrp(dead, image, torch.tensor([1, 0, 2])).abs().sum() == 0
    )  # no active ReLU: no relevance, no NaN
