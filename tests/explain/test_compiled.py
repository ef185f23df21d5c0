"""Explanations of compiled networks, and errors for heatmaps without meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.core.errors import UserError
from tests.support.networks import backbone, images, plain_net

SIZE = (3, 16, 16)
NAMES = ["attention", "gradcam", "gradcam++", "gradient_x_input", "input_gradient", "lrp"]
TARGET = torch.tensor([1, 0, 2])


def convnet(**options: Any) -> Any:
    return backbone("convnet", SIZE, classes=3, width=4, **options).train()


class Holder(nn.Module):
    """A wrapper of another library around a network."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.capabilities = network, network.capabilities

    def cam_module(self) -> nn.Module:
        return self.network.cam_module()  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image)  # type: ignore[no-any-return]


def in_place(network: Any) -> nn.Module:
    network.compile(backend="eager")
    return network  # type: ignore[no-any-return]


def wrapped(network: Any) -> nn.Module:
    return torch.compile(network, backend="eager")  # type: ignore[return-value]


def forward_alone(network: Any) -> nn.Module:
    network.forward = torch.compile(network.forward, backend="eager")
    return network  # type: ignore[no-any-return]


def a_part(network: Any) -> nn.Module:
    network.body = torch.compile(network.body, backend="eager")
    return network  # type: ignore[no-any-return]


def a_part_in_place(network: Any) -> nn.Module:
    network.body[0].compile(backend="eager")
    network.body[3].compile(backend="eager")
    return network  # type: ignore[no-any-return]


def held(network: Any) -> nn.Module:
    return Holder(torch.compile(network, backend="eager"))


def ahead_of_time(network: nn.Module) -> nn.Module:
    from functorch.compile import aot_module, nop  # the import takes half a second

    return aot_module(network, nop)  # type: ignore[no-any-return]


def functorch(network: Any) -> nn.Module:
    return ahead_of_time(network)


def functorch_part(network: Any) -> nn.Module:
    network.body = ahead_of_time(network.body)
    return network  # type: ignore[no-any-return]


WAYS = [
    in_place, wrapped, forward_alone, a_part, a_part_in_place, held, functorch, functorch_part,
]  # fmt: skip


def loss_of(name: str, network: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The heatmap, the logits, and what a loss of both leaves at the parameters."""
    heatmap, logits = explain.get(name).with_logits(
        network, image, lambda _: TARGET, create_graph=True
    )
    (heatmap.square().sum() + logits.square().sum()).backward()
    gradients = [p.grad if p.grad is not None else p * 0 for p in network.parameters()]
    return heatmap.detach(), logits.detach(), *gradients


def check(name: str, way: Callable, called: bool) -> None:
    torch.compiler.reset()
    image = images(SIZE, 3)
    expected = loss_of(name, convnet(), image)
    compiled = way(convnet())
    if called:
        compiled(image)  # it was used, and traced, before it is explained
    found = loss_of(name, compiled, image)
    assert expected[0].any()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_network_has_the_heatmap_of_the_plain_one(name: str, way: Callable) -> None:
    """Tracing would fix the backward rules: the heatmap, and the loss of it, would be zero."""
    check(name, way, called=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", [in_place, functorch_part])
@pytest.mark.parametrize("name", ["gradcam", "lrp"])
def test_so_has_one_whose_first_call_is_the_explanation(name: str, way: Callable) -> None:
    check(name, way, called=False)


@pytest.mark.slow
def test_explained_first_and_called_afterwards_the_network_still_is_compiled() -> None:
    torch.compiler.reset()
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable:
        calls.append(len(inputs))
        return graph.forward  # type: ignore[no-any-return]

    network, image = convnet(), images(SIZE, 3)
    network.compile(backend=backend)
    explain.get("lrp")(network, image, TARGET, create_graph=True)
    assert not calls
    network(image)
    assert calls


@pytest.mark.slow
def test_explained_inside_a_compiled_function_is_an_error() -> None:
    torch.compiler.reset()
    network, image = convnet(), images(SIZE, 3)

    def loss() -> torch.Tensor:
        return explain.get("lrp")(network, image, TARGET, create_graph=True).square().sum()

    with pytest.raises(UserError, match=r"inside a function that torch\.compile compiles"):
        torch.compile(loss, backend="eager")()


@pytest.mark.parametrize("name", ["gradient_x_input", "input_gradient", "lrp"])
@pytest.mark.parametrize("net", [plain_net, lambda: convnet().eval()])
def test_an_exported_network_has_the_heatmap_of_the_plain_one(name: str, net: Callable) -> None:
    """It calls operators instead of functions, and the rules are found by those too."""
    network = net()
    image = images((3, 12, 12) if isinstance(network, nn.Sequential) else SIZE, 3)
    exported = torch.export.export(network, (image,), strict=False).module()
    ours = explain.get(name)(exported, image, TARGET)
    theirs = explain.get(name)(network, image, TARGET)
    assert theirs.any()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_an_exported_network_without_relus_is_refused_by_lrp() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(400, 3)).double()
    image = images((3, 12, 12), 3)
    exported = torch.export.export(network, (image,), strict=False).module()
    with pytest.raises(UserError, match="not defined for gelu"):
        explain.get("lrp")(exported, image, TARGET)


def test_torch_batch_norm_called_by_hand_is_a_batch_norm() -> None:
    class ByHand(nn.Module):
        def __init__(self, network: nn.Sequential) -> None:
            super().__init__()
            self.convolution, self.norm, *self.rest = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n = self.norm
            x = torch.batch_norm(
                self.convolution(x),
                n.weight,
                n.bias,
                n.running_mean,
                n.running_var,
                n.training,
                0.1,
                n.eps,
                False,
            )
            for module in self.rest:
                x = module(x)
            return x

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3)
    ).double()
    image = images((3, 12, 12), 3)
    expected = explain.get("lrp")(network, image, TARGET)
    torch.testing.assert_close(explain.get("lrp")(ByHand(network).train(), image, TARGET), expected)
    assert int(network[1].num_batches_tracked) == 0  # type: ignore[arg-type]
    assert not network[1].running_mean.any()  # type: ignore[union-attr,operator]


@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda n: torch.jit.trace(n, images((3, 12, 12)))]
)
def test_a_scripted_network_hides_its_relus_from_lrp(make: Callable) -> None:
    network, image = make(plain_net()), images((3, 12, 12), 3)
    with pytest.raises(UserError, match=r"torch\.jit hides"):
        explain.get("lrp")(network, image, TARGET)
    expected = explain.get("input_gradient")(plain_net(), image, TARGET)
    torch.testing.assert_close(
        explain.get("input_gradient")(network.eval(), image, TARGET), expected
    )


class CutOff(nn.Module):
    """A network in which no gradient flows back to the image."""

    def __init__(self, network: nn.Module, how: str) -> None:
        super().__init__()
        self.network, self.how = network, how

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.how == "detach":
            return self.network(image.detach())  # type: ignore[no-any-return]
        with torch.no_grad():
            return self.network(image)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["gradient_x_input", "input_gradient", "lrp"])
@pytest.mark.parametrize("how", ["detach", "no_grad"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_network_that_is_cut_off_is_an_error(name: str, how: str, create_graph: bool) -> None:
    network = CutOff(plain_net(), how)
    with pytest.raises(UserError, match="the explained score does not depend on"):
        explain.get(name)(network, images((3, 12, 12), 3), TARGET, create_graph=create_graph)


@pytest.mark.parametrize("name", NAMES)
def test_a_heatmap_that_no_trained_parameter_moves_is_an_error_in_a_loss(name: str) -> None:
    """Only a bias behind the explained layers is trained, so the map would be a constant."""
    network, image = convnet().eval().requires_grad_(False), images(SIZE, 3)
    chosen = explain.get(name)
    chosen(network, image, TARGET, create_graph=True)  # nothing is trained, and nothing expected
    network.classifier.bias.requires_grad_(True)
    with pytest.raises(UserError, match=r"no parameter .*moves the heatmap"):
        chosen(network, image, TARGET, create_graph=True)
    chosen(network, image, TARGET)  # allowed without a graph


def test_grad_cam_of_a_frozen_stage_moves_by_its_last_layer_or_not_at_all() -> None:
    network, image = convnet().eval(), images(SIZE, 3)
    network.body.requires_grad_(False)
    assert explain.get("gradcam")(network, image, TARGET, create_graph=True).requires_grad
    with pytest.raises(UserError, match=r"no parameter .*moves the heatmap"):
        explain.get("gradcam", constant_weights=True)(network, image, TARGET, create_graph=True)
