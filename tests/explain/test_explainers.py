"""Every explainer: shapes, values against captum and by hand, and an unchanged model."""

from __future__ import annotations

import copy
from typing import Any

import captum.attr
import pytest
import torch
import torchvision
from torch import nn

from benchmark import explain
from benchmark.core.errors import UserError
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import Trace
from benchmark.explain.gradcam import CamExplainer
from tests.support.networks import backbone, images, plain_net

SIZE = (3, 16, 16)
NAMES = ["attention", "gradcam", "gradcam++", "gradient_x_input", "input_gradient", "lrp"]
TO_IMAGE = ["gradient_x_input", "input_gradient", "lrp"]
TARGET = torch.tensor([1, 0, 2])


def convnet(**options: Any) -> Any:
    return backbone("convnet", SIZE, classes=3, width=4, **options)


def test_all_explainers_are_covered() -> None:
    # tested in test_bcos.py, test_gae.py, and with the networks that explain themselves
    others = ["bcos", "gae", "native", "rollout"]
    in_evaluation = [n for n in EXPLAINERS.names() if not EXPLAINERS.get(n).differentiable]
    assert EXPLAINERS.names() == sorted([*NAMES, *others, *in_evaluation])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("create_graph", [False, True])
def test_shape_type_and_graph(name: str, create_graph: bool) -> None:
    model, image, explainer = convnet().float(), images(SIZE, 3).float(), explain.get(name)
    heatmap, logits = explainer.with_logits(
        model, image, lambda z: TARGET, create_graph=create_graph
    )
    assert heatmap.shape == ((3, 3, 16, 16) if name in TO_IMAGE else (3, 1, 4, 4))
    assert heatmap.dtype == torch.float32 and torch.isfinite(heatmap).all()
    assert heatmap.requires_grad == logits.requires_grad == create_graph
    torch.testing.assert_close(logits, model(image), rtol=1e-5, atol=1e-6)
    assert explainer.signed == bool((heatmap < 0).any())
    with torch.no_grad():  # callers that evaluate are in here
        assert torch.equal(explainer(model, image, TARGET), heatmap)
    with torch.inference_mode():
        torch.testing.assert_close(explainer(model, image + 0, TARGET), heatmap.detach())


@pytest.mark.parametrize("dims", [1, (1, 2, 3), ()])
def test_a_heatmap_of_another_shape_is_refused(dims: int | tuple[int, ...]) -> None:
    class Summed(CamExplainer):
        """Sums a heatmap over its channels without keeping the dimension, or over more."""

        name = "summed"

        def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
            activation, gradient = self.map_and_gradient(trace, target)
            return (activation * gradient).sum(dims)

    with pytest.raises(ValueError, match=r"heatmap of summed .*expected \[3, C, H, W\]"):
        Summed()(convnet(), images(SIZE, 3), TARGET)


@pytest.mark.parametrize("constant", [False, True])
def test_map_and_gradient_of_the_cam_layer(constant: bool) -> None:
    class FirstOrder(CamExplainer):
        """A ⊙ ∂score / ∂A; its sum over channels and positions is linear in A."""

        name = "first_order"

        def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
            activation, gradient = self.map_and_gradient(trace, target, constant_gradient=constant)
            assert gradient.requires_grad == (trace.create_graph and not constant)
            return activation * gradient

    model, image = convnet(), images(SIZE, 3)
    # the head is linear in the map, so that the products sum to the logit without its bias
    logit = model(image).gather(1, TARGET[:, None])[:, 0] - model.classifier.bias[TARGET]
    for create_graph in (False, True):
        heatmap = FirstOrder()(model, image, TARGET, create_graph=create_graph)
        torch.testing.assert_close(heatmap.sum((1, 2, 3)), logit, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_of_the_model_changes(name: str, training: bool, create_graph: bool) -> None:
    model, image = convnet(), images(SIZE, 3)
    model.train(training)
    model.body[1].eval()  # a frozen layer must stay frozen
    frozen = model.body[4]
    frozen.weight.requires_grad_(False)

    def snapshot() -> dict[str, Any]:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return {
            "mode": [m.training for m in model.modules()],
            "hooks": [len(getattr(m, kind)) for m in model.modules() for kind in kinds],
            "identity": [(id(p), p.requires_grad, p.grad is None) for p in model.parameters()],
            "attributes": [sorted(vars(m)) for m in model.modules()],
            "classes": [(id(m), type(m), m.__dict__.get("forward")) for m in model.modules()],
        }

    before, state = snapshot(), copy.deepcopy(model.state_dict())
    explain.get(name)(model, image, TARGET, create_graph=create_graph)
    assert snapshot() == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match="one entry per image"):  # nor when it fails half-way
        explain.get(name if name != "attention" else "lrp")(model, image, TARGET[:2])
    assert snapshot() == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_tracked_statistics_are_those_of_a_training_step(name: str) -> None:
    model, image = convnet().train(), images(SIZE, 3)
    other = copy.deepcopy(model)
    other(image)
    explain.get(name).with_logits(
        model, image, lambda z: TARGET, create_graph=True, track_statistics=True
    )
    changed = 0
    for (key, mine), theirs in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, msg=key)
        changed += "num_batches_tracked" in key and int(mine) == 1
    assert changed == 6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [False, True])
def test_a_heatmap_belongs_to_its_image(name: str, training: bool) -> None:
    """With constant statistics, the heatmap of an image does not depend on its batch."""
    model, image, explainer = convnet().train(training), images(SIZE, 4), explain.get(name)
    target = torch.tensor([1, 0, 2, 0])
    if name in TO_IMAGE:
        only = explainer.with_logits(model, image, lambda z: z[:, 1] * torch.tensor([1, 0, 0, 0]))[
            0
        ]
        assert only[0].any() and not only[1:].any()
    if not training:
        alone = torch.cat([explainer(model, image[i : i + 1], target[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(explainer(model, image, target), alone, rtol=1e-9, atol=1e-12)


def test_differentiated_statistics_mix_the_batch() -> None:
    """The variant does what its name says, so that the default is seen to prevent it."""
    model, image = convnet().train(), images(SIZE, 4)
    first = torch.tensor([1, 0, 0, 0])
    mixed = explain.get("lrp", batch_statistics="train").with_logits(
        model, image, lambda z: z[:, 1] * first
    )[0]
    assert mixed[1:].abs().sum() > 0.01 * mixed.abs().sum()
    leaf = image.clone().requires_grad_()
    plain = torch.autograd.grad((model(leaf)[:, 1] * first).sum(), leaf)[0]
    gradient = explain.get("input_gradient", batch_statistics="train")
    ours = gradient.with_logits(convnet().train(), image, lambda z: z[:, 1] * first)[0]
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "alexnet"])
def test_gradcam_against_captum(name: str) -> None:
    size = {"convnet": SIZE, "resnet18": (3, 64, 64), "alexnet": (3, 95, 95)}[name]
    model, image = backbone(name, size, classes=3), images(size, 3)
    theirs = captum.attr.LayerGradCam(model, model.cam_module()).attribute(
        image, TARGET, relu_attributions=True
    )
    ours = explain.get("gradcam")(model, image, TARGET)
    assert ours.any() and ours.shape[2] > 1
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["convnet", "densenet121"])
def test_input_gradient_against_captum(name: str) -> None:
    size = {"convnet": SIZE, "densenet121": (3, 32, 32)}[name]
    model, image = backbone(name, size, classes=3), images(size, 3)
    theirs = captum.attr.Saliency(model).attribute(
        image.clone().requires_grad_(), TARGET, abs=False
    )
    torch.testing.assert_close(
        explain.get("input_gradient")(model, image, TARGET), theirs, rtol=1e-9, atol=1e-12
    )
    theirs = (
        captum.attr.InputXGradient(model).attribute(image.clone().requires_grad_(), TARGET).detach()
    )
    ours = explain.get("gradient_x_input")(model, image, TARGET)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradcam_plus_plus_by_hand() -> None:
    """The derivatives of exp(score) up to the third order, by autograd at each position."""
    model, image = convnet(), images(SIZE, 1)
    A = model.feature_map(image).detach()
    score = lambda a: torch.exp(model.classifier(a.mean((2, 3)))[0, 1])  # noqa: E731
    Y, expected = score(A), torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    for k in range(A.shape[1]):
        weight = torch.zeros((), dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                leaf = A.clone().requires_grad_()
                derivatives = [score(leaf)]
                for _ in range(3):
                    derivatives.append(
                        torch.autograd.grad(derivatives[-1], leaf, create_graph=True)[0][0, k, i, j]
                    )
                first, second, third = (d.detach() for d in derivatives[1:])
                alpha = second / (2 * second + (A[0, k] * third).sum())
                weight = weight + alpha * first.clamp(min=0) / Y
        expected[0, 0] += weight * A[0, k]
    heatmap = explain.get("gradcam++")(model, image, torch.tensor([1]))
    torch.testing.assert_close(heatmap, expected.clamp(min=0), rtol=1e-8, atol=1e-12)


def test_attention_by_hand() -> None:
    model, image = convnet(), images(SIZE, 2)
    energy = (model.feature_map(image) ** 2).sum(1, keepdim=True)
    expected = torch.stack([e / e.pow(2).sum().sqrt() for e in energy])
    torch.testing.assert_close(
        explain.get("attention")(model, image, TARGET[:2]), expected.detach()
    )


@pytest.mark.parametrize("name", NAMES)
def test_zero_image_and_dead_network(name: str) -> None:
    model, image, explainer = convnet(), torch.zeros(1, *SIZE).double(), explain.get(name)
    for dead in (False, True):
        if dead:  # no ReLU is active anywhere
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.constant_(module.bias, -1e3)
            image = images(SIZE, 1)
        heatmap = explainer(model, image, torch.tensor([2]), create_graph=True)
        assert torch.isfinite(heatmap).all()
        if dead or name in ("lrp", "gradient_x_input"):
            assert not heatmap.any()
        gradients = torch.autograd.grad(
            heatmap.square().sum(), list(model.parameters()), allow_unused=True
        )
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("create_graph", [False, True])
def test_under_bf16_autocast(name: str, create_graph: bool) -> None:
    model, image, explainer = convnet().float(), images(SIZE, 3).float(), explain.get(name)
    exact = explainer(model, image, TARGET)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(image).dtype == torch.bfloat16  # it does act
        heatmap, logits = explainer.with_logits(
            model, image, lambda z: TARGET, create_graph=create_graph
        )
    assert heatmap.dtype == torch.float32
    assert torch.cosine_similarity(heatmap.flatten(), exact.flatten(), dim=0) > 0.98
    if create_graph:
        (heatmap.square().sum() + logits.float().square().sum()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_in_bf16_has_a_heatmap_in_float32(name: str) -> None:
    model, image, explainer = convnet(), images(SIZE, 3), explain.get(name)
    exact = explainer(model, image, TARGET).float()
    heatmap = explainer(model.bfloat16(), image.bfloat16(), TARGET, create_graph=True)
    assert heatmap.dtype == torch.float32
    assert torch.cosine_similarity(heatmap.flatten(), exact.flatten(), dim=0) > 0.97
    heatmap.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("network", ["convnet", "resnet18"])
@pytest.mark.parametrize("name", NAMES)
def test_channels_last(name: str, network: str) -> None:
    """The heatmap and its derivatives are those of a network in the default memory format."""
    size = (3, 32, 32)
    model, image, explainer = backbone(network, size, classes=3), images(size, 3), explain.get(name)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert any(not parameter.is_contiguous() for parameter in other.parameters())
    found = []
    for each, given in (
        (model, image),
        (other, image),
        (other, image.contiguous(memory_format=torch.channels_last)),
    ):
        heatmap = explainer(each, given, TARGET, create_graph=True)
        weights = [p for p in each.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(heatmap.square().sum(), weights, allow_unused=True)
        found.append([heatmap.detach(), *(g for g in gradients if g is not None)])
    assert found[0][0].any() and len(found[0]) > 1
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(found[2], found[0], rtol=1e-8, atol=1e-11)


def test_one_logit_takes_the_target_as_its_sign() -> None:
    torch.manual_seed(0)
    model, image = plain_net(classes=1), images((3, 12, 12), 2)
    signed = explain.get("input_gradient")(model, image, torch.tensor([0, 1]))
    leaf = image.clone().requires_grad_()
    logits = model(leaf)
    expected = torch.autograd.grad(-logits[0, 0] + logits[1, 0], leaf)[0]
    torch.testing.assert_close(signed, expected, rtol=1e-10, atol=1e-14)


def test_torchvisions_own_network_with_its_functional_relu() -> None:
    """torchvision's DenseNet, whose last ReLU is an in-place function, gives the same map."""
    ours = backbone("densenet121", (3, 32, 32), classes=3)
    theirs = torchvision.models.densenet121(weights=None, num_classes=3).double().eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    image, lrp = images((3, 32, 32), 1), explain.get("lrp", epsilon=0.1)
    torch.testing.assert_close(
        lrp(theirs, image, TARGET[:1]), lrp(ours, image, TARGET[:1]), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("lrpp", {}, "unknown explainer 'lrpp'; did you mean lrp"),
        ("lrp", {"epsilon": 0.0}, "expected above 0"),
        ("lrp", {"epsilon": torch.tensor([0.1, -1.0])}, "expected above 0"),
        ("lrp", {"epsilon": "small"}, "expected a number"),
        ("lrp", {"batch_statistics": "eval"}, "not one of 'constant', 'train'"),
        ("gradcam", {"epsilon": 1.0}, "no option 'epsilon'"),
    ],
)
def test_mistakes_in_options(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        explain.get(name, **options)


def test_networks_that_cannot_be_explained_so() -> None:
    size = (2, 8, 8)
    groups = backbone("mnist_cnn", size)
    with pytest.raises(UserError, match=r"lrp needs .*'lrp', .*mnist_cnn"):
        explain.get("lrp")(groups, images(size), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="not defined for gelu"):
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(400, 3)
        ).double()
        explain.get("lrp")(model, images((3, 12, 12)), torch.tensor([0, 1]))
    with pytest.raises(UserError, match=r"cam_module\(\)"):
        explain.get("gradcam")(plain_net(), images((3, 12, 12)), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="epsilon has shape"):
        explain.get("lrp", epsilon=torch.ones(3))(
            plain_net(), images((3, 12, 12)), torch.tensor([0, 1])
        )
    with pytest.raises(UserError, match="one value per channel"):
        explain.get("lrp")(
            backbone("resnet18", (3, 16, 16)).train(), images((3, 16, 16), 1), torch.tensor([0])
        )
